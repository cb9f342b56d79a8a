//! The preprocess service: the backend `tokenizer`, for any Hugging Face tokenizer.

mod columns;
mod given;
mod padding;
#[cfg(test)]
mod sample;
mod tokenizer;
mod truncation;
mod word_list;

use consort_repository::Kind;

/// The backends of this service; a new one is a file of its own and its name here.
pub const ALL: &[Kind] = &[tokenizer::KIND];
