//! One process of a stage's service: the channel to it, its calls in flight and how it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use consort_protocol::grpc_inference_service_client::GrpcInferenceServiceClient;
use consort_stage::{Error, Result};
use consort_telemetry::UpstreamMeter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};

use crate::report::{Health, Report};

/// The client of one replica; a clone is cheap and shares the connection.
pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// A stream may bring this much that its caller has not read, so that a large tensor is not held
/// up by one round trip for each 64 KiB.
const STREAM_WINDOW: u32 = 4 << 20;

/// All streams together may bring this much. It is far more than a few streams, because a caller
/// that does not read must not stop the others.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// The largest message, as a Triton server has it.
const MESSAGE_LIMIT: usize = i32::MAX as usize;

/// So many cancelled streams are remembered, so that what still comes for them is not taken for a
/// mistake of the server.
const CANCELLED_STREAMS: usize = 1024;

/// A host that does not answer a connection attempt for so long is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that has been silent for so long is asked whether it is alive. The probes keep a
/// healthy one from ever being silent, so no server sees too many pings.
const PING_AFTER: Duration = Duration::from_secs(10);

/// A connection that has not answered a ping for so long is dead, and its calls with it.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// One replica of a stage.
#[derive(Debug)]
pub(crate) struct Replica {
    /// The stage it belongs to.
    pub(crate) stage: Arc<str>,
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Counts its calls; those in flight decide who gets the next one.
    pub(crate) meter: Arc<UpstreamMeter>,
    /// Wakes its prober, when a call could not reach it.
    pub(crate) suspected: Notify,
    /// Wakes its keeper, when it has said something new.
    pub(crate) reported: Notify,
    /// Wakes the supervisor then.
    changed: Arc<Notify>,
    /// Held while it is asked how it is, so that no older answer is noted after a newer one.
    pub(crate) asking: tokio::sync::Mutex<()>,
    client: Client,
    report: ArcSwap<Report>,
    /// The last change to each model that it has carried out, by number.
    done: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl Replica {
    /// The replica at `address`, to which nothing is connected before the first call; whatever it
    /// says wakes `changed`.
    pub(crate) fn new(
        stage: Arc<str>,
        address: SocketAddr,
        meter: Arc<UpstreamMeter>,
        changed: Arc<Notify>,
    ) -> Result<Self> {
        Ok(Self {
            client: connect_lazily(address)?,
            stage,
            address,
            meter,
            suspected: Notify::new(),
            reported: Notify::new(),
            changed,
            asking: tokio::sync::Mutex::default(),
            done: Mutex::default(),
            report: ArcSwap::default(),
        })
    }

    /// A client on its connection.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// What it last said.
    pub(crate) fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    /// Notes what it says, and wakes whom it concerns if that is news.
    pub(crate) fn note(&self, report: Report) {
        if **self.report.load() != report {
            self.report.store(Arc::new(report));
            self.reported.notify_one();
            self.changed.notify_one();
        }
    }

    /// Notes that it cannot be called, keeping what it said of its models.
    ///
    /// When it comes back it may be another process, which has loaded nothing yet.
    pub(crate) fn note_failure(&self, reason: String) {
        self.done.lock().clear();
        self.note(Report { health: Health::Failed(reason), models: self.report().models.clone() });
    }

    /// The number of the last change to a model that it has carried out.
    pub(crate) fn done(&self, model: &str) -> Option<u64> {
        self.done.lock().get(model).copied()
    }

    /// Notes that it has carried out a change to a model.
    pub(crate) fn has_done(&self, model: &Arc<str>, number: u64) {
        self.done.lock().insert(model.clone(), number);
    }

    /// Names service and address before the message of an error.
    pub(crate) fn locate(&self, error: Error) -> Error {
        error.within(format_args!("service '{}' ({}): ", self.stage, self.address))
    }
}

fn connect_lazily(address: SocketAddr) -> Result<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        Error::invalid(format!("`{address}` is no address of a service")).with_source(error)
    })?;
    let channel = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_concurrent_reset_streams(CANCELLED_STREAMS)
        // Otherwise a burst of cancelled calls would end the connection and all other calls on it.
        .http2_max_local_error_reset_streams(None)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy();
    Ok(GrpcInferenceServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT))
}
