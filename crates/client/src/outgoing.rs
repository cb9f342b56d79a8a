//! A request on its way to a replica: its one message, and what travels as metadata.

use std::sync::{Arc, LazyLock};

use consort_protocol::ModelInferRequest;
use consort_stage::Context;
use consort_telemetry::inject;
use futures::{Stream, stream};
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

/// Asks a server to end a stream with a real gRPC status when the request fails.
static REAL_STATUS: LazyLock<MetadataKey<Ascii>> =
    LazyLock::new(|| MetadataKey::from_static("triton_grpc_error"));

/// Asks a service to tell on the last response what the request spent there; others do not know it
/// and pass it over.
static DURATIONS: LazyLock<MetadataKey<Ascii>> =
    LazyLock::new(|| MetadataKey::from_static("consort-durations"));

/// A request that may have been sent or not.
pub(crate) struct Outgoing {
    /// Taken when the connection is there and asks for it, which is the moment of sending.
    message: Arc<Mutex<Option<ModelInferRequest>>>,
    /// What the call runs in.
    pub(crate) context: Context,
}

impl Outgoing {
    pub(crate) fn new(message: ModelInferRequest, context: Context) -> Self {
        Self { message: Arc::new(Mutex::new(Some(message))), context }
    }

    /// Whether nobody has seen anything of it, so that it can safely be sent elsewhere.
    pub(crate) fn is_unsent(&self) -> bool {
        self.message.lock().is_some()
    }

    /// The one message and the end, for a call that is answered once.
    pub(crate) fn single(&self) -> tonic::Request<impl Stream<Item = ModelInferRequest> + use<>> {
        let message = Arc::clone(&self.message);
        let messages = stream::iter(std::iter::from_fn(move || message.lock().take()));
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

    /// The same for a call that is answered by a stream.
    pub(crate) fn streamed(&self) -> tonic::Request<impl Stream<Item = ModelInferRequest> + use<>> {
        let mut request = self.single();
        let metadata = request.metadata_mut();
        metadata.insert(REAL_STATUS.clone(), MetadataValue::from_static("true"));
        request
    }
}
