//! A model that continues text: which models are one, and how it is asked.

use std::sync::Arc;

use consort_repository::Served;
use consort_stage::{Request, Signature, Tensor, TensorSpec};

use super::counts;
use super::error::Refusal;
use super::inputs::{Input, Setting, tensor};
use super::log_probs;
use super::prompt::Prompt;
use super::prompt_log_probs;
use super::sampling::Sampling;
use crate::text_tensors::{EXCLUDE_PROMPT, STOP_WORDS, TEXT_INPUT, TEXT_OUTPUT, is_text};

/// The input by which it is asked for pieces.
const STREAM: &str = "stream";

/// How many tokens there are when neither the request nor the model says, as Triton's own front
/// has it.
const MAX_TOKENS: i64 = 16;

/// The input that names the adapter that takes part, as the models themselves have it.
const ADAPTER: &str = "lora_name";

/// The input for a prompt of tokens, beside a text that is empty.
const PROMPT_TOKENS: &str = "prompt_token_ids";

/// A model that continues text.
#[derive(Clone)]
pub(super) struct TextModel {
    /// The model that was asked for.
    base: Arc<Served>,
    /// The same one, which also gives what its steps keep to themselves.
    revealed: Arc<Served>,
    /// Which of its adapters takes part.
    adapter: Option<Arc<str>>,
}

impl TextModel {
    /// The model, if it takes text and gives text by the names that TensorRT-LLM's ensembles have.
    pub(super) fn of(served: &Arc<Served>) -> Option<Self> {
        let signature = &served.signature;
        let is_one = is_text(signature.input(TEXT_INPUT)) && is_text(signature.output(TEXT_OUTPUT));
        is_one.then(|| Self {
            base: served.clone(),
            revealed: served.revealed.clone().unwrap_or_else(|| served.clone()),
            adapter: None,
        })
    }

    /// The same model with one of its adapters.
    pub(super) fn with_adapter(self, adapter: Option<Arc<str>>) -> Self {
        Self { adapter, ..self }
    }

    /// The model that was asked for.
    pub(super) fn base(&self) -> &Arc<Served> {
        &self.base
    }

    /// What answers.
    pub(super) fn served(&self) -> &Served {
        &self.revealed
    }

    /// Whether a request may choose one of its adapters, if it has any.
    pub(super) fn takes_adapters(&self) -> bool {
        self.input(ADAPTER).is_some_and(|spec| spec.is_optional)
    }

    /// Whether it can be told to answer in pieces.
    pub(super) fn can_stream(&self) -> bool {
        let Signature { is_decoupled, .. } = *self.revealed.signature;
        is_decoupled && self.input(STREAM).is_some()
    }

    /// What the requests for all texts have in common. Its tensors are made once: those of the
    /// requests share their bytes.
    pub(super) fn common(
        &self,
        sampling: &Sampling,
        is_streaming: bool,
    ) -> Result<Request, Refusal> {
        let mut inputs = Vec::new();
        if self.can_stream() {
            inputs.push(self.own(STREAM, &Input::Flag(is_streaming))?);
        }
        if self.input(EXCLUDE_PROMPT).is_some() {
            inputs.push(self.own(EXCLUDE_PROMPT, &Input::Flag(true))?);
        }
        if let Some(adapter) = &self.adapter {
            inputs.push(self.own(ADAPTER, &Input::Texts(vec![adapter.to_string()]))?);
        }
        for setting in sampling.of_all() {
            self.set(&mut inputs, &setting)?;
        }
        self.fill_in(&mut inputs)?;
        let outputs = self.outputs(sampling)?;
        Ok(Request { inputs, outputs, ..Request::default() })
    }

    /// The requests for so many choices of `prompt`.
    pub(super) fn requests(
        &self,
        common: &Request,
        prompt: &Prompt,
        (sampling, choices): (&Sampling, usize),
    ) -> Result<Vec<Request>, Refusal> {
        let prompt = self.prompt(prompt)?;
        let request = |choice| {
            let mut request = common.clone();
            for setting in sampling.of_choice(choice) {
                self.set(&mut request.inputs, &setting)?;
            }
            if sampling.asks_of_prompt(choice) {
                request.outputs.extend(self.outputs_of_prompt(sampling)?);
            }
            request.inputs.splice(0..0, prompt.iter().cloned());
            Ok(request)
        };
        (0..choices).map(request).collect()
    }

