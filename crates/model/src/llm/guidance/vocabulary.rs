//! Reads from a `tokenizer.json` how each token is spelled, in bytes.

use std::collections::HashMap;
use std::fmt;

use consort_stage::{Error, Result};
use llguidance::toktrie::TokTrie;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// No token is longer; what claims to be is never picked. It keeps the trie within the depth that
/// it can have.
const LONGEST: usize = 1000;

/// How every token is spelled, up to `vocabulary`: empty where the tokenizer has none, and with a
/// mark that no text has before those that are no text, such as the end of one.
///
/// What it reads is the file's decoder, which is what a detokenizer does with the tokens: bytes in
/// GPT-2's alphabet, or pieces whose spaces are written as another character and whose bytes may
/// be tokens of their own (sentencepiece).
pub(super) fn read(file: &str, vocabulary: usize) -> Result<Vec<Vec<u8>>> {
    let file: File = serde_json::from_str(file).map_err(|error| {
        Error::unsupported(format!("`tokenizer.json` is not a Hugging Face tokenizer: {error}"))
    })?;
    let spelling = Spelling::read(file.decoder.as_ref())?;
    let mut tokens = vec![Vec::new(); vocabulary];
    let mut spell = |id: u32, bytes: Vec<u8>| {
        // A model may have fewer tokens than its tokenizer, which it then never gives.
        if let Some(token) = tokens.get_mut(id as usize) {
            *token = bytes;
        }
    };
    for (piece, id) in file.model.vocab.0 {
        spell(id, spelling.bytes(&piece));
    }
    for token in file.added_tokens {
        let bytes = if token.special {
            [&[TokTrie::SPECIAL_TOKEN_MARKER], token.content.as_bytes()].concat()
        } else {
            spelling.bytes(&token.content)
        };
        spell(token.id, bytes);
    }
    for token in tokens.iter_mut().filter(|token| token.len() > LONGEST) {
        token.clear();
    }
    Ok(tokens)
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    decoder: Option<Decoder>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: Pieces,
}

/// One decoder, or several in turn.
#[derive(Deserialize)]
struct Decoder {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    decoders: Vec<Decoder>,
    /// What a `Replace` looks for.
    pattern: Option<Pattern>,
    /// What it puts in its place.
    content: Option<String>,
    /// What a `Metaspace` writes for a space.
    replacement: Option<String>,
}

#[derive(Deserialize)]
enum Pattern {
    String(String),
    Regex(IgnoredAny),
}

/// How the tokens of a vocabulary are written.
enum Spelling {
    /// A character for each byte.
    Bytes(HashMap<char, u8>),
    /// Text in which some parts stand for others; `<0xNN>` may be a byte.
    Pieces { replacements: Vec<(String, String)>, has_bytes: bool },
}

impl Spelling {
    fn read(decoder: Option<&Decoder>) -> Result<Self> {
        let not_understood = |what: &str| {
            Error::unsupported(format!(
                "`tokenizer.json` has {what}, and how its tokens are spelled is known only for \
                 `ByteLevel`, `Metaspace`, and `Replace` with `ByteFallback`"
            ))
        };
        let Some(decoder) = decoder else {
            return Err(not_understood("no decoder"));
        };
        let steps = if decoder.kind == "Sequence" {
            decoder.decoders.as_slice()
        } else {
            std::slice::from_ref(decoder)
        };
        if steps.iter().any(|step| step.kind == "ByteLevel") {
            return Ok(Self::Bytes(byte_level_alphabet()));
        }
        let (mut replacements, mut has_bytes) = (Vec::new(), false);
        for step in steps {
            match (step.kind.as_str(), &step.pattern) {
                ("ByteFallback", _) => has_bytes = true,
                ("Metaspace", _) => {
                    let space = step.replacement.clone().unwrap_or_else(|| "\u{2581}".to_owned());
                    replacements.push((space, " ".to_owned()));
                }
                ("Replace", Some(Pattern::String(from))) if !from.is_empty() => {
                    replacements.push((from.clone(), step.content.clone().unwrap_or_default()));
                }
                // What these do to the whole of a text leaves its tokens as they are.
                ("Fuse" | "Strip", _) => {}
                (kind, _) => return Err(not_understood(&format!("the decoder `{kind}`"))),
            }
        }
        if replacements.is_empty() && !has_bytes {
            return Err(not_understood("no decoder that spells"));
        }
        Ok(Self::Pieces { replacements, has_bytes })
    }

