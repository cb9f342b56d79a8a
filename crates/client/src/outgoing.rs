//! A request on its way to a replica: its one message, and what travels as metadata.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use consort_protocol::ModelInferRequest;
use consort_stage::{Context, Enough, Spent};
use consort_telemetry::inject;
use futures::{Stream, StreamExt, stream};
use http::HeaderMap;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

/// Asks a server to end a stream with a real gRPC status when the request fails.
static REAL_STATUS: LazyLock<MetadataKey<Ascii>> =
    LazyLock::new(|| MetadataKey::from_static("triton_grpc_error"));

/// Asks a service to tell on the last response what the request spent there; others do not know it
/// and pass it over.
static DURATIONS: LazyLock<MetadataKey<Ascii>> =
    LazyLock::new(|| MetadataKey::from_static(Spent::METADATA));

/// Says that a caller may want less than the whole answer, and then says when it has enough.
static ENOUGH: LazyLock<MetadataKey<Ascii>> =
    LazyLock::new(|| MetadataKey::from_static(Enough::METADATA));

/// Keeps the way to the server open, for the word that nothing more is wanted.
pub(crate) type Open = oneshot::Sender<()>;

/// A request that may have been sent or not.
pub(crate) struct Outgoing {
    message: ModelInferRequest,
    /// Whether anybody may have seen something of it.
    is_sent: Arc<AtomicBool>,
    /// What the call runs in.
    pub(crate) context: Context,
}

impl Outgoing {
    pub(crate) fn new(message: ModelInferRequest, context: Context) -> Self {
        Self { message, is_sent: Arc::default(), context }
    }

    /// Whether nobody has seen anything of it, so that it can safely be sent elsewhere.
    pub(crate) fn is_unsent(&self) -> bool {
        !self.is_sent.load(Relaxed)
    }

    /// Leaves the choice of the version to the replica, which has let this one go.
    pub(crate) fn forget_version(&mut self) {
        self.message.model_version.clear();
    }

    /// Notes that somebody may see something of it from now on.
    pub(crate) fn note_sent(&self) {
        self.is_sent.store(true, Relaxed);
    }

    /// The body of a call that is answered once.
    pub(crate) fn body(&self) -> Result<Bytes, Status> {
        self.message.to_body()
    }

    /// The headers of a call that is answered once.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.with_metadata(()).into_parts().0.into_headers()
    }

    /// The one message, taken when the connection is there and asks for it.
    fn messages(&self) -> impl Stream<Item = ModelInferRequest> + Send + use<> {
        let (message, is_sent) = (self.message.clone(), self.is_sent.clone());
        stream::once(async move {
            is_sent.store(true, Relaxed);
            message
        })
    }

    fn with_metadata<T>(&self, messages: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(messages);
        let Context { span, traceparent, tracestate, .. } = &self.context;
        let metadata = request.metadata_mut();
        if self.context.spent.is_some() {
            metadata.insert(DURATIONS.clone(), MetadataValue::from_static("true"));
        }
        inject(span.as_ref(), traceparent.as_deref(), tracestate.as_deref(), metadata.as_mut());
        if let Some(remaining) = self.context.remaining() {
            request.set_timeout(remaining);
        }
        request
    }

    /// The one message and the end, for a call that is answered by a stream. Where the caller may
    /// have enough before the end, the messages end only with what is returned beside them.
    pub(crate) fn streamed(
        &self,
    ) -> (tonic::Request<impl Stream<Item = ModelInferRequest> + Send + use<>>, Option<Open>) {
        let (open, closed) = oneshot::channel::<()>();
        let enough = self.context.enough.clone();
        let may_have_enough = enough.is_some();
        let word = async move {
            let enough = enough?;
            tokio::select! {
                () = enough.said() => Some(ModelInferRequest::enough()),
                _ = closed => None,
            }
        };
        let word = stream::once(word).filter_map(std::future::ready);
        let mut request = self.with_metadata(self.messages().chain(word));
        let metadata = request.metadata_mut();
        metadata.insert(REAL_STATUS.clone(), MetadataValue::from_static("true"));
        if may_have_enough {
            metadata.insert(ENOUGH.clone(), MetadataValue::from_static("true"));
        }
        (request, may_have_enough.then_some(open))
    }
}
