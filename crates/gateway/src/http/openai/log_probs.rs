//! How likely a model found the tokens of a text, and which others it found likely in their places.

use std::collections::VecDeque;

use consort_stage::{Error, Response, Result, Signature};
use serde_json::{Map, Value, json};

use super::answer::Kind;
use super::characters::Characters;
use super::error::Refusal;

/// What a response says of its tokens: each as bytes, how likely it was, and the same of others.
const TOKENS: &str = "output_tokens";
const VALUES: &str = "output_log_probs";
const OTHER_TOKENS: &str = "top_logprob_tokens";
const OTHER_VALUES: &str = "top_logprob_values";

/// What stands for a probability of 0, whose logarithm JSON has no number for, as at OpenAI.
const IMPOSSIBLE: f32 = -9999.0;

/// The outputs that tell so many alternatives to each token; an error when the model lacks one.
pub(super) fn outputs(
    signature: &Signature,
    alternatives: usize,
) -> Result<&'static [&'static str], Refusal> {
    given("logprobs", signature, alternatives, &[TOKENS, VALUES, OTHER_TOKENS, OTHER_VALUES])
}

/// Those of four outputs, the last two of which are of alternatives, that tell so many; an error
/// of the field that asks for them when the model lacks one.
pub(super) fn given(
    field: &str,
    signature: &Signature,
    alternatives: usize,
    all: &'static [&'static str; 4],
) -> Result<&'static [&'static str], Refusal> {
    let wanted = if alternatives > 0 { &all[..] } else { &all[..2] };
    match wanted.iter().find(|name| signature.output(name).is_none()) {
        None => Ok(wanted),
        Some(missing) => {
            let text =
                format!("`{field}` is not supported: no step of the model gives `{missing}`");
            Err(Refusal::of(field, text))
        }
    }
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) said: Likely,
    /// The likeliest tokens in its place.
    pub(super) others: Vec<Likely>,
    /// How many characters of the text come before it.
    pub(super) start: usize,
}

/// Some token and the logarithm of its probability, if it is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Likely {
    pub(super) bytes: Vec<u8>,
    pub(super) value: Option<f32>,
}

/// Gives the tokens of a text together with the text that they begin in.
#[derive(Debug, Default)]
pub(super) struct LogProbs {
    /// Tokens whose text has not been shown.
    waiting: VecDeque<Token>,
    /// How many characters the model has made, and how many of them were shown.
    made: usize,
    shown: usize,
    /// The tokens put together, to find where each begins.
    characters: Characters,
}

impl LogProbs {
    /// Reads the tokens of a response that adds `text`.
    pub(super) fn read(&mut self, response: &Response, text: &str) -> Result<()> {
        let (first, end) = (self.made, self.made + text.chars().count());
        self.made = end;
        let (Some(tokens), Some(values)) = (response.output(TOKENS), response.output(VALUES))
        else {
            return Ok(());
        };
        let (tokens, values) = (tokens.to_strings()?, values.to_slice::<f32>()?);
        let others = alternatives(response, (OTHER_TOKENS, OTHER_VALUES))?;
        if values.len() != tokens.len() || !others.len().is_multiple_of(tokens.len().max(1)) {
            return Err(mismatch());
        }
        let each = others.len() / tokens.len().max(1);
        let mut start = first;
        for (place, (bytes, value)) in tokens.into_iter().zip(values.iter()).enumerate() {
            let said = Likely { bytes: bytes.to_vec(), value: Some(*value) };
            let others = others[place * each..][..each].to_vec();
            // A token that a text leaves out has a name, and still begins no further than its end.
            self.waiting.push_back(Token { said, others, start: start.min(end) });
            start += self.characters.push(bytes).chars().count();
        }
        Ok(())
    }

    /// Puts so many characters before everything that is made, of which nothing was shown.
    pub(super) fn begin_behind(&mut self, characters: usize) {
        self.waiting.iter_mut().for_each(|token| token.start += characters);
        self.made += characters;
        self.shown += characters;
    }

