//! The postprocess service: the backends `detokenizer`, `pooling` and `classifier`.

mod classifier;
mod decoder_steps;
mod detokenizer;
mod numbers;
mod pieces;
mod pooling;
mod roles;

use consort_repository::Kind;

/// The backends of this service; a new one is a file of its own and its name here.
pub const ALL: &[Kind] = &[detokenizer::KIND, pooling::KIND, classifier::KIND];
