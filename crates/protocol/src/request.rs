//! Inference requests: from the wire to what a stage is asked, and back for the client's side.

use std::sync::Arc;

use bytes::Bytes;
use consort_stage::{Context, DataType, Error, Parameter, Request, Result, Tensor};

use crate::contents::{self, Misfit};
use crate::infer_parameter::ParameterChoice;
use crate::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::{InferParameter, ModelInferRequest, parameters};

/// A request and what it says beside what the stage needs to know.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The model that is asked.
    pub model: String,
    /// The version that is asked; `None` leaves the choice to the server.
    pub version: Option<u64>,
    /// What is asked. Its context is empty: deadline and trace are in the metadata.
    pub request: Request,
    /// The outputs wanted as so many best classes instead of as numbers.
    pub classes: Vec<(Arc<str>, usize)>,
    /// Whether a decoupled model's end should be marked by an empty response.
    pub wants_empty_final: bool,
}

/// Reads a version as requests state it; an empty one leaves the choice to the server.
pub fn parse_version(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(version) if version > 0 => Ok(Some(version)),
        _ => Err(Error::invalid(format!(
            "failed to get model version from specified version string '{text}', \
             version should be an integral value > 0"
        ))),
    }
}

impl ModelInferRequest {
    /// What a gateway sends behind its request when it wants no more of the answer.
    pub fn enough() -> Self {
        let parameter_choice = Some(ParameterChoice::BoolParam(true));
        let parameters = [(parameters::ENOUGH.to_owned(), InferParameter { parameter_choice })];
        Self { parameters: parameters.into(), ..Self::default() }
    }

    /// Whether it is that, and no request.
    pub fn says_enough(&self) -> bool {
        self.model_name.is_empty() && self.parameters.contains_key(parameters::ENOUGH)
    }

    /// Reads the request. Raw tensors are slices of the message, not copies.
    pub fn into_call(self) -> Result<Call> {
        let version = parse_version(&self.model_version)?;
        let mut parameters = parameters::read_request(self.parameters)?;
        let wants_empty_final = parameters
            .remove(parameters::EMPTY_FINAL)
            .is_some_and(|value| value == Parameter::Bool(true));
        let inputs = read_inputs(self.inputs, self.raw_input_contents, &self.model_name)?;
        let mut outputs = Vec::with_capacity(self.outputs.len());
        let mut classes = Vec::new();
        for output in self.outputs {
            parameters::refuse_shared_memory(&output.parameters, &output.name, &self.model_name)?;
            let name: Arc<str> = output.name.into();
            if let Some(count) = parameters::classes(&output.parameters)? {
                classes.push((name.clone(), count));
            }
            outputs.push(name);
        }
        Ok(Call {
            model: self.model_name,
            version,
            request: Request {
                id: self.id,
                inputs,
                outputs,
                parameters,
                context: Context::default(),
            },
            classes,
            wants_empty_final,
        })
    }

    /// Writes `request` for the wire, its tensors raw. The context travels as metadata instead.
    pub fn of(model: impl Into<String>, version: Option<u64>, request: Request) -> Self {
        let mut inputs = Vec::with_capacity(request.inputs.len());
        let mut raw = Vec::with_capacity(request.inputs.len());
        for tensor in request.inputs {
            inputs.push(InferInputTensor {
                name: tensor.name.as_ref().into(),
                datatype: tensor.datatype.name().into(),
                shape: tensor.shape,
                ..InferInputTensor::default()
            });
            raw.push(tensor.data);
        }
        let outputs = request.outputs.iter().map(|name| InferRequestedOutputTensor {
            name: name.as_ref().into(),
            ..InferRequestedOutputTensor::default()
        });
        Self {
            model_name: model.into(),
            model_version: version.map(|version| version.to_string()).unwrap_or_default(),
            id: request.id,
            parameters: parameters::write(request.parameters),
            inputs,
            outputs: outputs.collect(),
            raw_input_contents: raw,
        }
    }
}

fn read_inputs(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>, model: &str) -> Result<Vec<Tensor>> {
    let (count, raw_count) = (inputs.len(), raw.len());
    let is_raw = raw_count > 0;
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(count);
    for input in inputs {
        let block = if is_raw { Block::Raw(raw.next()) } else { Block::Typed };
        tensors.push(read_input(input, block, model)?);
    }
    if raw_count > count {
        return Err(Error::invalid(format!(
            "expected {count} entries in raw_input_contents for model '{model}', got {raw_count}"
        )));
    }
    Ok(tensors)
}

