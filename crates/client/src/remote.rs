//! A model of a far service, called like a near one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_stream::stream;
use consort_protocol::infer_parameter::ParameterChoice;
use consort_protocol::{InferParameter, ModelInferRequest};
use consort_stage::{
    Code, CorrelationId, Error, Request, Response, Responses, Result, Signature, Stage, one,
};

use crate::affinity::weight;
use crate::call::{Call, ask};
use crate::leaving::Leaving;
use crate::outgoing::Outgoing;
use crate::replica::Replica;
use crate::report::Description;
use crate::turns::{Turn, Turns};

/// The parameter by which a decoupled model is asked to say when it has sent everything.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// One version of a model and the replicas that have it ready.
///
/// The replicas are exchanged as they come and go, so an ensemble may keep the stage.
pub(crate) struct Remote {
    model: Arc<str>,
    version: u64,
    /// Whether its requests name the version.
    is_versioned: bool,
    signature: Arc<Signature>,
    /// Whether its requests belong to sequences, each of which stays with one replica.
    has_sequences: bool,
    turns: Turns,
    replicas: ArcSwap<Vec<Arc<Replica>>>,
    /// The services that have had it ready, so that an error can name them when none has.
    services: ArcSwap<BTreeSet<Arc<str>>>,
    /// Where the search for the least busy replica begins, so that equals take turns.
    turn: AtomicUsize,
}

