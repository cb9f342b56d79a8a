//! The models being served, as every front end sees them: local, remote or ensembles alike.

use std::collections::BTreeSet;
use std::sync::Arc;

use consort_protocol::{ModelConfig, ModelStatistics};
use consort_stage::{Result, Signature, Stage};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::class_labels::ClassLabels;
use crate::control::{Change, UNLOADED, not_explicit};

/// A set of models that can be listed and called.
pub trait Models: Send + Sync + 'static {
    /// The model in this version, or in its latest ready version.
    ///
    /// The errors are those of Triton for an unknown model, an unknown version, one that is not
    /// ready.
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>>;

    /// Looks for models that have come into the repositories, changed or gone since, for `index` to
    /// list what is there for callers to load. Whoever is about to show the index asks for it first: files are
    /// read, on a thread where that holds up nobody.
    fn discover(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Every known model and version with its state, in the order of their names.
    fn index(&self) -> Vec<IndexEntry>;

    /// Whether everything that should be served is served.
    fn is_ready(&self) -> bool;

    /// The statistics of one version, of all versions of a model, or of everything (empty name).
    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>>;

    /// Loads or unloads a model and answers once that is done, or says why not.
    ///
    /// The change goes on when its caller goes away. Without an implementation of its own a set of
    /// models does not let its callers change it.
    fn control(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        drop(change);
        Box::pin(async { Err(not_explicit()) })
    }

    /// Unloads what this process has loaded, and answers once nothing of it is left in memory: a
    /// process that ends while a model is being freed may crash in the drivers of its device.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Counts up whenever the set of models or their states change.
    fn generation(&self) -> watch::Receiver<u64>;
}

/// The models that ensembles are made of, near or far.
///
/// What is told here is between them and whoever makes the ensembles: callers of the models see it
/// in the states of the index.
pub trait Leaves: Models {
    /// Why a model cannot be called although nothing is known to be wrong with it: a service that
    /// has it, or may have it, cannot be reached now. `None` for any other model, ready or failed.
    fn away(&self, name: &str, version: Option<u64>) -> Option<String> {
        let _ = (name, version);
        None
    }

    /// Says which models are called by name, all of them each time: some services tell of a model
    /// only when they are asked for it.
    fn expect(&self, models: BTreeSet<Arc<str>>) {
        drop(models);
    }
}

/// One version of a model that is being served.
#[derive(Clone)]
pub struct Served {
    /// The model's name.
    pub name: Arc<str>,
    /// This version.
    pub version: u64,
    /// All versions of the model that are being served, ascending.
    pub versions: Vec<u64>,
    /// `platform` as metadata shows it, such as `onnxruntime_onnx` or `ensemble`.
    pub platform: String,
    /// The normalised configuration.
    pub config: Arc<ModelConfig>,
    /// What it takes and gives.
    pub signature: Arc<Signature>,
    /// What the elements of its outputs are called.
    pub labels: Arc<ClassLabels>,
    /// What answers its requests; requests are checked against the signature behind this.
    pub stage: Arc<dyn Stage>,
    /// For an ensemble, the same one giving also what its steps know and keep to themselves, such
    /// as how many tokens there were: outputs under the names that the steps' models give them.
    pub revealed: Option<Arc<Served>>,
}

/// One line of the repository index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: Arc<str>,
    /// The version; `None` for a model that was never loaded.
    pub version: Option<u64>,
    /// What state it is in.
    pub state: State,
    /// Why it is in that state; of one that is ready, why it is not the one its files are now.
    pub reason: String,
}

impl IndexEntry {
    /// Whether somebody should look into it: it is not ready, and nobody wanted it so.
    pub fn is_trouble(&self) -> bool {
        self.state == State::Unavailable && self.reason != UNLOADED
    }
}

/// The state of a version of a model, as Triton names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has never been loaded.
    Unknown,
    /// It answers requests.
    Ready,
    /// It does not answer requests; the reason says why.
    Unavailable,
    /// It is being loaded.
    Loading,
    /// It is being unloaded.
    Unloading,
}

impl State {
    /// The state's name on the wire; empty for a model that was never loaded.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
        }
    }
}
