//! Ends the texts of an ensemble before their stop words, which its model knows as tokens alone: a
//! word that begins or ends within a token would show.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use consort_stage::{
    Enough, Parameter, Request, Response, Responses, Result, Signature, Stage, Tensor,
};
use futures::{StreamExt, stream};

use crate::stop::{Stop, Words};
use crate::text_tensors::{
    EXCLUDE_PROMPT, KEEPS_STOP, STOP_WORDS, TEXT_INPUT, TEXT_OUTPUT, is_text,
};

/// How many texts there are, and the output that tells them apart.
const TEXTS: &str = "num_return_sequences";
const INDEX: &str = "sequence_index";

/// The inputs that ask to be told something of each token.
const TOLD: [&str; 2] = ["return_log_probs", "return_generation_logits"];

/// An ensemble whose texts end before their stop words.
struct StopWords {
    ensemble: Arc<dyn Stage>,
    is_decoupled: bool,
    texts: Texts,
}

/// What the texts of an ensemble are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texts {
    /// Whether they begin without the prompt where the request does not say.
    pub(crate) exclude_prompts: bool,
    /// Whether each word at which a model ends is one of the request's, so that it is found in the
    /// text where the model gives it out. Its first token may begin before the word, with a space
    /// that belongs to the text.
    pub(crate) have_every_word: bool,
}

/// The ensemble with texts that end before their stop words, if it has texts and takes such words.
pub(crate) fn ended(
    ensemble: Arc<dyn Stage>,
    signature: &Signature,
    texts: Texts,
) -> Arc<dyn Stage> {
    if !is_text(signature.input(STOP_WORDS)) || !is_text(signature.output(TEXT_OUTPUT)) {
        return ensemble;
    }
    Arc::new(StopWords { ensemble, is_decoupled: signature.is_decoupled, texts })
}

impl Stage for StopWords {
    fn call(&self, mut request: Request) -> Responses {
        let Some(mut ending) = Ending::of(&request, self) else {
            return self.ensemble.call(request);
        };
        // What is told of each token cannot be cut where the text is.
        if self.texts.have_every_word && !TOLD.iter().any(|input| asks(&request, input)) {
            request.parameters.insert(KEEPS_STOP.into(), Parameter::Bool(true));
        }
        ending.enough = request.context.enough();
        ending.over(self.ensemble.call(request))
    }
}

/// The responses to a request, on their way to the stop words in their texts.
struct Ending {
    /// The stop words of each row of the batch.
    words: Vec<Arc<Words>>,
    /// What the texts of each row begin with; none where they begin without the prompt.
    prompts: Vec<Vec<u8>>,
    /// How many texts of a row there are.
    count: usize,
    is_decoupled: bool,
    /// The texts that have begun, by their numbers.
    texts: BTreeMap<i64, Text>,
    ready: VecDeque<Result<Response>>,
    /// `None` once nothing more is wanted of the ensemble.
    responses: Option<Responses>,
    /// Tells it that this is no failure.
    enough: Enough,
}

/// One text.
struct Text {
    stop: Stop,
    /// What it begins with, until it has.
    prompt: Option<Vec<u8>>,
    /// The response whose text ends in what may become a stop word, and what is shown of that: it
    /// waits for the next one, or for the end.
    waiting: Option<(Response, Vec<u8>)>,
    is_over: bool,
}

impl Ending {
    /// What is to be done with the responses to `request`; `None` when that is nothing.
    fn of(request: &Request, stage: &StopWords) -> Option<Self> {
        let words = words_of(request.input(STOP_WORDS)?)?;
        let count = request.input(TEXTS).and_then(|tensor| tensor.to_slice::<i32>().ok());
        let count = count.and_then(|count| usize::try_from(*count.first()?).ok()).unwrap_or(1);
        // Texts that nobody can tell apart are not followed.
        if words.iter().all(|words| words.is_empty())
            || !request.wants(TEXT_OUTPUT)
            || (count > 1 && !request.wants(INDEX))
        {
            return None;
        }
        let excludes = request.input(EXCLUDE_PROMPT).and_then(|tensor| tensor.to_bools().ok());
        let excludes = excludes.and_then(|flags| flags.first().copied());
        let prompts =
            request.input(TEXT_INPUT).filter(|_| !excludes.unwrap_or(stage.texts.exclude_prompts));
        let prompts = prompts.and_then(|prompts| prompts.to_strings().ok()).unwrap_or_default();
        Some(Self {
            words,
            prompts: prompts.into_iter().map(<[u8]>::to_vec).collect(),
            count,
            is_decoupled: stage.is_decoupled,
            texts: BTreeMap::new(),
            ready: VecDeque::new(),
            responses: None,
            enough: Enough::default(),
        })
    }

    fn over(mut self, responses: Responses) -> Responses {
        self.responses = Some(responses);
        Box::pin(stream::unfold(self, |mut ending| async move {
            let response = ending.next().await?;
            Some((response, ending))
        }))
    }