    fn bytes(&self, piece: &str) -> Vec<u8> {
        match self {
            Self::Bytes(alphabet) => {
                let bytes = piece.chars().map(|character| alphabet.get(&character).copied());
                // A detokenizer leaves what is not in the alphabet as it is.
                bytes.collect::<Option<_>>().unwrap_or_else(|| piece.as_bytes().to_vec())
            }
            Self::Pieces { replacements, has_bytes } => {
                if let Some(byte) = named_byte(piece).filter(|_| *has_bytes) {
                    return vec![byte];
                }
                let replaced = replacements
                    .iter()
                    .fold(piece.to_owned(), |piece, (from, to)| piece.replace(from, to));
                replaced.into_bytes()
            }
        }
    }
}

/// The byte that `<0xNN>` stands for.
fn named_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The character that GPT-2 writes for each byte: itself where it can be seen, and else one of
/// those from U+0100 on.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let is_seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = ('\u{100}'..).take(256);
    let character = |byte: u8| if is_seen(byte) { Some(char::from(byte)) } else { others.next() };
    let characters: Vec<_> = (0..=u8::MAX).map(character).collect();
    characters.into_iter().zip(0..=u8::MAX).filter_map(|(it, byte)| Some((it?, byte))).collect()
}

/// The pieces of a vocabulary and their numbers: an object of numbers by piece, or a list of
/// pieces with their scores.
struct Pieces(Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PiecesVisitor;

        impl<'de> Visitor<'de> for PiecesVisitor {
            type Value = Pieces;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("pieces with their numbers, or a list of pieces with scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pieces, A::Error> {
                let mut pieces = Vec::new();
                while let Some(piece) = map.next_entry()? {
                    pieces.push(piece);
                }
                Ok(Pieces(pieces))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pieces, A::Error> {
                let mut pieces = Vec::new();
                for id in 0.. {
                    let Some((piece, _)) = list.next_element::<(String, IgnoredAny)>()? else {
                        break;
                    };
                    pieces.push((piece, id));
                }
                Ok(Pieces(pieces))
            }
        }

        deserializer.deserialize_any(PiecesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(decoder: &str, vocab: &str) -> Result<Vec<Vec<u8>>> {
        let file = format!(
            r#"{{"added_tokens": [{{"id": 3, "content": "</s>", "special": true}}],
                "decoder": {decoder}, "model": {{"type": "any", "vocab": {vocab}, "merges": []}}}}"#
        );
        read(&file, 5)
    }

    #[test]
    fn bytes_are_read_from_the_alphabet_of_gpt_2() {
        let read = tokens(r#"{"type": "ByteLevel"}"#, r#"{"Ġa": 0, "Ċ": 1, "Ã©": 2, "zz": 9}"#);
        let expected: [&[u8]; 5] = [b" a", b"\n", "é".as_bytes(), b"\xff</s>", b""];
        assert_eq!(read.unwrap(), expected);
        let alphabet = byte_level_alphabet();
        let mut bytes: Vec<_> = alphabet.values().copied().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
    }

    #[test]
    fn pieces_have_other_spaces_and_bytes_of_their_own() {
        let expected: [&[u8]; 5] = [b" a", b"\n", b"<0xZZ>", b"\xff</s>", b""];
        let llama = r#"{"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#;
        let read = tokens(llama, r#"{"▁a": 0, "<0x0A>": 1, "<0xZZ>": 2}"#);
        assert_eq!(read.unwrap(), expected);
        let unigram = tokens(r#"{"type": "Metaspace"}"#, r#"[["▁a", -1.5], ["<0x0A>", 0]]"#);
        assert_eq!(unigram.unwrap()[..2], [b" a".to_vec(), b"<0x0A>".to_vec()]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let refused = |decoder| tokens(decoder, "{}").unwrap_err().message().to_owned();
        assert!(refused(r#"{"type": "WordPiece"}"#).contains("the decoder `WordPiece`"));
        assert!(refused("null").contains("has no decoder"));
        assert!(refused(r#"{"type": "Fuse"}"#).contains("no decoder that spells"));
        let broken = read("{", 1).unwrap_err();
        assert!(broken.message().contains("is not a Hugging Face tokenizer"), "{broken}");
    }
}
