//! The models of all far services, offered like local ones.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use consort_protocol::ModelStatistics;
use consort_repository::{Change, IndexEntry, Leaves, Models, Served, Turns};
use consort_stage::{Error, Result};
use consort_telemetry::Metrics;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::discovery::{Discovery, Dns};
use crate::expected::Expected;
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use crate::supervisor::Supervisor;
use crate::wanted::Wanted;
use crate::{StageAddress, statistics};

/// How a fleet keeps up with its services.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Where the calls to each replica are counted.
    pub metrics: Arc<Metrics>,
    /// How often the names of services are resolved.
    pub resolve_every: Duration,
    /// How often a replica that is ready is asked whether it still is.
    pub probe_every: Duration,
    /// Where the folders of the services' models are looked for, to read the labels of classes.
    pub model_repositories: Vec<PathBuf>,
}

impl FleetOptions {
    /// Looks once a second, which costs a replica about nothing and is as fresh as DNS usually is.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        const EVERY: Duration = Duration::from_secs(1);
        Self { metrics, resolve_every: EVERY, probe_every: EVERY, model_repositories: Vec::new() }
    }
}

/// The services behind a set of stages, with all their replicas, as one set of models.
///
/// Dropping it ends its tasks; calls that have begun go on.
pub struct Fleet {
    shared: Arc<Shared>,
    supervisor: AbortHandle,
}

/// What the supervising task writes and everybody reads.
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) generation: watch::Sender<u64>,
    /// Every replica there is.
    pub(crate) replicas: ArcSwap<Vec<Arc<Replica>>>,
    /// What callers have loaded and unloaded.
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) turns: Turns,
    /// The models that are called by name, which a service may not list by itself.
    pub(crate) expected: watch::Sender<Expected>,
    /// Asks the supervisor to publish what the replicas have said.
    pub(crate) refresh: mpsc::Sender<oneshot::Sender<()>>,
}

/// Changes that may wait for the supervisor at once; the next one waits to be let in.
const REFRESHES: usize = 16;

impl Fleet {
    /// Begins to look for the replicas of these stages and for their models.
    ///
    /// Must be called in a tokio runtime, which its tasks run on.
    pub fn start(stages: Vec<StageAddress>, options: FleetOptions) -> Arc<Self> {
        let every = options.resolve_every;
        let discoveries = stages.into_iter().flat_map(|stage| {
            let name = stage.name;
            stage.targets.into_iter().map(move |target| {
                let dns: Box<dyn Discovery> = Box::new(Dns::new(target, every));
                (name.clone(), dns)
            })
        });
        Self::start_with(discoveries.collect(), options)
    }

    /// The same with other ways to find replicas; those under the same name are one stage.
    pub fn start_with(
        discoveries: Vec<(Arc<str>, Box<dyn Discovery>)>,
        options: FleetOptions,
    ) -> Arc<Self> {
        let (refresh, refreshes) = mpsc::channel(REFRESHES);
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::default(),
            generation: watch::Sender::default(),
            replicas: ArcSwap::default(),
            wanted: Arc::default(),
            turns: Turns::default(),
            expected: watch::Sender::default(),
            refresh,
        });
        let supervisor = Supervisor::new(discoveries, options, shared.clone(), refreshes);
        let supervisor = tokio::spawn(supervisor.run()).abort_handle();
        Arc::new(Self { shared, supervisor })
    }

    /// For each stage without a ready replica, a sentence that says why.
    pub fn waiting_for(&self) -> Vec<String> {
        self.shared.snapshot.load().waiting.values().cloned().collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Leaves for Fleet {
    fn away(&self, name: &str, version: Option<u64>) -> Option<String> {
        self.shared.snapshot.load().away(name, version).map(str::to_owned)
    }

    fn expect(&self, models: BTreeSet<Arc<str>>) {
        self.shared.expected.send_if_modified(|expected| expected.call(models));
    }
}

impl Models for Fleet {
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        let snapshot = self.shared.snapshot.load();
        let ready = snapshot.get(name, version)?;
        Ok(if version.is_some() { ready.served.clone() } else { ready.newest.clone() })
    }

    fn index(&self) -> Vec<IndexEntry> {
        let snapshot = self.shared.snapshot.load();
        snapshot.rows().map(|row| row.entry.clone()).collect()
    }

    fn is_ready(&self) -> bool {
        self.shared.snapshot.load().is_ready()
    }

    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        let snapshot = self.shared.snapshot.load_full();
        let name = name.to_owned();
        async move { statistics::collect(&snapshot, &name, version).await }.boxed()
    }

    /// Whether changes are allowed is for the services to say, each for itself.
    fn control(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        let shared = self.shared.clone();
        let done = tokio::spawn(async move { shared.control(change).await });
        async { done.await.unwrap_or_else(|_| Err(Error::internal("the change was cut short"))) }
            .boxed()
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }
}