    async fn next(&mut self) -> Option<Result<Response>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Some(response);
            }
            match self.responses.as_mut()?.next().await {
                Some(Ok(response)) => {
                    if let Err(error) = self.take(response) {
                        self.end_with(Err(error));
                    }
                }
                Some(Err(error)) => self.end_with(Err(error)),
                None => {
                    self.finish();
                    self.responses = None;
                }
            }
        }
    }

    /// Takes a response of the ensemble.
    fn take(&mut self, response: Response) -> Result<()> {
        let is_last = response.is_last || !self.is_decoupled;
        let pieces = match response.output(TEXT_OUTPUT) {
            Some(text) => text.to_strings()?,
            None => Vec::new(),
        };
        match pieces[..] {
            [piece] => {
                let piece = piece.to_vec();
                self.advance(response, piece, is_last)
            }
            [] => {
                if is_last {
                    self.finish();
                }
                self.ready.push_back(Ok(response));
                Ok(())
            }
            _ => {
                let texts = pieces.iter().enumerate();
                let texts = texts.map(|(index, text)| self.whole(text, index, pieces.len()));
                let texts: Vec<_> = texts.collect();
                self.ready.push_back(Ok(with_texts(response, &texts)));
                Ok(())
            }
        }
    }

    /// Takes a response with a piece of one text.
    fn advance(&mut self, mut response: Response, piece: Vec<u8>, is_last: bool) -> Result<()> {
        let index = index_of(&response)?;
        let begin = || Text::new(&self.words[0], self.prompts.first());
        let text = self.texts.entry(index).or_insert_with(begin);
        if text.is_over {
            return Ok(());
        }
        let (mut shown, is_over) = text.push(piece);
        text.is_over = is_over;
        if let Some((response, shown)) = text.waiting.take() {
            self.ready.push_back(Ok(with_texts(response, &[shown])));
        }
        if is_last {
            if !is_over {
                shown.extend(text.stop.finish());
            }
            self.finish();
            self.ready.push_back(Ok(with_texts(response, &[shown])));
        } else if is_over {
            let are_over = self.texts.values().filter(|text| text.is_over).count();
            response.is_last = are_over >= self.count;
            if response.is_last {
                // Which stops the model.
                self.enough.say();
                self.responses = None;
            }
            self.ready.push_back(Ok(with_texts(response, &[shown])));
        } else if text.stop.is_holding() {
            text.waiting = Some((response, shown));
        } else {
            self.ready.push_back(Ok(with_texts(response, &[shown])));
        }
        Ok(())
    }

    /// What is shown of one of several texts in a response, each of which is whole.
    fn whole(&self, text: &[u8], index: usize, count: usize) -> Vec<u8> {
        let row = index * self.words.len() / count;
        let mut followed = Text::new(&self.words[row], self.prompts.get(row));
        let (mut shown, is_over) = followed.push(text.to_vec());
        if !is_over {
            shown.extend(followed.stop.finish());
        }
        shown
    }

    /// Lets go of the responses that wait, with what was held back.
    fn finish(&mut self) {
        for text in self.texts.values_mut() {
            if let Some((response, mut shown)) = text.waiting.take() {
                shown.extend(text.stop.finish());
                self.ready.push_back(Ok(with_texts(response, &[shown])));
            }
        }
    }

    /// Lets go of the responses that wait, without it.
    fn end_with(&mut self, end: Result<Response>) {
        let waiting = self.texts.values_mut().filter_map(|text| text.waiting.take());
        let waiting = waiting.map(|(response, shown)| Ok(with_texts(response, &[shown])));
        self.ready.extend(waiting);
        self.ready.push_back(end);
        self.responses = None;
    }
}

impl Text {
    fn new(words: &Arc<Words>, prompt: Option<&Vec<u8>>) -> Self {
        let prompt = prompt.cloned();
        Self { stop: Stop::new(words.clone()), prompt, waiting: None, is_over: false }
    }

    /// Takes a piece; the prompt, which comes in one with the first, may have any word in it.
    fn push(&mut self, mut piece: Vec<u8>) -> (Vec<u8>, bool) {
        let prompt = self.prompt.take().filter(|prompt| piece.starts_with(prompt));
        let Some(mut prompt) = prompt else { return self.stop.push(piece) };
        let (shown, is_over) = self.stop.push(piece.split_off(prompt.len()));
        prompt.extend(shown);
        (prompt, is_over)
    }
}

/// Whether a request sets a switch.
fn asks(request: &Request, input: &str) -> bool {
    let flags = request.input(input).and_then(|tensor| tensor.to_bools().ok());
    flags.is_some_and(|flags| flags.contains(&true))
}

/// The words of each row; `None` when they are none.
fn words_of(tensor: &Tensor) -> Option<Vec<Arc<Words>>> {
    let words = tensor.to_strings().ok().filter(|words| !words.is_empty())?;
    let rows = if tensor.shape.len() > 1 { tensor.shape[0].max(1) as usize } else { 1 };
    let each = words.len().div_ceil(rows);
    Some(words.chunks(each).map(|words| Arc::new(Words::new(words))).collect())
}

/// Which of several texts a response belongs to.
fn index_of(response: &Response) -> Result<i64> {
    let Some(index) = response.output(INDEX) else { return Ok(0) };
    Ok(index.to_slice::<i32>()?.first().copied().unwrap_or_default().into())
}

/// The response with these texts in place of its own.
fn with_texts(mut response: Response, texts: &[Vec<u8>]) -> Response {
    for output in response.outputs.iter_mut().filter(|output| &*output.name == TEXT_OUTPUT) {
        *output = Tensor::from_strings(output.name.clone(), &output.shape, texts);
    }
    response
}

#[cfg(test)]
mod tests;
