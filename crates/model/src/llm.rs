//! The generation loop of language models, from the graph they come as to the tokens they give.

mod buffers;
mod cache;
mod config;
mod decoder;
mod engine;
mod fields;
mod graph;
mod guidance;
mod log_probs;
mod logits;
mod padded;
mod random;
mod request;
mod response;
mod rows;
mod sampler;
mod sequence;
mod serial;
mod shared;
mod steps;
mod stop;
mod stripes;
mod waiting;
mod word_list;

pub(crate) use cache::Memory;
pub(crate) use config::Config;
pub(crate) use decoder::Decoder;
pub(crate) use engine::Engine;
pub(crate) use graph::{Carrying, Graph};
pub(crate) use guidance::{GUIDE, Guidance};
pub(crate) use padded::Padded;
pub(crate) use request::{INPUTS, Limits};
pub(crate) use response::{OUTPUTS, Outputs};
pub(crate) use serial::{Parts, Serial};
pub(crate) use shared::{Shared, Size};
pub(crate) use steps::Steps;
