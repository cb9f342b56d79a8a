//! The tensors of ensembles that continue text, by the names that TensorRT-LLM's ensembles have.

/// Whether the prompt is kept out of the text.
pub(crate) use consort_repository::{EXCLUDE_PROMPT, KEEPS_STOP};
use consort_stage::{DataType, TensorSpec};

/// What is continued, and what comes of it.
pub(crate) const TEXT_INPUT: &str = "text_input";
pub(crate) const TEXT_OUTPUT: &str = "text_output";

/// The words that end a text.
pub(crate) const STOP_WORDS: &str = "stop_words";

/// Whether a tensor is there and holds text.
pub(crate) fn is_text(spec: Option<&TensorSpec>) -> bool {
    spec.is_some_and(|spec| spec.datatype == DataType::Bytes)
}
