//! Who asks which model: what every route of OpenAI's API finds out first.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use axum::http::request::Parts;
use consort_middleware::{Deadline, context_in};
use consort_repository::{Labels, Served};
use consort_stage::{Context, Enough, Responses, Stage};
use consort_telemetry::semconv::attribute;
use consort_telemetry::version_chosen;
use tracing::Span;

use super::adapters::{self, Named};
use super::error::Refusal;
use super::fields::{Fields, mismatch};
use super::models;
use super::text_model::TextModel;
use crate::http::target::Target;
use crate::http::{Front, deadline};

/// Who asks which model.
pub(super) struct Caller {
    /// The model's name.
    pub(super) model: String,
    /// What the answer is called, in the log and the trace too.
    pub(super) id: String,
    /// The span that the work belongs under.
    pub(super) span: Span,
    context: Context,
    deadline: Option<Deadline>,
}

impl Caller {
    /// The caller of a request whose answer's name begins with `prefix`.
    pub(super) fn new(head: &Parts, fields: &mut Fields, prefix: &str) -> Result<Self, Refusal> {
        let model = match fields.require("model")? {
            serde_json::Value::String(model) => model,
            other => return Err(mismatch("model", "a string", &other)),
        };
        let target = Target { name: model, version: None };
        let (span, id) = (target.span(), format!("{prefix}{:016x}{:016x}", random(), random()));
        span.record(attribute::REQUEST_ID, &*id);
        let context = context_in(&head.extensions, span.clone());
        let deadline = head.extensions.get().cloned();
        Ok(Self { model: target.name, id, span, context, deadline })
    }

    /// What the log says of the request when it fails.
    pub(super) fn labels(&self) -> Labels {
        Labels::new(&self.model, &self.id, &self.context)
    }

    /// The model as one that continues text, with the adapter that the request may name.
    pub(super) fn find_text(&self, front: &Front) -> Result<TextModel, Refusal> {
        let named = adapters::find(&*front.models, &self.model);
        let Named { served, adapter } =
            named.map_err(|error| Refusal::from(error).about("model"))?;
        version_chosen(&self.span, served.version);
        Ok(models::text(&served)?.with_adapter(adapter))
    }

    /// The model, as it is served.
    pub(super) fn find(&self, front: &Front) -> Result<Arc<Served>, Refusal> {
        let found = front.models.get(&self.model, None);
        let found = found.map_err(|error| Refusal::from(error).about("model"))?;
        version_chosen(&self.span, found.version);
        Ok(found)
    }

    /// Calls the model; the responses end with an error when the request's time is over. By
    /// `enough` it hears of one who goes because nothing more is wanted.
    pub(super) fn call(
        &self,
        stage: &dyn Stage,
        mut request: consort_stage::Request,
        enough: Option<Enough>,
    ) -> Responses {
        request.id.clone_from(&self.id);
        request.context = Context { enough, ..self.context.clone() };
        deadline::limit(stage.call(request), self.deadline.as_ref())
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
