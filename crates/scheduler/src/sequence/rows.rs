//! What the backend is given for each row: the caller's inputs, the controls and the states.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use consort_config::SequenceBatching;
use consort_stage::{
    CorrelationId, Error, Parameter, Parameters, Request, Response, Result, SequencePlace,
    Signature, Tensor, VARIABLE, is_directive,
};

use super::controls::{Controls, Told};
use super::line::{Form, Kept};
use super::states::{States, Values};

/// The bytes of an empty element of `BYTES`: its length.
const EMPTY_STRING: usize = 4;

/// Stands for an input that was left out, in the form of a request.
const ABSENT: i64 = -2;

/// Turns requests of sequences into rows of a batch and back.
#[derive(Debug)]
pub(super) struct Rows {
    model: Arc<str>,
    /// What callers see.
    signature: Arc<Signature>,
    controls: Controls,
    /// The id for the next request that has none; `None` where each must have one.
    next_id: Option<AtomicU64>,
    pub(super) states: States,
}

/// What the response to a row says of its sequence.
#[derive(Debug)]
pub(super) struct Said(Parameters);

impl Rows {
    pub(super) fn new(
        model: Arc<str>,
        signature: Arc<Signature>,
        batching: &SequenceBatching,
        initial: Vec<Tensor>,
    ) -> Self {
        let controls = Controls::new(batching.controls.clone(), signature.is_batching());
        let states = States::new(batching.states.clone(), initial, &signature);
        let next_id = batching.is_iterative.then(|| AtomicU64::new(1));
        Self { model, signature, controls, next_id, states }
    }

    /// The request's place in its sequence; the texts of what is wrong with it are Triton's.
    pub(super) fn place(&self, request: &Request) -> Result<SequencePlace> {
        let place = request.sequence()?.or_else(|| self.own_sequence()).ok_or_else(|| {
            Error::invalid(format!(
                "inference request to model '{}' must specify a non-zero or non-empty correlation \
                 ID",
                self.model
            ))
        })?;
        let sizes = request.inputs.iter().map(|tensor| tensor.shape.first().copied());
        if self.signature.is_batching() && sizes.into_iter().any(|size| size != Some(1)) {
            return Err(Error::invalid(format!(
                "inference request to model '{}' must specify batch-size 1 due to requirements of \
                 sequence batcher",
                self.model
            )));
        }
        self.controls.check(&place.id)?;
        Ok(place)
    }

    /// A sequence for one request of a model with iterative ones. As in Triton it is started and
    /// not ended: whether the request runs again would be the backend's to say.
    fn own_sequence(&self) -> Option<SequencePlace> {
        let number = self.next_id.as_ref()?.fetch_add(1, Relaxed);
        Some(SequencePlace { id: CorrelationId::Number(number), is_start: true, is_end: false })
    }

    /// What requests must have in common with this one to share its batch.
    pub(super) fn form(&self, request: &Request) -> Form {
        let mut sizes = Vec::new();
        for spec in &self.signature.inputs {
            let dims = spec.reshape.as_ref().unwrap_or(&spec.dims);
            if !spec.is_optional && !dims.contains(&VARIABLE) {
                continue;
            }
            match request.input(&spec.name) {
                Some(tensor) => sizes.extend(&tensor.shape),
                None => sizes.push(ABSENT),
            }
        }
        Form { sizes, parameters: undirected(&request.parameters) }
    }

    /// The request as the backend sees it.
    pub(super) fn dress(
        &self,
        mut request: Request,
        place: &SequencePlace,
        kept: Option<Kept<Values>>,
    ) -> Request {
        let SequencePlace { id, is_start, is_end } = place;
        let told = Told { is_start: *is_start, is_ready: true, is_end: *is_end, id: Some(id) };
        request.inputs.extend(self.controls.tensors(&told));
        request.inputs.extend(self.states.values(kept).iter().cloned());
        self.states.wanted(&mut request.outputs);
        request
    }

    /// The row of a slot without a request, beside the row of `other`.
    pub(super) fn blank(&self, other: &Request) -> Request {
        let mut controls: Vec<_> = self.controls.tensors(&Told::default()).collect();
        let input = |tensor: &Tensor| {
            let control = controls.iter().position(|control| control.name == tensor.name);
            control.map_or_else(|| zeros(tensor), |control| controls.swap_remove(control))
        };
        Request {
            inputs: other.inputs.iter().map(input).collect(),
            outputs: other.outputs.clone(),
            parameters: other.parameters.clone(),
            ..Request::default()
        }
    }

    /// What the response to a request says of its sequence.
    pub(super) fn said(place: &SequencePlace) -> Said {
        let id = match &place.id {
            CorrelationId::Number(number) => Parameter::Uint(*number),
            CorrelationId::Text(text) => Parameter::String(text.to_string()),
        };
        let flags = [("sequence_start", place.is_start), ("sequence_end", place.is_end)];
        let flags = flags.map(|(name, flag)| (name.to_owned(), Parameter::Bool(flag)));
        let mut parameters = Parameters::from(flags);
        parameters.insert("sequence_id".to_owned(), id);
        Said(parameters)
    }
}

impl Said {
    /// The response with these outputs.
    pub(super) fn respond(self, outputs: Vec<Tensor>) -> Response {
        Response { parameters: self.0, ..Response::only(outputs) }
    }
}

fn undirected(parameters: &Parameters) -> Parameters {
    let own = parameters.iter().filter(|(name, _)| !is_directive(name));
    own.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A tensor like this one in which every element is zero, false or empty.
pub(super) fn zeros(tensor: &Tensor) -> Tensor {
    let size = tensor.len() * tensor.datatype.size().unwrap_or(EMPTY_STRING);
    Tensor { data: Bytes::from(vec![0; size]), ..tensor.clone() }
}
