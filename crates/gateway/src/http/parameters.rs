//! The parameters of a request: which keys mean something to the server and which the model reads.

use consort_stage::{Error, Parameter, Parameters, Result};
use serde_json::value::RawValue;

use super::json;

/// Keys that only the server itself may set.
const RESERVED_PREFIX: &str = "triton_";

/// Reads the `parameters` of an inference request.
///
/// Gives them together with `binary_data_output`, which is for this front alone.
pub(super) fn read(member: Option<&RawValue>) -> Result<(Parameters, bool)> {
    let mut parameters = Parameters::new();
    let mut is_binary = false;
    for (key, value) in json::members("parameters", member)? {
        let parameter = match &*key {
            "binary_data_output" => {
                is_binary = json::boolean(&key, value)?;
                continue;
            }
            // Headers reach a model by the server's configuration, never by the body.
            "headers" => continue,
            "sequence_id" if value.get().starts_with('"') => {
                Parameter::String(json::text(&key, value)?.into_owned())
            }
            "sequence_id" | "priority" | "timeout" => Parameter::Uint(json::unsigned(&key, value)?),
            "sequence_start" | "sequence_end" => Parameter::Bool(json::boolean(&key, value)?),
            _ => custom(&key, value)?,
        };
        parameters.insert(key.into_owned(), parameter);
    }
    Ok((parameters, is_binary))
}

/// Reads a parameter that means nothing to the server.
pub(super) fn custom(key: &str, value: &RawValue) -> Result<Parameter> {
    if key.starts_with(RESERVED_PREFIX) {
        return Err(Error::invalid(
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not \
             be specified.",
        ));
    }
    json::parameter(value).ok_or_else(|| {
        Error::invalid(format!(
            "parameter '{key}' has invalid type. It should be either 'int', 'bool', or 'string'."
        ))
    })
}

/// Writes parameters as a JSON value.
pub(super) fn to_json(parameter: &Parameter) -> serde_json::Value {
    match parameter {
        Parameter::Bool(value) => (*value).into(),
        Parameter::Int(value) => (*value).into(),
        Parameter::Uint(value) => (*value).into(),
        Parameter::Double(value) => (*value).into(),
        Parameter::String(value) => value.as_str().into(),
    }
}
