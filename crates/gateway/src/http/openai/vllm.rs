//! Fields of vLLM's API that benchmarks send to have texts of one length, as the inputs that mean the same.

use serde_json::Value;

use super::error::Refusal;
use super::fields::{mismatch, unrecognized};
use super::inputs::{Input, Setting};

/// The input with the token that ends a text.
pub(super) const END: &str = "end_id";

/// The token that ends no text, as TensorRT-LLM's ensembles have it.
pub(super) const NO_END: i64 = -1;

/// What a field asks of the model, if it asks for anything; the refusal of one that is not known.
pub(super) fn setting(name: &str, value: &Value) -> Result<Option<Setting>, Refusal> {
    match name {
        "ignore_eos" => {
            let is_on = value.as_bool().ok_or_else(|| mismatch(name, "true or false", value))?;
            Ok(is_on.then(|| Setting::new(name, END, Input::Integer(NO_END))))
        }
        "min_tokens" => {
            let least = value.as_i64().ok_or_else(|| mismatch(name, "a whole number", value))?;
            Ok((least != 0).then(|| Setting::new(name, "min_length", Input::Integer(least))))
        }
        _ => Err(unrecognized(name)),
    }
}
