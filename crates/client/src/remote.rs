//! A model of a far service, called like a near one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use async_stream::stream;
use consort_protocol::infer_parameter::ParameterChoice;
use consort_protocol::{InferParameter, ModelInferRequest};
use consort_stage::{Code, Error, Request, Responses, Result, Signature, Stage, one};

use crate::call::{Call, ask};
use crate::outgoing::Outgoing;
use crate::replica::Replica;

/// The parameter by which a decoupled model is asked to say when it has sent everything.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// One version of a model and the replicas that have it ready.
///
/// The replicas are exchanged as they come and go, so an ensemble may keep the stage.
pub(crate) struct Remote {
    model: Arc<str>,
    version: u64,
    signature: Arc<Signature>,
    replicas: ArcSwap<Vec<Arc<Replica>>>,
    /// Where the search for the least busy replica begins, so that equals take turns.
    turn: AtomicUsize,
}

impl Remote {
    /// A model version that no replica has yet.
    pub(crate) fn new(model: Arc<str>, version: u64, signature: Arc<Signature>) -> Self {
        Self { model, version, signature, replicas: ArcSwap::default(), turn: AtomicUsize::new(0) }
    }

    /// The model's name.
    pub(crate) fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// What it takes and gives, which does not change.
    pub(crate) fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// Exchanges the replicas; calls that have begun go on.
    pub(crate) fn set_replicas(&self, replicas: Vec<Arc<Replica>>) {
        self.replicas.store(Arc::new(replicas));
    }

    /// The replicas that have it ready.
    pub(crate) fn replicas(&self) -> Arc<Vec<Arc<Replica>>> {
        self.replicas.load_full()
    }

    /// The replica with the least in flight; another than `tried` if there is one.
    fn pick(&self, tried: Option<&Arc<Replica>>) -> Option<Arc<Replica>> {
        let replicas = self.replicas.load();
        let first = self.turn.fetch_add(1, Relaxed) % replicas.len().max(1);
        let (before, after) = replicas.split_at(first);
        let others = after
            .iter()
            .chain(before)
            .filter(|replica| tried.is_none_or(|tried| !Arc::ptr_eq(replica, tried)));
        let least = others.min_by_key(|replica| replica.meter.in_flight());
        least.or(tried).cloned()
    }

    /// Sends the request to a replica, and to another one when the first got nothing of it.
    async fn send<T>(
        &self,
        request: Request,
        call: impl AsyncFn(&Arc<Replica>, &Outgoing) -> Result<T>,
    ) -> Result<T> {
        if request.context.is_expired() {
            return Err(Error::deadline_exceeded());
        }
        let mut first = self.pick(None).ok_or_else(|| self.nobody())?;
        let outgoing = self.outgoing(request);
        match call(&first, &outgoing).await {
            Err(error) if error.code() == Code::Unavailable && outgoing.is_unsent() => {
                first.suspected.notify_one();
                first = self.pick(Some(&first)).ok_or(error)?;
                call(&first, &outgoing).await
            }
            answered => answered,
        }
    }

    fn outgoing(&self, mut request: Request) -> Outgoing {
        let context = std::mem::take(&mut request.context);
        let model = self.model.as_ref();
        let mut message = ModelInferRequest::of(model, Some(self.version), request);
        if self.signature.is_decoupled {
            let wanted =
                InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            message.parameters.insert(EMPTY_FINAL.into(), wanted);
        }
        Outgoing::new(message, context)
    }

    fn nobody(&self) -> Error {
        Error::unavailable(format!(
            "no replica serves model '{}' version {} now",
            self.model, self.version
        ))
    }
}

/// A [`Remote`] as a stage.
pub(crate) struct RemoteStage(pub(crate) Arc<Remote>);

impl Stage for RemoteStage {
    fn call(&self, request: Request) -> Responses {
        let remote = Arc::clone(&self.0);
        if !remote.signature.is_decoupled {
            return one(async move {
                remote.send(request, async |replica, outgoing| ask(replica, outgoing).await).await
            });
        }
        Box::pin(stream! {
            match remote.send(request, Call::open).await {
                Ok(mut call) => while let Some(response) = call.next().await {
                    yield response;
                },
                Err(error) => yield Err(error),
            }
        })
    }
}
