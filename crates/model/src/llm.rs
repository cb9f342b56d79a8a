//! The generation loop of language models, from the graph they come as to the tokens they give.

mod cache;
mod config;
mod decoder;
mod engine;
mod graph;
mod random;
mod request;
mod response;
mod sampler;
mod sequence;
mod serial;
mod stop;
mod word_list;

pub(crate) use cache::Memory;
pub(crate) use config::Config;
pub(crate) use engine::Engine;
pub(crate) use graph::Graph;
pub(crate) use request::{INPUTS, Limits};
pub(crate) use response::OUTPUTS;
pub(crate) use serial::{Parts, Serial};
