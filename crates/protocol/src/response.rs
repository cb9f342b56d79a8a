//! Inference responses: from what a stage answers to the wire, and back for the client's side.

use bytes::Bytes;
use consort_stage::{DataType, Durations, Error, Parameter, Response, Result, Tensor};

use crate::infer_parameter::ParameterChoice;
use crate::model_infer_response::InferOutputTensor;
use crate::{InferParameter, ModelInferResponse, ModelStreamInferResponse, contents, parameters};

impl ModelInferResponse {
    /// Writes a response for the wire, its tensors raw and in their order. It is of `version`
    /// unless it says itself which one gave it.
    pub fn of(
        model: impl Into<String>,
        version: u64,
        id: impl Into<String>,
        response: Response,
    ) -> Self {
        let mut outputs = Vec::with_capacity(response.outputs.len());
        let mut raw = Vec::with_capacity(response.outputs.len());
        for tensor in response.outputs {
            outputs.push(InferOutputTensor {
                name: tensor.name.as_ref().into(),
                datatype: tensor.datatype.name().into(),
                shape: tensor.shape,
                ..InferOutputTensor::default()
            });
            raw.push(tensor.data);
        }
        Self {
            model_name: model.into(),
            model_version: response.version.unwrap_or(version).to_string(),
            id: id.into(),
            parameters: parameters::write(response.parameters),
            outputs,
            raw_output_contents: raw,
        }
    }

    /// The same response saying whether it is its request's last, as every streamed one does.
    #[must_use]
    pub fn with_final(mut self, is_last: bool) -> Self {
        let flag = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(is_last)) };
        self.parameters.insert(parameters::FINAL.into(), flag);
        self
    }

    /// The same response telling what its request spent in queues and instances.
    #[must_use]
    pub fn with_durations(mut self, durations: &Durations) -> Self {
        let text = Some(ParameterChoice::StringParam(durations.to_string()));
        let parameter = InferParameter { parameter_choice: text };
        self.parameters.insert(parameters::DURATIONS.into(), parameter);
        self
    }

    /// Takes off what the request spent, where the response tells.
    pub fn take_durations(&mut self) -> Option<Durations> {
        match self.parameters.remove(parameters::DURATIONS)?.parameter_choice? {
            ParameterChoice::StringParam(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Reads the response. Raw tensors are slices of the message, not copies.
    ///
    /// It is the last one only when it says so: a single response of a unary call does not.
    pub fn into_response(self) -> Result<Response> {
        let mut parameters = parameters::read_response(self.parameters);
        let is_last = parameters
            .remove(parameters::FINAL)
            .is_some_and(|value| value == Parameter::Bool(true));
        let is_raw = !self.raw_output_contents.is_empty();
        let mut raw = self.raw_output_contents.into_iter();
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for output in self.outputs {
            let block = if is_raw { raw.next() } else { None };
            outputs.push(read_output(output, block, &self.model_name)?);
        }
        Ok(Response { outputs, parameters, is_last, version: self.model_version.parse().ok() })
    }
}

impl ModelStreamInferResponse {
    /// A response of a stream.
    pub fn of(response: ModelInferResponse) -> Self {
        Self { error_message: String::new(), infer_response: Some(response) }
    }

    /// A failure inside a stream, which goes on: it names the request that failed.
    pub fn failed(
        error: &Error,
        model: impl Into<String>,
        version: impl Into<String>,
        id: impl Into<String>,
    ) -> Self {
        Self {
            error_message: error.message().into(),
            infer_response: Some(ModelInferResponse {
                model_name: model.into(),
                model_version: version.into(),
                id: id.into(),
                ..ModelInferResponse::default()
            }),
        }
    }
}

fn read_output(output: InferOutputTensor, raw: Option<Bytes>, model: &str) -> Result<Tensor> {
    let name = output.name;
    let malformed = |detail: &str| {
        Error::internal(format!(
            "model `{model}` answered with a malformed output `{name}`: {detail}"
        ))
    };
    let datatype = DataType::from_name(&output.datatype)
        .ok_or_else(|| malformed(&format!("unknown datatype `{}`", output.datatype)))?;
    let data = match (raw, output.contents) {
        (Some(data), _) => data,
        (None, Some(contents)) => contents::encode(&contents, datatype)
            .map_err(|_| malformed(&format!("its contents are not {datatype}")))?,
        (None, None) => return Err(malformed("it has no data")),
    };
    Tensor::new(name.as_str(), datatype, output.shape, data)
        .map_err(|error| malformed(&error.message().replace("input", "output")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use consort_stage::Code;

    use super::*;

    fn answer() -> Response {
        Response {
            outputs: vec![
                Tensor::from_strings("b", &[1], &["text"]),
                Tensor::from_vec("a", &[1, 2], vec![1_i64, 2]),
            ],
            parameters: [("sequence_start".to_owned(), Parameter::Bool(true))].into(),
            ..Response::default()
        }
    }

    #[test]
    fn a_response_survives_the_way_over_the_wire() {
        let wire = ModelInferResponse::of("m", 2, "id", answer());
        assert_eq!(wire.model_version, "2");
        assert_eq!(wire.raw_output_contents.len(), 2);
        assert!(wire.outputs.iter().all(|output| output.contents.is_none()));
        let back = wire.into_response().unwrap();
        assert_eq!(back.outputs, answer().outputs);
        assert_eq!(back.parameters, answer().parameters);
        assert!(!back.is_last);
    }

    #[test]
    fn the_final_flag_is_no_parameter_of_the_model() {
        let wire = ModelInferResponse::of("m", 2, "", Response::default()).with_final(true);
        assert!(wire.parameters.contains_key("triton_final_response"));
        let back = wire.into_response().unwrap();
        assert!(back.is_last && back.parameters.is_empty());
    }

    #[test]
    fn what_a_request_spent_is_taken_off_before_the_response_is_read() {
        let spent = Durations { queue: Duration::from_nanos(5), ..Durations::default() };
        let wire = ModelInferResponse::of("m", 2, "", Response::default());
        let mut wire = wire.with_durations(&spent);
        assert_eq!(wire.take_durations(), Some(spent));
        assert_eq!(wire.take_durations(), None);
        assert!(wire.into_response().unwrap().parameters.is_empty());
    }

    #[test]
    fn a_malformed_answer_is_the_servers_fault() {
        let mut wire = ModelInferResponse::of("m", 2, "", answer());
        wire.raw_output_contents.pop();
        let error = wire.into_response().unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert_eq!(
            error.message(),
            "model `m` answered with a malformed output `a`: it has no data"
        );
    }
}