    /// Puts a setting's tensor in the place of any other for its input.
    fn set(&self, inputs: &mut Vec<Tensor>, setting: &Setting) -> Result<(), Refusal> {
        let Some(spec) = self.input(&setting.input) else {
            let (field, input, model) = (&setting.field, &setting.input, &self.revealed.name);
            let text =
                format!("`{field}` has no effect on model `{model}`, which has no input `{input}`");
            return Err(Refusal::of(field, text));
        };
        let tensor = setting.tensor(&self.revealed.signature, spec)?;
        inputs.retain(|given| given.name != spec.name);
        inputs.push(tensor);
        Ok(())
    }

    /// Whether a field that is named like one of its inputs may set it.
    pub(super) fn takes(&self, field: &str) -> bool {
        let own = [TEXT_INPUT, PROMPT_TOKENS, STREAM, EXCLUDE_PROMPT, prompt_log_probs::ASKED];
        let is_own = own.contains(&field) || (field == ADAPTER && self.adapter.is_some());
        !is_own && self.input(field).is_some_and(|spec| spec.is_optional)
    }

    fn prompt(&self, prompt: &Prompt) -> Result<Vec<Tensor>, Refusal> {
        let text = |text: &str| self.own(TEXT_INPUT, &Input::Texts(vec![text.to_owned()]));
        match prompt {
            Prompt::Text(prompt) => Ok(vec![text(prompt)?]),
            Prompt::Tokens(tokens) if self.input(PROMPT_TOKENS).is_some() => {
                Ok(vec![text("")?, self.own(PROMPT_TOKENS, &Input::Integers(tokens.clone()))?])
            }
            Prompt::Tokens(_) => {
                let model = &self.revealed.name;
                let why = format!(
                    "`prompt` has token ids, and no step of model `{model}` takes \
                     `{PROMPT_TOKENS}`; send text"
                );
                Err(Refusal::of("prompt", why))
            }
        }
    }

    fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.revealed.signature.input(name)
    }

    /// One of the inputs that this file knows by name.
    fn own(&self, name: &str, value: &Input) -> Result<Tensor, Refusal> {
        let tensor =
            self.input(name).and_then(|spec| tensor(&self.revealed.signature, spec, value));
        tensor.ok_or_else(|| {
            let model = &self.revealed.name;
            Refusal::invalid(format!("input `{name}` of model `{model}` has another type or shape"))
        })
    }

    /// What older TensorRT-LLM ensembles insist on although a request need not say it.
    fn fill_in(&self, inputs: &mut Vec<Tensor>) -> Result<(), Refusal> {
        let no_words = Input::Texts(vec![String::new()]);
        let defaults = [
            ("max_tokens", Input::Integer(MAX_TOKENS)),
            ("bad_words", no_words.clone()),
            (STOP_WORDS, no_words),
        ];
        for (name, value) in defaults {
            let is_wanted = self.input(name).is_some_and(|spec| !spec.is_optional);
            if is_wanted && inputs.iter().all(|given| *given.name != *name) {
                inputs.push(self.own(name, &value)?);
            }
        }
        Ok(())
    }

    fn outputs(&self, sampling: &Sampling) -> Result<Vec<Arc<str>>, Refusal> {
        let signature = &self.revealed.signature;
        let log_probs = sampling.log_probs;
        let probable = log_probs.map(|alternatives| log_probs::outputs(signature, alternatives));
        let probable = probable.transpose()?.unwrap_or_default();
        let more = [counts::CACHED, "output_ids", "finish_reason"];
        let more = counts::prompt_output(signature)
            .into_iter()
            .chain(more)
            .filter(|name| signature.output(name).is_some());
        let more = more.chain(probable.iter().copied());
        Ok(std::iter::once(TEXT_OUTPUT).chain(more).map(Arc::from).collect())
    }

    fn outputs_of_prompt(&self, sampling: &Sampling) -> Result<Vec<Arc<str>>, Refusal> {
        let Some(alternatives) = sampling.prompt_log_probs else { return Ok(Vec::new()) };
        let (field, signature) = (sampling.field_of_prompt(), &self.revealed.signature);
        let names = prompt_log_probs::outputs(field, signature, alternatives)?;
        Ok(names.iter().copied().map(Arc::from).collect())
    }
}
