//! One process of a stage's service: the channel to it, its calls in flight and how it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use consort_protocol::grpc_inference_service_client::GrpcInferenceServiceClient;
use consort_protocol::{MESSAGE_LIMIT, ModelInferResponse};
use consort_stage::{Error, Result};
use consort_telemetry::UpstreamMeter;
use http::Uri;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tonic::Status;

use crate::connection::Connection;
use crate::expected::Expected;
use crate::fleet::FleetOptions;
use crate::label_files::LabelFiles;
use crate::outgoing::Outgoing;
use crate::report::{Health, Report};
use crate::unary;

/// The client of one replica; a clone is cheap and shares the connection.
pub(crate) type Client = GrpcInferenceServiceClient<Connection>;

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
    /// Wakes its prober, when the connection has ended: whoever answers there next may be another
    /// process, which has loaded nothing yet.
    pub(crate) lost: Arc<Notify>,
    /// Wakes its keeper, when it has said something new.
    pub(crate) reported: Notify,
    /// Wakes the supervisor then.
    changed: Arc<Notify>,
    /// The models that are called by name, for a replica that does not list what it has.
    pub(crate) expected: watch::Receiver<Expected>,
    /// Where the labels of its models' classes are looked for.
    pub(crate) label_files: LabelFiles,
    /// Held while it is asked how it is, so that no older answer is noted after a newer one.
    pub(crate) asking: tokio::sync::Mutex<()>,
    client: Client,
    connection: Connection,
    /// Where its `ModelInfer` is.
    infer: Uri,
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
        options: &FleetOptions,
        changed: Arc<Notify>,
        expected: watch::Receiver<Expected>,
    ) -> Result<Self> {
        let meter = options.metrics.upstream(&stage, &address.to_string());
        let lost = Arc::<Notify>::default();
        let connection = Connection::lazy(address, lost.clone());
        let origin = origin(address)?;
        Ok(Self {
            client: Client::with_origin(connection.clone(), origin.clone())
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
            connection,
            infer: unary::method(origin),
            stage,
            address,
            meter,
            label_files: LabelFiles::in_repositories(&options.model_repositories),
            suspected: Notify::new(),
            lost,
            reported: Notify::new(),
            changed,
            expected,
            asking: tokio::sync::Mutex::default(),
            done: Mutex::default(),
            report: ArcSwap::default(),
        })
    }

    /// A client on its connection.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Calls a model that answers once.
    pub(crate) async fn infer(
        &self,
        outgoing: &Outgoing,
    ) -> std::result::Result<ModelInferResponse, Status> {
        unary::infer(&self.connection, &self.infer, outgoing).await
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

fn origin(address: SocketAddr) -> Result<Uri> {
    format!("http://{address}").parse().map_err(|error| {
        Error::invalid(format!("`{address}` is no address of a service")).with_source(error)
    })
}