impl Remote {
    /// A model version that no replica has yet.
    pub(crate) fn new(model: Arc<str>, version: u64, description: &Description) -> Self {
        Self {
            model,
            version,
            is_versioned: description.is_versioned,
            signature: description.signature.clone(),
            has_sequences: description.has_sequences(),
            turns: Turns::default(),
            replicas: ArcSwap::default(),
            services: ArcSwap::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Whether a model that is described so is called in the same way.
    pub(crate) fn is_like(&self, description: &Description) -> bool {
        self.signature == description.signature
            && self.has_sequences == description.has_sequences()
            && self.is_versioned == description.is_versioned
    }

    /// The model's name.
    pub(crate) fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// Exchanges the replicas; calls that have begun go on.
    pub(crate) fn set_replicas(&self, replicas: Vec<Arc<Replica>>) {
        let mut services = self.services.load_full();
        if replicas.iter().any(|replica| !services.contains(&replica.stage)) {
            let new = replicas.iter().map(|replica| replica.stage.clone());
            Arc::make_mut(&mut services).extend(new);
            self.services.store(services);
        }
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

    /// The replica that a request goes to first; one of a sequence, `id`, to the one that has it.
    fn first(&self, id: Option<&CorrelationId>) -> Option<Arc<Replica>> {
        id.map_or_else(|| self.pick(None), |id| self.pick_for(id))
    }

    /// Whether a request for one of the two can be sent to the other.
    fn is_called_like(&self, other: &Self) -> bool {
        self.signature == other.signature && self.has_sequences == other.has_sequences
    }

    /// The replica that has the sequence.
    fn pick_for(&self, id: &CorrelationId) -> Option<Arc<Replica>> {
        let replicas = self.replicas.load();
        replicas.iter().max_by_key(|replica| weight(id, replica.address)).cloned()
    }

    /// The request's sequence, once it is its turn there.
    async fn turn(&self, request: &Request) -> Result<Option<(CorrelationId, Turn)>> {
        let place = if self.has_sequences { request.sequence()? } else { None };
        let Some(place) = place else { return Ok(None) };
        let turn = self.turns.wait(&place.id).await;
        Ok(Some((place.id, turn)))
    }

    /// Sends the request to a replica, and to another one when the first got nothing of it.
    ///
    /// One of a sequence, `id`, goes to the replica that has the sequence or to none.
    async fn send<T>(
        &self,
        request: Request,
        Wish { id, first, is_newest }: Wish<'_>,
        call: impl AsyncFn(&Arc<Replica>, &Outgoing) -> Result<T>,
    ) -> Result<T> {
        if request.context.is_expired() {
            return Err(Error::deadline_exceeded());
        }
        let mut replica = first;
        let mut outgoing = self.outgoing(request);
        let mut answered = call(&replica, &outgoing).await;
        if matches!(&answered, Err(error) if error.code() == Code::Unavailable)
            && outgoing.is_unsent()
        {
            replica.suspected.notify_one();
            // No other replica knows the sequence.
            if let Some(other) = self.pick(Some(&replica)).filter(|_| id.is_none()) {
                replica = other;
                answered = call(&replica, &outgoing).await;
            }
        }
        match answered {
            // It has let the version go since it was last asked what it has. The caller named
            // none, so the replica chooses among what it has now.
            Err(error) if error.code() == Code::NotFound && is_newest && self.is_versioned => {
                replica.suspected.notify_one();
                outgoing.forget_version();
                call(&replica, &outgoing).await
            }
            answered => answered,
        }
    }

    /// The request as it is sent.
    fn outgoing(&self, mut request: Request) -> Outgoing {
        let version = self.is_versioned.then_some(self.version);
        let context = std::mem::take(&mut request.context);
        let model = self.model.as_ref();
        let mut message = ModelInferRequest::of(model, version, request);
        if self.signature.is_decoupled {
            let wanted =
                InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
            message.parameters.insert(EMPTY_FINAL.into(), wanted);
        }
        Outgoing::new(message, context)
    }

    fn nobody(&self) -> Error {
        let services = self.services.load();
        let services: Vec<_> = services.iter().map(|service| format!("'{service}'")).collect();
        Error::unavailable(format!(
            "no replica of service {} serves model '{}' version {} now",
            services.join(" or "),
            self.model,
            self.version
        ))
    }
}

/// Where a request is to go.
struct Wish<'a> {
    /// The sequence that it belongs to.
    id: Option<&'a CorrelationId>,
    /// The replica that was chosen for it.
    first: Arc<Replica>,
    /// Whether it named no version.
    is_newest: bool,
}

/// The newest version of a model that is ready, which changes under those who hold on to this.
pub(crate) type Newest = Arc<ArcSwapOption<Remote>>;

/// A [`Remote`] as a stage.
pub(crate) struct RemoteStage {
    remote: Arc<Remote>,
    /// For requests that name no version, where to look once this one has gone.
    newest: Option<Newest>,
}

impl RemoteStage {
    /// What answers requests that name the version.
    pub(crate) fn of_version(remote: Arc<Remote>) -> Self {
        Self { remote, newest: None }
    }

    /// What answers requests that name none, while this version is the newest.
    pub(crate) fn newest(remote: Arc<Remote>, newest: Newest) -> Self {
        Self { remote, newest: Some(newest) }
    }
}

/// The replica that a request goes to. Where no replica has the version any more and the caller
/// named none, it goes to what is the newest now, which `remote` then is.
fn choose(
    remote: &mut Arc<Remote>,
    newest: Option<&ArcSwapOption<Remote>>,
    id: Option<&CorrelationId>,
) -> Result<Arc<Replica>> {
    if let Some(first) = remote.first(id) {
        return Ok(first);
    }
    let newest = newest.and_then(ArcSwapOption::load_full);
    if let Some(newest) = newest.filter(|newest| newest.is_called_like(remote))
        && let Some(first) = newest.first(id)
    {
        *remote = newest;
        return Ok(first);
    }
    Err(remote.nobody())
}

/// Calls a decoupled model and waits for its first response, as only then it is known whether the
/// replica has the version.
async fn open(
    replica: &Arc<Replica>,
    outgoing: &Outgoing,
) -> Result<(Option<Result<Response>>, Call)> {
    let mut call = Call::open(replica, outgoing).await?;
    match call.next().await {
        Some(Err(error)) => Err(error),
        first => Ok((first, call)),
    }
}

impl Stage for RemoteStage {
    fn call(&self, request: Request) -> Responses {
        let enough = request.context.enough.clone();
        let responses = self.responses(request);
        match enough {
            Some(enough) => Box::pin(Leaving::new(responses, enough)),
            None => responses,
        }
    }
}

impl RemoteStage {
    fn responses(&self, request: Request) -> Responses {
        let (mut remote, newest) = (self.remote.clone(), self.newest.clone());
        if !remote.signature.is_decoupled {
            return one(async move {
                let turn = remote.turn(&request).await?;
                let id = turn.as_ref().map(|(id, _)| id);
                let first = choose(&mut remote, newest.as_deref(), id)?;
                let wish = Wish { id, first, is_newest: newest.is_some() };
                let ask = async |replica: &Arc<Replica>, outgoing: &Outgoing| {
                    ask(replica, outgoing).await
                };
                remote.send(request, wish, ask).await
            });
        }
        Box::pin(stream! {
            let turn = match remote.turn(&request).await {
                Ok(turn) => turn,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            };
            let id = turn.as_ref().map(|(id, _)| id);
            let sent = match choose(&mut remote, newest.as_deref(), id) {
                Ok(first) => {
                    let wish = Wish { id, first, is_newest: newest.is_some() };
                    remote.send(request, wish, open).await
                }
                Err(error) => Err(error),
            };
            match sent {
                Ok((mut next, mut call)) => while let Some(response) = next {
                    yield response;
                    next = call.next().await;
                },
                Err(error) => yield Err(error),
            }
        })
    }
}
