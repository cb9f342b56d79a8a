//! What is asked of a model and what it answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Enough, Parameters, Spent, Tensor};

/// What travels with a request through every stage, whatever the model.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// When the whole request must have been answered.
    pub deadline: Option<Instant>,
    /// The span that work done for the request belongs under.
    pub span: Option<tracing::Span>,
    /// The caller's W3C `traceparent`, passed on where no span is recorded.
    pub traceparent: Option<Arc<str>>,
    /// The caller's W3C `tracestate`, which goes where its `traceparent` goes.
    pub tracestate: Option<Arc<str>>,
    /// Where everything that works for the request adds its durations, when somebody wants them.
    pub spent: Option<Arc<Spent>>,
    /// Where a caller that may want less than everything says that it has enough.
    pub enough: Option<Enough>,
}

impl Context {
    /// The time left until the deadline; `None` without one, zero once it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether the deadline has passed.
    pub fn is_expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Whether the caller has what it wanted, whatever it has read.
    pub fn has_enough(&self) -> bool {
        self.enough.as_ref().is_some_and(Enough::is_said)
    }

    /// What the caller of this very call says it by.
    pub fn enough(&mut self) -> Enough {
        let own = Enough::within(self.enough.as_ref());
        self.enough = Some(own.clone());
        own
    }
}

/// One inference request to one model.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The caller's name for the request; empty when it gave none.
    pub id: String,
    /// The input tensors, named as the model names them.
    pub inputs: Vec<Tensor>,
    /// The outputs that are wanted; empty means all.
    pub outputs: Vec<Arc<str>>,
    /// Everything else the caller said.
    pub parameters: Parameters,
    /// Deadline and trace.
    pub context: Context,
}

impl Request {
    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|tensor| &*tensor.name == name)
    }

    /// Whether the output with this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.outputs.is_empty() || self.outputs.iter().any(|output| &**output == name)
    }
}

/// One response; a decoupled model gives any number of them to one request.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The output tensors, named as the model names them.
    pub outputs: Vec<Tensor>,
    /// What the model says beside its tensors.
    pub parameters: Parameters,
    /// Whether the model knows that no response follows. A stream may also just end.
    pub is_last: bool,
    /// The version of the model that gave it, where the stage tells: a far one may have chosen.
    pub version: Option<u64>,
}

impl Response {
    /// The only response of a model that is not decoupled.
    pub fn only(outputs: Vec<Tensor>) -> Self {
        Self { outputs, is_last: true, ..Self::default() }
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|tensor| &*tensor.name == name)
    }
}
