//! How likely a model found the tokens of a prompt, and where in it each begins.

use consort_stage::{Error, Response, Result, Signature};

use super::characters::Characters;
use super::error::Refusal;
use super::log_probs::{self, Likely, Token, alternatives, mismatch};
use super::prompt::Prompt;

/// What a response says of the prompt's tokens: each as bytes, how likely each but the first was,
/// and the same of others.
const TOKENS: &str = "prompt_tokens";
const VALUES: &str = "prompt_log_probs";
const OTHER_TOKENS: &str = "prompt_top_logprob_tokens";
const OTHER_VALUES: &str = "prompt_top_logprob_values";

/// The input by which a model is asked for them.
pub(super) const ASKED: &str = "prompt_logprobs";

/// The outputs that tell so many alternatives to each token of a prompt; an error of the field that
/// asks for them when the model lacks one.
pub(super) fn outputs(
    field: &str,
    signature: &Signature,
    alternatives: usize,
) -> Result<&'static [&'static str], Refusal> {
    log_probs::given(field, signature, alternatives, &[TOKENS, VALUES, OTHER_TOKENS, OTHER_VALUES])
}

/// The text of a prompt and its tokens, from the first response to it.
pub(super) fn read(response: &Response, prompt: &Prompt) -> Result<(String, Vec<Token>)> {
    let (Some(tokens), Some(values)) = (response.output(TOKENS), response.output(VALUES)) else {
        return Err(Error::internal("the model does not tell the tokens of a prompt"));
    };
    let (tokens, values) = (tokens.to_strings()?, values.to_slice::<f32>()?);
    let others = alternatives(response, (OTHER_TOKENS, OTHER_VALUES))?;
    let count = values.len();
    if tokens.len() != count + 1 || !others.len().is_multiple_of(count.max(1)) {
        return Err(mismatch());
    }
    let (text, starts) = match prompt {
        Prompt::Text(text) => {
            let mut places = Places::of(text);
            let starts = tokens.iter().map(|token| places.next(token)).collect();
            (text.clone(), starts)
        }
        Prompt::Tokens(_) => spelled(&tokens),
    };
    let values = std::iter::once(None).chain(values.iter().copied().map(Some));
    // None in the place of the first.
    let each = others.len() / count.max(1);
    let mut others = std::iter::once(&[][..]).chain(others.chunks(each.max(1)));
    let tokens = tokens.into_iter().zip(values).zip(starts).map(|((bytes, value), start)| Token {
        said: Likely { bytes: bytes.to_vec(), value },
        others: others.next().unwrap_or_default().to_vec(),
        start,
    });
    Ok((text, tokens.collect()))
}

/// The text that tokens spell, and how many of its characters come before each of them.
fn spelled(tokens: &[&[u8]]) -> (String, Vec<usize>) {
    let (mut text, mut characters, mut count) = (String::new(), Characters::default(), 0);
    let mut starts = Vec::with_capacity(tokens.len());
    for token in tokens {
        starts.push(count);
        let whole = characters.push(token);
        count += whole.chars().count();
        text += &whole;
    }
    (text + &characters.finish(), starts)
}

/// How many bytes of a text are passed over at most for each token that was not found in it, and for
/// all of them: more than words have, and few enough to look through at each token.
const PASSED: usize = 64;
const MOST_PASSED: usize = 512;

/// Follows the tokens of a text through it.
struct Places<'a> {
    text: &'a [u8],
    /// The byte that is next.
    at: usize,
    /// How many characters begin before it.
    characters: usize,
    /// How many tokens were not found since the last that was.
    missed: usize,
}

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0, characters: 0, missed: 0 }
    }

    /// How many characters come before the next token, or before the character it is a part of.
    ///
    /// A token that is not there in the text, as a tokenizer puts some before it, takes no room. One
    /// that spells a space which the text does not begin with takes that of the rest. Behind a token
    /// that is spelled otherwise than in the text, the next that is found a little further on tells
    /// where the text goes on.
    fn next(&mut self, token: &[u8]) -> usize {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let bare = token.strip_prefix(b" ").filter(|_| self.at == 0).unwrap_or(token);
        let here = [token, bare].into_iter().find(|token| rest.starts_with(token));
        let found = here.map(|token| (0, token)).or_else(|| Some((self.ahead(token)?, token)));
        let (passed, token) = found.unwrap_or((0, &[]));
        self.missed = if found.is_some() { 0 } else { self.missed + 1 };
        self.pass(passed);
        let is_within = self.text.get(self.at).is_some_and(|byte| !begins(*byte));
        let start = self.characters - usize::from(is_within);
        self.pass(token.len());
        start
    }

    /// How far ahead a token is, behind some that were not found.
    fn ahead(&self, token: &[u8]) -> Option<usize> {
        let most = self.missed.saturating_mul(PASSED).min(MOST_PASSED);
        let end = (self.at + most + token.len()).min(self.text.len());
        let near = self.text.get(self.at..end).filter(|_| self.missed > 0 && !token.is_empty())?;
        near.windows(token.len()).position(|text| text == token)
    }

    fn pass(&mut self, bytes: usize) {
        let passed = &self.text[self.at..][..bytes];
        self.characters += passed.iter().filter(|byte| begins(**byte)).count();
        self.at += bytes;
    }
}

