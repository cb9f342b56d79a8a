//! The steps of a `tokenizer.json` decoder, read for one token at a time.

use consort_stage::{Error, Result};
use tokenizers::Decoder;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::strip::Strip;

/// What stands before the token under probe, so that a decoder does not take it for the first.
const ANCHOR: &str = "x";

/// Up to `count` times one character, cut off an end of a text.
#[derive(Debug)]
pub(crate) struct Trim {
    character: String,
    count: usize,
}

impl Trim {
    fn new(character: char, count: usize) -> Self {
        let character = character.to_string();
        Self { character, count }
    }

    /// How many bytes are cut off the front.
    pub(crate) fn at_front(&self, bytes: &[u8]) -> usize {
        self.length(bytes.chunks(self.character.len()))
    }

    /// How many bytes are cut off the end.
    pub(crate) fn at_end(&self, bytes: &[u8]) -> usize {
        self.length(bytes.rchunks(self.character.len()))
    }

    fn length<'a>(&self, chunks: impl Iterator<Item = &'a [u8]>) -> usize {
        let is_trimmed = |chunk: &&[u8]| *chunk == self.character.as_bytes();
        chunks.take(self.count).take_while(is_trimmed).count() * self.character.len()
    }
}

/// The steps of a decoder: those that read single tokens, then those that trim the whole text.
pub(crate) struct Steps<'a> {
    /// Whether there is no decoder, so that tokens are words with a space between them.
    joins_words: bool,
    of_tokens: Vec<&'a DecoderWrapper>,
    of_text: Vec<&'a Strip>,
}

impl<'a> Steps<'a> {
    /// The steps of `decoder`; fails when they do not read tokens one by one.
    pub(crate) fn new(decoder: Option<&'a DecoderWrapper>) -> Result<Self> {
        let mut steps =
            Self { joins_words: decoder.is_none(), of_tokens: Vec::new(), of_text: Vec::new() };
        let mut is_joined = false;
        for step in decoder.map(flatten).unwrap_or_default() {
            match step {
                DecoderWrapper::Fuse(_) => is_joined = true,
                DecoderWrapper::Strip(strip) if is_joined => steps.of_text.push(strip),
                _ if is_joined => return Err(unsupported()),
                DecoderWrapper::ByteLevel(_) => {
                    steps.of_tokens.push(step);
                    is_joined = true;
                }
                _ => steps.of_tokens.push(step),
            }
        }
        let ends =
            |end: fn(&Strip) -> usize| steps.of_text.iter().filter(|strip| end(strip) > 0).count();
        if ends(|strip| strip.start) > 1 || ends(|strip| strip.stop) > 1 {
            return Err(unsupported());
        }
        Ok(steps)
    }

    fn has(&self, is_it: impl Fn(&DecoderWrapper) -> bool) -> bool {
        self.of_tokens.iter().any(|step| is_it(step))
    }

    /// Whether a token that repeats its predecessor adds nothing.
    pub(crate) fn drops_repeats(&self) -> bool {
        self.has(|step| matches!(step, DecoderWrapper::CTC(_)))
    }

    /// Whether some tokens stand for single bytes of a character.
    pub(crate) fn has_byte_fallback(&self) -> bool {
        self.has(|step| matches!(step, DecoderWrapper::ByteFallback(_)))
    }

    /// What is cut off the front of a text.
    pub(crate) fn lead(&self) -> Option<Trim> {
        let strip = self.of_text.iter().find(|strip| strip.start > 0)?;
        Some(Trim::new(strip.content, strip.start))
    }

    /// What is cut off the end of a text.
    pub(crate) fn trail(&self) -> Option<Trim> {
        if self.has(|step| matches!(step, DecoderWrapper::BPE(_))) {
            // The last token of a text loses the space that its end-of-word suffix stands for.
            return Some(Trim::new(' ', 1));
        }
        let strip = self.of_text.iter().find(|strip| strip.stop > 0)?;
        Some(Trim::new(strip.content, strip.stop))
    }

    /// The bytes that `token` adds to a text.
    pub(crate) fn read(&self, token: &str, is_first: bool) -> Result<Vec<u8>> {
        if self.joins_words {
            let space = if is_first { "" } else { " " };
            return Ok(format!("{space}{token}").into_bytes());
        }
        let mut text = token.to_owned();
        for step in &self.of_tokens {
            text = match step {
                DecoderWrapper::ByteLevel(_) => return Ok(bytes_of_symbols(&text)),
                DecoderWrapper::ByteFallback(_) => match byte_of_fallback(&text) {
                    Some(byte) => return Ok(vec![byte]),
                    None => text,
                },
                DecoderWrapper::BPE(bpe) => text.replace(&bpe.suffix, " "),
                DecoderWrapper::Strip(strip) => stripped(&text, strip),
                DecoderWrapper::Metaspace(_) | DecoderWrapper::WordPiece(_) if !is_first => {
                    let both = decode(step, vec![ANCHOR.to_owned(), text])?;
                    both.into_iter().skip(1).collect()
                }
                step => decode(step, vec![text])?.concat(),
            };
        }
        Ok(text.into_bytes())
    }
}

fn flatten(decoder: &DecoderWrapper) -> Vec<&DecoderWrapper> {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            sequence.get_decoders().iter().flat_map(flatten).collect()
        }
        decoder => vec![decoder],
    }
}

fn decode(step: &DecoderWrapper, tokens: Vec<String>) -> Result<Vec<String>> {
    step.decode_chain(tokens)
        .map_err(|error| Error::unsupported(format!("its decoder fails: {error}")))
}

fn unsupported() -> Error {
    Error::unsupported(
        "its decoder changes the joined text, so it cannot be read token by token; \
         let only `Strip` follow `Fuse` or `ByteLevel`, and that once for each end",
    )
}

fn stripped(text: &str, strip: &Strip) -> String {
    let front = Trim::new(strip.content, strip.start).at_front(text.as_bytes());
    let text = &text[front..];
    let end = Trim::new(strip.content, strip.stop).at_end(text.as_bytes());
    text[..text.len() - end].to_owned()
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_of_fallback(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// The bytes that the visible symbols of a byte-level token stand for.
///
/// A token with any other character, such as an added token with a space, stands for itself.
fn bytes_of_symbols(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte_of_symbol).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Printable bytes are their own symbols; the others follow one another from U+0100 on.
pub(crate) fn byte_of_symbol(symbol: char) -> Option<u8> {
    let code = u32::from(symbol);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}
