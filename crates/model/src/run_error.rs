//! Says what a failed run means for the caller, without the build paths that ONNX Runtime adds.

use consort_stage::{Code, Error};
use ort::ErrorCode;

/// What ONNX Runtime says when a run was stopped from outside.
const TERMINATED: &str = "terminate flag";
/// What it says when an operator's input was never given.
const MISSING: &str = "Missing Input";

/// Why a run gave no outputs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RunError {
    code: Code,
    reason: String,
}

impl From<&ort::Error> for RunError {
    fn from(error: &ort::Error) -> Self {
        let message = error.message();
        let code = if message.contains(TERMINATED) {
            Code::Cancelled
        } else if error.code() == ErrorCode::InvalidArgument || message.contains(MISSING) {
            // The inputs do not fit the graph: a missing name, a type, a size.
            Code::InvalidInput
        } else {
            Code::Internal
        };
        Self { code, reason: without_paths(message) }
    }
}

impl RunError {
    /// The same where the inputs were made here, so that they are not the caller's mistake.
    pub(crate) fn with_own_inputs(self) -> Self {
        match self.code {
            Code::InvalidInput => Self { code: Code::Internal, ..self },
            _ => self,
        }
    }

    /// The error with the model it happened in.
    pub(crate) fn within(self, model: &str) -> Error {
        match self.code {
            Code::Cancelled => Error::cancelled(),
            code => Error::new(code, format!("model `{model}` failed: {}", self.reason)),
        }
    }
}

/// The message without the C++ places in it: `/…/file.cc:12 void f(int)` becomes `void f(int)`.
fn without_paths(message: &str) -> String {
    let words = message.split_whitespace().filter(|word| !word.starts_with('/'));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_paths_stay_out_of_the_message() {
        let message =
            "Non-zero status code. /onnxruntime_src/core/add.cc:540 void Init(long) 2 by 3";
        let clean = "Non-zero status code. void Init(long) 2 by 3";
        assert_eq!(without_paths(message), clean);
    }
}
