//! Checks every request against the model's signature before it reaches the model, and counts it.

mod generation;
mod inputs;
mod reshape;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use consort_stage::{Code, Context, Request, Response, Responses, Result, Signature, Stage, fail};
use consort_telemetry::{
    GenerationMeter, Meter, Metrics, Operation, Reason, RequestTimer, first_response,
};
use futures::{Stream, StreamExt};
use tracing::Span;

use self::generation::Generation;
use crate::failure::log_once;

/// A model behind its signature: what reaches it is known to fit, and every request is counted.
pub struct Checked {
    model: Arc<str>,
    signature: Arc<Signature>,
    inner: Arc<dyn Stage>,
    meter: Arc<Meter>,
    /// Whether any output is shown to callers in another shape than the backend gives it.
    reshapes_outputs: bool,
    generations: Option<Arc<GenerationMeter>>,
}

impl Checked {
    /// Puts `inner` behind `signature`.
    pub fn new(
        model: Arc<str>,
        signature: Arc<Signature>,
        inner: Arc<dyn Stage>,
        meter: Arc<Meter>,
    ) -> Self {
        let reshapes_outputs = signature.outputs.iter().any(|output| output.reshape.is_some());
        Self { model, signature, inner, meter, reshapes_outputs, generations: None }
    }

    /// The same, with its tokens counted too where it is a model that continues tokens.
    #[must_use]
    pub fn with_generations(mut self, metrics: &Metrics) -> Self {
        let continues = generation::continues_tokens(&self.signature);
        let meter = || metrics.generation(Operation::TextCompletion, &self.model);
        self.generations = continues.then(meter);
        self
    }
}

/// Makes sure that a request fits `signature`, and shows its inputs as the backend sees them.
pub(crate) fn admit(model: &str, signature: &Signature, request: &mut Request) -> Result<()> {
    inputs::check(model, signature, request)?;
    reshape::inputs(signature, &mut request.inputs);
    Ok(())
}

impl Stage for Checked {
    fn call(&self, mut request: Request) -> Responses {
        let mut timer = self.meter.request();
        if let Err(error) = admit(&self.model, &self.signature, &mut request) {
            timer.failed(reason(error.code()));
            let id = if request.id.is_empty() { "<id_unknown>" } else { &request.id };
            let error = error.within(format!("[request id: {id}] "));
            return fail(log_once(error, &self.model, &request.id, &request.context));
        }
        if self.signature.is_decoupled {
            timer.counts_responses();
        }
        let meter = self.generations.as_ref();
        let generation = meter.map(|meter| Generation::begin(meter, &self.model, &request));
        let wanted = request.outputs.clone();
        Box::pin(Counted {
            unanswered: request.context.span.clone(),
            model: self.model.clone(),
            id: request.id.clone(),
            context: request.context.clone(),
            responses: self.inner.call(request),
            _stage: self.inner.clone(),
            timer,
            wanted,
            signature: self.signature.clone(),
            reshapes_outputs: self.reshapes_outputs,
            generation,
            has_ended: false,
        })
    }
}

/// The responses of one request, counted when they end or are dropped.
struct Counted {
    responses: Responses,
    /// Dropping a stage ends its instances, which a request on its way to them must not meet when
    /// another version takes over.
    _stage: Arc<dyn Stage>,
    /// The request's span until its first response is noted on it.
    unanswered: Option<Span>,
    /// What finds the request again in the log.
    model: Arc<str>,
    id: String,
    context: Context,
    timer: RequestTimer,
    wanted: Vec<Arc<str>>,
    signature: Arc<Signature>,
    reshapes_outputs: bool,
    generation: Option<Generation>,
    /// Whether it is known how the request ended.
    has_ended: bool,
}

impl Stream for Counted {
    type Item = Result<Response>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Self::Item>> {
        let item = ready!(self.responses.poll_next_unpin(context));
        Poll::Ready(match item {
            None => {
                self.answered();
                None
            }
            Some(Ok(mut response)) => {
                self.timer.responded(response.outputs.is_empty());
                if let Some(generation) = &mut self.generation {
                    generation.came(&response);
                }
                if let Some(span) = self.unanswered.take() {
                    first_response(&span);
                }
                self.tidy(&mut response);
                Some(Ok(response))
            }
            Some(Err(error)) => {
                self.has_ended = true;
                self.timer.failed(reason(error.code()));
                if let Some(generation) = &mut self.generation {
                    generation.failed(error.code().name());
                }
                Some(Err(log_once(error, &self.model, &self.id, &self.context)))
            }
        })
    }
}

impl Drop for Counted {
    /// A caller that goes before the end has cancelled the request, unless it says otherwise.
    fn drop(&mut self) {
        if self.context.has_enough() {
            self.answered();
        }
    }
}

impl Counted {
    /// Counts the request as answered, unless it has ended.
    fn answered(&mut self) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.timer.succeeded();
        if let Some(generation) = &mut self.generation {
            generation.answered(self.context.has_enough());
        }
    }

    /// Puts the outputs in the configuration's order and leaves out what nobody asked for.
    fn tidy(&self, response: &mut Response) {
        let place = |name: &str| {
            let mut outputs = self.signature.outputs.iter();
            outputs.position(|output| &*output.name == name).unwrap_or(usize::MAX)
        };
        if !self.wanted.is_empty() {
            response.outputs.retain(|tensor| self.wanted.contains(&tensor.name));
        }
        if response.outputs.len() > 1 {
            response.outputs.sort_by_key(|tensor| place(&tensor.name));
        }
        if self.reshapes_outputs {
            reshape::outputs(&self.signature, &mut response.outputs);
        }
    }
}

/// Under which reason a failure is counted.
pub fn reason(code: Code) -> Reason {
    match code {
        Code::Overloaded => Reason::Rejected,
        Code::Cancelled | Code::DeadlineExceeded => Reason::Canceled,
        Code::Internal | Code::Unknown | Code::Unavailable => Reason::Backend,
        Code::InvalidInput | Code::NotFound | Code::Unsupported | Code::AlreadyExists => {
            Reason::Other
        }
    }
}