    /// The tokens that begin within the text shown so far, of which `text` is the last part.
    pub(super) fn shown(&mut self, text: &str) -> Vec<Token> {
        self.shown += text.chars().count();
        let count = self.waiting.iter().take_while(|token| token.start < self.shown).count();
        self.waiting.drain(..count).collect()
    }

    /// The tokens that are left at the end of the text.
    pub(super) fn finish(&mut self) -> Vec<Token> {
        self.waiting.drain(..).collect()
    }
}

/// The likeliest tokens in the place of each token, token after token, from these two outputs.
pub(super) fn alternatives(response: &Response, outputs: (&str, &str)) -> Result<Vec<Likely>> {
    let (tokens, values) = (response.output(outputs.0), response.output(outputs.1));
    let (Some(tokens), Some(values)) = (tokens, values) else {
        return Ok(Vec::new());
    };
    let (tokens, values) = (tokens.to_strings()?, values.to_slice::<f32>()?);
    if values.len() != tokens.len() {
        return Err(mismatch());
    }
    let likely =
        |(bytes, value): (&[u8], &f32)| Likely { bytes: bytes.to_vec(), value: Some(*value) };
    Ok(tokens.into_iter().zip(values.iter()).map(likely).collect())
}

pub(super) fn mismatch() -> Error {
    Error::internal("the steps of the model disagree on how many tokens a response has")
}

/// OpenAI's object for these tokens.
pub(super) fn json(kind: Kind, tokens: &[Token]) -> Value {
    match kind {
        Kind::Chat => {
            let content: Vec<Value> = tokens.iter().map(of_chat).collect();
            json!({"content": content, "refusal": null})
        }
        Kind::Completion => of_completion(tokens),
    }
}

fn of_chat(token: &Token) -> Value {
    let others: Vec<Value> = token.others.iter().map(Likely::of_chat).collect();
    let mut value = token.said.of_chat();
    value["top_logprobs"] = others.into();
    value
}

fn of_completion(tokens: &[Token]) -> Value {
    let names: Vec<_> = tokens.iter().map(|token| token.said.name_in_completion()).collect();
    let values: Vec<_> = tokens.iter().map(|token| token.said.number()).collect();
    let starts: Vec<_> = tokens.iter().map(|token| token.start).collect();
    let others: Vec<_> = tokens.iter().map(others_of_completion).collect();
    json!({
        "tokens": names,
        "token_logprobs": values,
        "top_logprobs": others,
        "text_offset": starts,
    })
}

/// The likeliest tokens in a token's place, and always the token itself.
fn others_of_completion(token: &Token) -> Value {
    // Nothing comes before the first token of a prompt, so nothing is likely there.
    if token.said.value.is_none() {
        return Value::Null;
    }
    let mut object = Map::new();
    for likely in token.others.iter().chain([&token.said]) {
        // Of two tokens that read alike the likelier is told.
        object.entry(likely.name_in_completion()).or_insert_with(|| likely.number().into());
    }
    object.into()
}

impl Likely {
    fn number(&self) -> Option<f32> {
        self.value.map(|value| value.max(IMPOSSIBLE))
    }

    fn of_chat(&self) -> Value {
        json!({"token": self.name(), "logprob": self.number(), "bytes": self.bytes})
    }

    /// The token as text, bytes that are no characters as `\x` and two digits.
    fn name(&self) -> String {
        let mut name = String::with_capacity(self.bytes.len());
        for chunk in self.bytes.utf8_chunks() {
            name.push_str(chunk.valid());
            name.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        }
        name
    }

    /// The same where nothing else tells the bytes, so that no two tokens read alike.
    fn name_in_completion(&self) -> String {
        let prefix = if std::str::from_utf8(&self.bytes).is_ok() { "" } else { "bytes:" };
        prefix.to_owned() + &self.name()
    }
}

#[cfg(test)]
mod tests {
    use consort_stage::Tensor;

    use super::*;

