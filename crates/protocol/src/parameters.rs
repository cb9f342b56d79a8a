//! Parameters on the wire and as stages know them, with the types that Triton's own ones must have.

use std::collections::BTreeMap;

use consort_stage::{Code, Error, Parameter, Parameters, Result};

use crate::InferParameter;
use crate::infer_parameter::ParameterChoice;

/// Parameters as the wire carries them.
pub(crate) type WireParameters = BTreeMap<String, InferParameter>;

/// Whether an empty last response should mark the end of a decoupled model's responses.
pub(crate) const EMPTY_FINAL: &str = "triton_enable_empty_final_response";
/// The parameter of a message that asks for nothing and says that its sender has enough.
pub(crate) const ENOUGH: &str = "consort_enough";

/// Whether a response on a stream is the last one of its request.
pub(crate) const FINAL: &str = "triton_final_response";

/// What a request spent in queues and instances, on its last response and only when asked for.
pub(crate) const DURATIONS: &str = "consort_durations";

/// Which sequence a request belongs to.
const SEQUENCE_ID: &str = "sequence_id";

/// What the names that belong to the server begin with.
const RESERVED_PREFIX: &str = "triton_";

/// What the parameters that point into shared memory begin with.
const SHARED_MEMORY_PREFIX: &str = "shared_memory_";

const RESERVED: &str = "parameter keys starting with 'triton_' are reserved for Triton usage and \
                        should not be specified.";

/// The parameters of a request; those that are Triton's own must have the right type.
pub(crate) fn read_request(wire: WireParameters) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    for (name, value) in wire {
        if name.starts_with(RESERVED_PREFIX) && name != EMPTY_FINAL {
            return Err(Error::invalid(RESERVED));
        }
        let value = value.parameter_choice;
        if !fits(&name, value.as_ref()) {
            return Err(wrong_type(&name));
        }
        if let Some(value) = value {
            let value = read(&name, value);
            parameters.insert(name, value);
        }
    }
    Ok(parameters)
}

/// The parameters of a response, whatever they are; one without a value says nothing.
pub(crate) fn read_response(wire: WireParameters) -> Parameters {
    let values = wire.into_iter();
    let values = values.filter_map(|(name, value)| Some((name, value.parameter_choice?)));
    values.map(|(name, value)| (name.clone(), read(&name, value))).collect()
}

fn read(name: &str, value: ParameterChoice) -> Parameter {
    match value {
        // The protocol has no unsigned id, so clients send the bits of one.
        ParameterChoice::Int64Param(id) if name == SEQUENCE_ID => {
            Parameter::Uint(id.cast_unsigned())
        }
        value => value.into(),
    }
}

/// The parameters as the wire carries them.
pub(crate) fn write(parameters: Parameters) -> WireParameters {
    let values = parameters.into_iter();
    values
        .map(|(name, value)| {
            let value = match value {
                // The protocol has no unsigned time-out.
                Parameter::Uint(value) if name == "timeout" => {
                    Parameter::Int(i64::try_from(value).unwrap_or(i64::MAX))
                }
                Parameter::Uint(id) if name == SEQUENCE_ID => Parameter::Int(id.cast_signed()),
                value => value,
            };
            (name, value.into())
        })
        .collect()
}

/// Refuses a tensor whose data is not in the message.
pub(crate) fn refuse_shared_memory(
    parameters: &WireParameters,
    tensor: &str,
    model: &str,
) -> Result<()> {
    if !parameters.keys().any(|name| name.starts_with(SHARED_MEMORY_PREFIX)) {
        return Ok(());
    }
    Err(Error::new(
        Code::Unsupported,
        format!(
            "shared memory is not supported for '{tensor}' of model '{model}'; \
             send the data in the request"
        ),
    ))
}

/// The number of classes asked for by the `classification` parameter of an output.
pub(crate) fn classes(parameters: &WireParameters) -> Result<Option<usize>> {
    const NAME: &str = "classification";
    let Some(value) = parameters.get(NAME) else {
        return Ok(None);
    };
    match value.parameter_choice {
        Some(ParameterChoice::Int64Param(count)) => Ok(usize::try_from(count).ok()),
        _ => Err(wrong_type(NAME)),
    }
}

/// The wire types of the parameters that mean something to the server; `None` for all others.
fn allowed(name: &str) -> Option<&'static str> {
    Some(match name {
        SEQUENCE_ID => "int64_param or string_param",
        "sequence_start" | "sequence_end" | EMPTY_FINAL => "bool_param",
        "priority" => "int64_param or uint64_param",
        "timeout" | "classification" => "int64_param",
        _ => return None,
    })
}

fn fits(name: &str, value: Option<&ParameterChoice>) -> bool {
    use ParameterChoice as Choice;
    let Some(value) = value else { return false };
    match allowed(name) {
        None => true,
        Some("bool_param") => matches!(value, Choice::BoolParam(_)),
        Some("int64_param") => matches!(value, Choice::Int64Param(_)),
        Some("int64_param or uint64_param") => match value {
            Choice::Int64Param(value) => *value >= 0,
            value => matches!(value, Choice::Uint64Param(_)),
        },
        Some(_) => matches!(value, Choice::Int64Param(_) | Choice::StringParam(_)),
    }
}

fn wrong_type(name: &str) -> Error {
    let expected = allowed(name)
        .unwrap_or("bool_param, int64_param, uint64_param, double_param or string_param");
    Error::invalid(format!("invalid value type for '{name}' parameter, expected {expected}."))
}

impl From<ParameterChoice> for Parameter {
    fn from(value: ParameterChoice) -> Self {
        match value {
            ParameterChoice::BoolParam(value) => Self::Bool(value),
            ParameterChoice::Int64Param(value) => Self::Int(value),
            ParameterChoice::StringParam(value) => Self::String(value),
            ParameterChoice::DoubleParam(value) => Self::Double(value),
            ParameterChoice::Uint64Param(value) => Self::Uint(value),
        }
    }
}

impl From<Parameter> for InferParameter {
    fn from(value: Parameter) -> Self {
        let choice = match value {
            Parameter::Bool(value) => ParameterChoice::BoolParam(value),
            Parameter::Int(value) => ParameterChoice::Int64Param(value),
            Parameter::Uint(value) => ParameterChoice::Uint64Param(value),
            Parameter::Double(value) => ParameterChoice::DoubleParam(value),
            Parameter::String(value) => ParameterChoice::StringParam(value),
        };
        Self { parameter_choice: Some(choice) }
    }
}
