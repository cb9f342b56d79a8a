//! Spells the tokens of ferris, and finds the token that is spelled in some way.

use std::collections::HashMap;
use std::fs;

use serde_json::Value;

use crate::loaded::root;

/// The tokens of ferris and their texts.
pub(crate) struct Spelling(HashMap<i32, Vec<u8>>);

impl Spelling {
    /// Reads the tokenizer.
    pub(crate) fn read() -> Self {
        let file = root().join("model_repository/ferris/1/tokenizer.json");
        let file: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let alphabet = alphabet();
        let spell = |(piece, id): (&String, &Value)| {
            let bytes = piece.chars().filter_map(|character| alphabet.get(&character).copied());
            (id.as_i64().unwrap() as i32, bytes.collect())
        };
        Self(file["model"]["vocab"].as_object().unwrap().iter().map(spell).collect())
    }

    /// The text of some tokens.
    pub(crate) fn text(&self, tokens: &[i32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.0[token].clone()).collect();
        String::from_utf8(bytes).unwrap()
    }

    /// The token with this text.
    pub(crate) fn token(&self, text: &str) -> i32 {
        *self.0.iter().find(|(_, bytes)| *bytes == text.as_bytes()).unwrap().0
    }
}

/// The byte that each character of GPT-2's alphabet stands for.
fn alphabet() -> HashMap<char, u8> {
    let mut others = '\u{100}'..;
    let character = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae.. => char::from(byte),
        _ => others.next().unwrap(),
    };
    (0..=u8::MAX).map(character).collect::<Vec<_>>().into_iter().zip(0..=u8::MAX).collect()
}
