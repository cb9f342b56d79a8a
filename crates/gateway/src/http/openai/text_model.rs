//! A model that continues text: which models are one, and how it is asked.

use std::sync::Arc;

use consort_repository::Served;
use consort_stage::{DataType, Request, Signature, Tensor, TensorSpec};

use super::counts;
use super::error::Refusal;
use super::inputs::{Input, tensor};
use super::log_probs;
use super::sampling::Sampling;

/// The input and the output that make a model one.
const TEXT_INPUT: &str = "text_input";
pub(super) const TEXT_OUTPUT: &str = "text_output";

/// The inputs by which it is asked for pieces, and for the continuation alone.
const STREAM: &str = "stream";
const EXCLUDE_PROMPT: &str = "exclude_input_in_output";

/// How many tokens there are when neither the request nor the model says, as Triton's own front
/// has it.
const MAX_TOKENS: i64 = 16;

/// A model that continues text.
#[derive(Clone)]
pub(super) struct TextModel(Arc<Served>);

impl TextModel {
    /// The model, if it takes text and gives text by the names that TensorRT-LLM's ensembles have.
    pub(super) fn of(served: &Arc<Served>) -> Option<Self> {
        let is_text =
            |spec: Option<&TensorSpec>| spec.is_some_and(|spec| spec.datatype == DataType::Bytes);
        let signature = &served.signature;
        let is_one = is_text(signature.input(TEXT_INPUT)) && is_text(signature.output(TEXT_OUTPUT));
        is_one.then(|| Self(served.revealed.clone().unwrap_or_else(|| served.clone())))
    }

    /// What answers.
    pub(super) fn served(&self) -> &Served {
        &self.0
    }

    /// Whether it can be told to answer in pieces.
    pub(super) fn can_stream(&self) -> bool {
        let Signature { is_decoupled, .. } = *self.0.signature;
        is_decoupled && self.input(STREAM).is_some()
    }

    /// The request for one choice of `prompt`.
    pub(super) fn request(
        &self,
        prompt: &str,
        sampling: &Sampling,
        choice: usize,
        is_streaming: bool,
    ) -> Result<Request, Refusal> {
        let mut inputs = vec![self.own(TEXT_INPUT, &Input::Texts(vec![prompt.to_owned()]))?];
        if self.can_stream() {
            inputs.push(self.own(STREAM, &Input::Flag(is_streaming))?);
        }
        if self.input(EXCLUDE_PROMPT).is_some() {
            inputs.push(self.own(EXCLUDE_PROMPT, &Input::Flag(true))?);
        }
        for setting in sampling.of_choice(choice) {
            let Some(spec) = self.input(&setting.input) else {
                let (field, input, model) = (&setting.field, &setting.input, &self.0.name);
                let text = format!(
                    "`{field}` has no effect on model `{model}`, which has no input `{input}`"
                );
                return Err(Refusal::of(field, text));
            };
            inputs.retain(|given| given.name != spec.name);
            inputs.push(setting.tensor(&self.0.signature, spec)?);
        }
        self.fill_in(&mut inputs)?;
        let outputs = self.outputs(sampling.log_probs)?;
        Ok(Request { inputs, outputs, ..Request::default() })
    }

    /// Whether a field that is named like one of its inputs may set it.
    pub(super) fn takes(&self, field: &str) -> bool {
        let own = [TEXT_INPUT, STREAM, EXCLUDE_PROMPT];
        !own.contains(&field) && self.input(field).is_some_and(|spec| spec.is_optional)
    }

    fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.0.signature.input(name)
    }

    /// One of the inputs that this file knows by name.
    fn own(&self, name: &str, value: &Input) -> Result<Tensor, Refusal> {
        let tensor = self.input(name).and_then(|spec| tensor(&self.0.signature, spec, value));
        tensor.ok_or_else(|| {
            let model = &self.0.name;
            Refusal::invalid(format!("input `{name}` of model `{model}` has another type or shape"))
        })
    }

    /// What older TensorRT-LLM ensembles insist on although a request need not say it.
    fn fill_in(&self, inputs: &mut Vec<Tensor>) -> Result<(), Refusal> {
        let no_words = Input::Texts(vec![String::new()]);
        let defaults = [
            ("max_tokens", Input::Integer(MAX_TOKENS)),
            ("bad_words", no_words.clone()),
            ("stop_words", no_words),
        ];
        for (name, value) in defaults {
            let is_wanted = self.input(name).is_some_and(|spec| !spec.is_optional);
            if is_wanted && inputs.iter().all(|given| *given.name != *name) {
                inputs.push(self.own(name, &value)?);
            }
        }
        Ok(())
    }

    fn outputs(&self, log_probs: Option<usize>) -> Result<Vec<Arc<str>>, Refusal> {
        let signature = &self.0.signature;
        let probable = log_probs.map(|alternatives| log_probs::outputs(signature, alternatives));
        let probable = probable.transpose()?.unwrap_or_default();
        let more = [counts::prompt_output(signature), Some("output_ids"), Some("finish_reason")];
        let more = more.into_iter().flatten().filter(|name| signature.output(name).is_some());
        let more = more.chain(probable.iter().copied());
        Ok(std::iter::once(TEXT_OUTPUT).chain(more).map(Arc::from).collect())
    }
}