/// Where the data of an input is looked for.
enum Block {
    /// In the next entry of `raw_input_contents`, if there is one left.
    Raw(Option<Bytes>),
    /// In the input's own `contents`.
    Typed,
}

fn read_input(input: InferInputTensor, block: Block, model: &str) -> Result<Tensor> {
    let name = input.name;
    parameters::refuse_shared_memory(&input.parameters, &name, model)?;
    let datatype = DataType::from_name(&input.datatype).ok_or_else(|| {
        Error::invalid(format!(
            "unknown datatype '{}' for input tensor '{name}' for model '{model}'",
            input.datatype
        ))
    })?;
    let data = match (block, input.contents) {
        (Block::Raw(_), Some(_)) => Err(Error::invalid(format!(
            "contents field must not be specified when using raw_input_contents for '{name}' for \
             model '{model}'"
        ))),
        (Block::Raw(Some(data)), None) => Ok(data),
        (Block::Typed, Some(contents)) => contents::encode(&contents, datatype)
            .map_err(|misfit| typed_error(&misfit, &name, datatype, model)),
        (Block::Raw(None) | Block::Typed, None) => Err(Error::invalid(format!(
            "unable to find data for input tensor '{name}' for model '{model}' in request."
        ))),
    }?;
    Tensor::new(name.as_str(), datatype, input.shape, data)
        .map_err(|error| with_model(&error, &name, model))
}

fn typed_error(misfit: &Misfit, name: &str, datatype: DataType, model: &str) -> Error {
    Error::invalid(match misfit {
        Misfit::Type(found) => format!(
            "unexpected explicit tensor data for input tensor '{name}' for model '{model}' of \
             type '{found}', expected datatype '{datatype}'"
        ),
        Misfit::Range(value) => format!(
            "value {value} does not fit datatype '{datatype}' of input tensor '{name}' for model \
             '{model}'"
        ),
    })
}

/// Names the model behind the input, as Triton does; a tensor alone does not know it.
fn with_model(error: &Error, name: &str, model: &str) -> Error {
    let input = format!("input '{name}'");
    let text = error.message();
    Error::new(error.code(), text.replacen(&input, &format!("{input} for model '{model}'"), 1))
}

#[cfg(test)]
mod tests {
    use consort_stage::{Code, Parameters};

    use super::*;
    use crate::infer_parameter::ParameterChoice;
    use crate::{InferParameter, InferTensorContents};

    fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
        InferInputTensor {
            name: name.into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        }
    }

    fn asking(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
        ModelInferRequest {
            model_name: "m".into(),
            inputs,
            raw_input_contents: raw.iter().map(|data| Bytes::from_static(data)).collect(),
            ..ModelInferRequest::default()
        }
    }

    fn holding(name: &str, datatype: &str, contents: InferTensorContents) -> ModelInferRequest {
        let mut input = input(name, datatype, &[1]);
        input.contents = Some(contents);
        asking(vec![input], &[])
    }

    fn ints(values: &[i32]) -> InferTensorContents {
        InferTensorContents { int_contents: values.to_vec(), ..InferTensorContents::default() }
    }

    fn with_parameter(name: &str, value: ParameterChoice) -> ModelInferRequest {
        let value = InferParameter { parameter_choice: Some(value) };
        ModelInferRequest {
            parameters: [(name.to_owned(), value)].into(),
            ..asking(Vec::new(), &[])
        }
    }

    #[track_caller]
    fn refused(request: ModelInferRequest, text: &str) {
        let error = request.into_call().unwrap_err();
        assert!(error.message().contains(text), "{}", error.message());
        assert_eq!(error.code(), Code::InvalidInput);
    }

    #[test]
    fn a_request_survives_the_way_over_the_wire() {
        let request = Request {
            id: "7".into(),
            inputs: vec![
                Tensor::from_vec("x", &[2], vec![1.5_f32, 2.5]),
                Tensor::from_strings("s", &[1], &["text"]),
            ],
            outputs: vec!["y".into()],
            parameters: Parameters::from([
                ("timeout".to_owned(), Parameter::Uint(5)),
                ("temperature".to_owned(), Parameter::Double(0.5)),
            ]),
            context: Context::default(),
        };
        let call = ModelInferRequest::of("m", Some(3), request.clone()).into_call().unwrap();
        assert_eq!((call.model.as_str(), call.version), ("m", Some(3)));
        assert_eq!(call.request.id, request.id);
        assert_eq!(call.request.inputs, request.inputs);
        assert_eq!(call.request.outputs, request.outputs);
        let timeout = &call.request.parameters["timeout"];
        assert_eq!(*timeout, Parameter::Int(5));
    }

    #[test]
    fn raw_tensors_are_slices_of_the_message() {
        let request = asking(vec![input("x", "INT32", &[1])], &[&[1, 0, 0, 0]]);
        let block = request.raw_input_contents[0].as_ptr();
        let call = request.into_call().unwrap();
        assert_eq!(call.request.inputs[0].data.as_ptr(), block);
    }

    #[test]
    fn typed_contents_widen_as_the_protocol_says() {
        for (datatype, bytes) in [("INT8", 1), ("INT16", 2), ("INT32", 4)] {
            let call = holding("x", datatype, ints(&[-2])).into_call().unwrap();
            assert_eq!(call.request.inputs[0].data.len(), bytes);
            assert_eq!(call.request.inputs[0].data[0], 0xfe);
        }
        let contents = InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"hi")],
            ..InferTensorContents::default()
        };
        let call = holding("s", "BYTES", contents).into_call().unwrap();
        assert_eq!(call.request.inputs[0].to_strings().unwrap(), [b"hi"]);
    }

    #[test]
    fn data_that_is_not_where_it_should_be_is_refused() {
        let mut both = asking(vec![input("x", "INT32", &[1])], &[&[1, 0, 0, 0]]);
        both.inputs[0].contents = Some(ints(&[1]));
        refused(
            both,
            "contents field must not be specified when using raw_input_contents for 'x' for model 'm'",
        );
        let missing = "unable to find data for input tensor 'x' for model 'm' in request.";
        refused(asking(vec![input("x", "INT32", &[1])], &[]), missing);
        let two = vec![input("w", "INT8", &[1]), input("x", "INT8", &[1])];
        refused(asking(two, &[&[1]]), missing);
        refused(
            asking(Vec::new(), &[&[1]]),
            "expected 0 entries in raw_input_contents for model 'm', got 1",
        );
    }

    #[test]
    fn data_of_the_wrong_type_is_refused() {
        refused(
            holding("x", "FP16", ints(&[1])),
            "unexpected explicit tensor data for input tensor 'x' for model 'm' of type 'INT32', \
             expected datatype 'FP16'",
        );
        refused(
            holding("x", "INT8", ints(&[300])),
            "value 300 does not fit datatype 'INT8' of input tensor 'x'",
        );
        refused(
            asking(vec![input("x", "FLOAT", &[1])], &[&[]]),
            "unknown datatype 'FLOAT' for input tensor 'x' for model 'm'",
        );
    }

    #[test]
    fn data_that_does_not_fit_its_shape_names_input_and_model() {
        refused(
            asking(vec![input("x", "INT32", &[2])], &[&[0; 4]]),
            "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 4",
        );
    }

    #[test]
    fn shared_memory_is_said_to_be_unsupported() {
        let mut input = input("x", "INT32", &[1]);
        let region =
            InferParameter { parameter_choice: Some(ParameterChoice::StringParam("r".into())) };
        input.parameters.insert("shared_memory_region".into(), region);
        let error = asking(vec![input], &[]).into_call().unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
    }

    #[test]
    fn reserved_and_mistyped_parameters_are_refused() {
        let text = |text: &str| ParameterChoice::StringParam(text.into());
        refused(
            with_parameter("triton_mine", text("")),
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not \
             be specified.",
        );
        for (name, value, expected) in [
            ("priority", text("1"), "int64_param or uint64_param"),
            ("timeout", ParameterChoice::Uint64Param(1), "int64_param"),
            ("sequence_start", ParameterChoice::Int64Param(1), "bool_param"),
            ("sequence_id", ParameterChoice::BoolParam(true), "int64_param or string_param"),
        ] {
            let expected =
                format!("invalid value type for '{name}' parameter, expected {expected}.");
            refused(with_parameter(name, value), &expected);
        }
    }

    #[test]
    fn an_empty_final_response_is_asked_for_by_parameter() {
        let name = "triton_enable_empty_final_response";
        let call = with_parameter(name, ParameterChoice::BoolParam(true)).into_call().unwrap();
        assert!(call.wants_empty_final);
        assert!(call.request.parameters.is_empty());
    }

    #[test]
    fn a_version_is_a_number_above_zero() {
        assert_eq!(parse_version("").unwrap(), None);
        assert_eq!(parse_version("12").unwrap(), Some(12));
        for text in ["0", "-1", "one", "1.0"] {
            let error = parse_version(text).unwrap_err();
            let start =
                format!("failed to get model version from specified version string '{text}'");
            assert!(error.message().starts_with(&start));
            assert!(error.message().ends_with("version should be an integral value > 0"));
        }
    }
}
