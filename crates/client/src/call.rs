//! One call to one replica: a stream that carries one request there and its responses back.

use std::sync::Arc;
use std::sync::LazyLock;

use consort_protocol::{ModelInferRequest, ModelStreamInferResponse};
use consort_stage::{Code, Context, Error, Response, Result};
use consort_telemetry::{Outcome, UpstreamCall, inject};
use futures::stream;
use parking_lot::Mutex;
use tonic::Streaming;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

use crate::failure;
use crate::replica::Replica;

/// Asks a server to end the stream with a real gRPC status when the request fails.
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
    context: Context,
    is_decoupled: bool,
}

impl Outgoing {
    pub(crate) fn new(message: ModelInferRequest, context: Context, is_decoupled: bool) -> Self {
        Self { message: Arc::new(Mutex::new(Some(message))), context, is_decoupled }
    }

    /// Whether nobody has seen anything of it, so that it can safely be sent elsewhere.
    pub(crate) fn is_unsent(&self) -> bool {
        self.message.lock().is_some()
    }

    /// The request's one message and the end, with what travels as metadata.
    fn request(&self) -> tonic::Request<impl stream::Stream<Item = ModelInferRequest> + use<>> {
        let message = Arc::clone(&self.message);
        let messages = stream::iter(std::iter::from_fn(move || message.lock().take()));
        let mut request = tonic::Request::new(messages);
        let metadata = request.metadata_mut();
        metadata.insert(REAL_STATUS.clone(), MetadataValue::from_static("true"));
        if self.context.spent.is_some() {
            metadata.insert(DURATIONS.clone(), MetadataValue::from_static("true"));
        }
        let Context { span, traceparent, tracestate, .. } = &self.context;
        inject(span.as_ref(), traceparent.as_deref(), tracestate.as_deref(), metadata.as_mut());
        if let Some(remaining) = self.context.remaining() {
            request.set_timeout(remaining);
        }
        request
    }
}

/// A call that is being answered. Dropping it resets the stream, which cancels it over there.
pub(crate) struct Call {
    replica: Arc<Replica>,
    context: Context,
    is_decoupled: bool,
    messages: Streaming<ModelStreamInferResponse>,
    /// Counts the call as in flight, and as cancelled unless it ends otherwise.
    guard: Option<UpstreamCall>,
    /// The last answer, kept until the server has ended the stream: whoever has the last answer
    /// may drop the call, and a stream must not be reset for its trailers.
    held: Option<Result<Response>>,
}

impl Call {
    /// Sends a request to a replica and waits until it begins to answer.
    pub(crate) async fn open(replica: &Arc<Replica>, outgoing: &Outgoing) -> Result<Self> {
        let mut guard = replica.meter.call();
        let mut client = replica.client();
        match client.model_stream_infer(outgoing.request()).await {
            Ok(response) => Ok(Self {
                replica: Arc::clone(replica),
                context: outgoing.context.clone(),
                is_decoupled: outgoing.is_decoupled,
                messages: response.into_inner(),
                guard: Some(guard),
                held: None,
            }),
            Err(status) => {
                let error = failure::of_call(&status, &outgoing.context);
                guard.ended(outcome(error.code()));
                Err(replica.locate(error))
            }
        }
    }

    /// The next response; `None` once the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Result<Response>> {
        self.guard.as_ref()?;
        loop {
            let message = match self.messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return self.end(None),
                Err(status) => return self.end(Some(failure::of_call(&status, &self.context))),
            };
            if matches!(self.held, Some(Err(_))) {
                continue;
            }
            if !message.error_message.is_empty() {
                self.held = Some(Err(Error::new(Code::Unknown, message.error_message)));
                continue;
            }
            let mut response = message.infer_response.unwrap_or_default();
            let durations = response.take_durations();
            if let (Some(spent), Some(durations)) = (&self.context.spent, durations) {
                spent.add(&durations);
            }
            match response.into_response() {
                // This only says that a decoupled model has sent everything.
                Ok(response) if self.is_decoupled && response.outputs.is_empty() => {}
                Ok(response) => {
                    // A server that goes on after its last response is believed.
                    let earlier = self.held.take();
                    let next = if response.is_last || earlier.is_some() {
                        self.held = Some(Ok(response));
                        earlier
                    } else {
                        Some(Ok(response))
                    };
                    if next.is_some() {
                        return next;
                    }
                }
                Err(error) => return self.end(Some(error)),
            }
        }
    }

    /// The stream has ended: counts the call and gives what is left of the answer.
    fn end(&mut self, error: Option<Error>) -> Option<Result<Response>> {
        let held = self.held.take();
        let answer = error.map_or(held, |error| Some(Err(error)));
        let outcome = match &answer {
            Some(Err(error)) => outcome(error.code()),
            _ => Outcome::Success,
        };
        if let Some(mut guard) = self.guard.take() {
            guard.ended(outcome);
        }
        answer.map(|answer| answer.map_err(|error| self.replica.locate(error)))
    }
}

fn outcome(code: Code) -> Outcome {
    match code {
        Code::Unavailable => Outcome::Unavailable,
        Code::Cancelled => Outcome::Cancelled,
        _ => Outcome::Failure,
    }
}
