//! The model service's backends: ONNX models, and ONNX language models with their generation loop.

mod agreement;
mod gpus;
mod llm;
mod memory;
mod onnxruntime;
mod onnxruntime_llm;
mod provider;
mod run_error;
mod runtime;
mod session;
mod signature;
mod termination;
mod values;

use consort_repository::Kind;

pub use gpus::gpus;

/// Every backend of this service.
pub const ALL: &[Kind] = &[onnxruntime::KIND, onnxruntime_llm::KIND];
