//! Both backends over real graphs: the tests' small ones and the shipped language model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adapters;
mod asking;
mod crowd;
mod generating;
mod guided;
mod leaving;
mod loaded;
mod onnxruntime;
mod onnxruntime_llm;
mod plain;
mod prompt_scores;
mod quantized;
mod reference;
mod reuse;
mod several;
mod spelling;