/// Whether a byte of UTF-8 is the first of its character.
fn begins(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use consort_stage::Tensor;

    use super::*;

    fn starts(text: &str, tokens: &[&[u8]]) -> Vec<usize> {
        let mut places = Places::of(text);
        tokens.iter().map(|token| places.next(token)).collect()
    }

    #[test]
    fn tokens_begin_where_the_text_has_them() {
        assert_eq!(starts("one two", &[b"one", b" tw", b"o"]), [0, 3, 6]);
        assert_eq!(starts("one two", &[b"<s>", b" one", b" two", b"</s>"]), [0, 0, 3, 7]);
        let crab = "é🦀!".as_bytes();
        let parts = [&crab[..1], &crab[1..3], &crab[3..5], &crab[5..]];
        assert_eq!(starts("é🦀!", &parts), [0, 0, 1, 1]);
    }

    #[test]
    fn tokens_behind_one_that_the_text_spells_otherwise_begin_where_they_are() {
        assert_eq!(starts("élan two six", &[b"[UNK]", b" two", b" six"]), [0, 4, 8]);
        assert_eq!(starts("Going on", &[b"go", b"##ing", b"on"]), [0, 0, 6]);
        // One that the text has further on is no reason to pass over what is found here.
        assert_eq!(starts("is <s> it", &[b"<s>", b"is", b" ", b"<s>"]), [0, 0, 2, 3]);
        // As far as is looked for one, and no further.
        let at = |words: usize| starts(&format!("{}end", "x".repeat(words)), &[b"?", b"end"]);
        assert_eq!((at(PASSED), at(PASSED + 1)), (vec![0, PASSED], vec![0, 0]));
        let unknown: Vec<&[u8]> = std::iter::repeat_n(&b"?"[..], 9).chain([&b"end"[..]]).collect();
        assert_eq!(starts(&format!("{}end", "x".repeat(MOST_PASSED)), &unknown)[9], MOST_PASSED);
    }

    fn response(tokens: &[&str], values: Vec<f32>, others: &[&str]) -> Response {
        let count = values.len() as i64;
        let each = others.len() as i64 / count.max(1);
        let numbers = others.iter().map(|_| -0.5).collect::<Vec<f32>>();
        Response::only(vec![
            Tensor::from_strings(TOKENS, &[1, count + 1], tokens),
            Tensor::from_vec(VALUES, &[1, count], values),
            Tensor::from_strings(OTHER_TOKENS, &[1, count, each], others),
            Tensor::from_vec(OTHER_VALUES, &[1, count, each], numbers),
        ])
    }

    #[test]
    fn the_first_token_has_no_probability_and_no_others() {
        let told = response(&["a", "b", "c"], vec![-1.0, -2.0], &["x", "y", "z", "w"]);
        let (text, tokens) = read(&told, &Prompt::Tokens(vec![1, 2, 3])).unwrap();
        assert_eq!(text, "abc");
        let values: Vec<_> = tokens.iter().map(|token| token.said.value).collect();
        assert_eq!(values, [None, Some(-1.0), Some(-2.0)]);
        let others = |token: &Token| {
            token.others.iter().map(|other| other.bytes.clone()).collect::<Vec<_>>().concat()
        };
        let others: Vec<_> = tokens.iter().map(others).collect();
        assert_eq!(others, [&b""[..], b"xy", b"zw"]);
        // Tokens that begin or end within a character are told where it is.
        let (text, starts) = spelled(&[b"\x9f", b"a\xc3", b"\xa9b", b"\xf0"]);
        assert_eq!((text.as_str(), starts), ("\u{fffd}aéb\u{fffd}", vec![0, 1, 2, 4]));
        let single = response(&["a"], vec![], &[]);
        assert_eq!(read(&single, &Prompt::Text("a".into())).unwrap().1.len(), 1);
    }

    #[test]
    fn numbers_that_do_not_fit_the_tokens_are_an_error() {
        let prompt = || Prompt::Text("ab".into());
        let mut few = response(&["a", "b"], vec![-1.0], &["x"]);
        few.outputs[0] = Tensor::from_strings(TOKENS, &[1, 1], &["a"]);
        assert!(read(&few, &prompt()).is_err());
        let mut uneven = response(&["a", "b", "c"], vec![-1.0, -1.0], &["x", "y"]);
        uneven.outputs[2] = Tensor::from_strings(OTHER_TOKENS, &[1, 1, 1], &["x"]);
        assert!(read(&uneven, &prompt()).is_err());
        uneven.outputs[3] = Tensor::from_vec(OTHER_VALUES, &[1, 1, 1], vec![-0.5_f32]);
        assert!(read(&uneven, &prompt()).is_err());
        assert!(read(&Response::only(Vec::new()), &prompt()).is_err());
    }
}