    /// A response of these tokens, with itself and one more in the place of each.
    fn response(tokens: &[&[u8]]) -> Response {
        let count = tokens.len() as i64;
        let values: Vec<f32> = (0..tokens.len()).map(|place| -(place as f32)).collect();
        let others: Vec<&[u8]> = tokens.iter().flat_map(|token| [*token, b"?"]).collect();
        let other_values = values.iter().flat_map(|value| [*value, f32::NEG_INFINITY]).collect();
        Response::only(vec![
            Tensor::from_strings(TOKENS, &[1, count], tokens),
            Tensor::from_vec(VALUES, &[1, 1, count], values),
            Tensor::from_strings(OTHER_TOKENS, &[1, count, 2], &others),
            Tensor::from_vec(OTHER_VALUES, &[1, count, 2], other_values),
        ])
    }

    /// Where the tokens begin that come with each of these texts.
    fn starts(log_probs: &mut LogProbs, texts: &[&str]) -> Vec<Vec<usize>> {
        let starts = |tokens: Vec<Token>| tokens.iter().map(|token| token.start).collect();
        texts.iter().map(|text| starts(log_probs.shown(text))).collect()
    }

    #[test]
    fn tokens_come_with_the_text_that_they_begin_in() {
        let mut log_probs = LogProbs::default();
        log_probs.read(&response(&[b"one", b" two", b" three"]), "one two three").unwrap();
        assert_eq!(
            starts(&mut log_probs, &["one", "", " ", "two "]),
            [vec![0], vec![], vec![3], vec![7]]
        );
        log_probs.read(&response(&[b"!"]), "!").unwrap();
        assert_eq!(starts(&mut log_probs, &["three"]), [Vec::<usize>::new()]);
        assert_eq!(log_probs.finish().len(), 1);
    }

    #[test]
    fn the_parts_of_a_character_begin_where_it_does() {
        let mut log_probs = LogProbs::default();
        let crab = "é🦀".as_bytes();
        log_probs.read(&response(&[&crab[..4]]), "é").unwrap();
        assert_eq!(starts(&mut log_probs, &["é"]), [vec![0]]);
        log_probs.read(&response(&[&crab[4..5]]), "").unwrap();
        assert_eq!(starts(&mut log_probs, &[""]), [Vec::<usize>::new()]);
        log_probs.read(&response(&[&crab[5..], b"!"]), "🦀!").unwrap();
        assert_eq!(starts(&mut log_probs, &["🦀!"]), [vec![1, 1, 2]]);
    }

    #[test]
    fn a_token_that_the_text_leaves_out_comes_with_what_follows() {
        let mut log_probs = LogProbs::default();
        log_probs.read(&response(&[b"<tool>"]), "").unwrap();
        assert_eq!(starts(&mut log_probs, &[""]), [Vec::<usize>::new()]);
        log_probs.read(&response(&[b"a"]), "a").unwrap();
        assert_eq!(starts(&mut log_probs, &["a"]), [vec![0, 0]]);
    }

    #[test]
    fn bytes_that_are_no_character_are_told_in_digits() {
        let mut log_probs = LogProbs::default();
        log_probs.read(&response(&[b" \xf0\x9f", b"a"]), " ").unwrap();
        let tokens = log_probs.finish();
        let chat = json(Kind::Chat, &tokens);
        assert_eq!(chat["content"][0]["token"], " \\xf0\\x9f");
        assert_eq!(chat["content"][0]["bytes"], json!([32, 240, 159]));
        assert_eq!(chat["content"][0]["top_logprobs"][1]["logprob"], -9999.0);
        let completion = json(Kind::Completion, &tokens);
        assert_eq!(completion["tokens"], json!(["bytes: \\xf0\\x9f", "a"]));
        assert_eq!(completion["top_logprobs"][1], json!({"a": -1.0, "?": -9999.0}));
    }

    #[test]
    fn tokens_without_their_numbers_are_an_error() {
        let mut wrong = response(&[b"a", b"b"]);
        wrong.outputs[1] = Tensor::from_vec(VALUES, &[1], vec![0.0_f32]);
        assert!(LogProbs::default().read(&wrong, "ab").is_err());
        let mut wrong = response(&[b"a", b"b"]);
        wrong.outputs[3] = Tensor::from_vec(OTHER_VALUES, &[1], vec![0.0_f32]);
        assert!(LogProbs::default().read(&wrong, "ab").is_err());
    }
}
