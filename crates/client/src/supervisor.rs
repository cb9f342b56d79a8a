//! The one task that keeps the fleet up to date: replicas come and go, and so do their models.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use consort_repository::{UNLOADED, UNLOADING};
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use crate::discovery::{Addresses, Discovery, Found};
use crate::fleet::{FleetOptions, Shared};
use crate::keeper::keep;
use crate::merge::{Key, StageView, merge};
use crate::probe::probe;
use crate::remotes::Remotes;
use crate::replica::Replica;
use crate::snapshot::Snapshot;

/// The state that only the supervising task touches.
pub(crate) struct Supervisor {
    options: FleetOptions,
    shared: Arc<Shared>,
    stages: Vec<StageState>,
    /// What the discoveries find, each with the index of its stage and of its place there.
    found: SelectAll<BoxStream<'static, (usize, usize, Found)>>,
    /// Woken by the probers.
    changed: Arc<Notify>,
    remotes: Remotes,
    /// Who waits for what the replicas have said to be published.
    refreshes: mpsc::Receiver<oneshot::Sender<()>>,
}

struct StageState {
    name: Arc<str>,
    places: Vec<Place>,
    replicas: BTreeMap<SocketAddr, Probed>,
    /// The models it had when it last had replicas.
    remembered: Vec<Key>,
}

/// What one discovery has found.
#[derive(Default)]
struct Place {
    addresses: Addresses,
    problem: Option<String>,
}

/// A replica that is being probed and kept until this is dropped.
struct Probed {
    replica: Arc<Replica>,
    prober: AbortHandle,
    keeper: AbortHandle,
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.prober.abort();
        self.keeper.abort();
    }
}

impl Supervisor {
    /// Watches these discoveries; those under one name are one stage.
    pub(crate) fn new(
        discoveries: Vec<(Arc<str>, Box<dyn Discovery>)>,
        options: FleetOptions,
        shared: Arc<Shared>,
        refreshes: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Self {
        let mut stages: Vec<StageState> = Vec::new();
        let mut found = SelectAll::new();
        for (name, discovery) in discoveries {
            let known = stages.iter().position(|stage| stage.name == name);
            let stage = known.unwrap_or_else(|| {
                stages.push(StageState::new(name));
                stages.len() - 1
            });
            let place = stages[stage].places.len();
            stages[stage].places.push(Place::default());
            let watched = discovery.watch();
            found.push(watched.map(move |found| (stage, place, found)).boxed());
        }
        let remotes = Remotes::default();
        let mut supervisor =
            Self { options, shared, stages, found, changed: Arc::default(), remotes, refreshes };
        // Whoever asks before the first answer comes must not be told that all is well.
        let nothing = supervisor.merge();
        supervisor.shared.snapshot.store(Arc::new(nothing));
        supervisor
    }

    /// Works until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let changed = Arc::clone(&self.changed);
            let mut waits = None;
            tokio::select! {
                Some((stage, place, found)) = self.found.next() => self.found(stage, place, found),
                () = changed.notified() => {}
                Some(waiting) = self.refreshes.recv() => waits = Some(waiting),
            }
            self.publish();
            if let Some(waiting) = waits {
                // Whoever asked may have gone.
                let _ = waiting.send(());
            }
        }
    }

    /// Takes what a discovery found; when it failed, the addresses it found before hold.
    fn found(&mut self, stage: usize, place: usize, found: Found) {
        let stage = &mut self.stages[stage];
        let place = &mut stage.places[place];
        match found {
            Ok(addresses) => {
                place.addresses = addresses;
                place.problem = None;
            }
            Err(problem) => {
                let kept = place.addresses.len();
                warn!(stage = &*stage.name, kept, "{problem}");
                place.problem = Some(problem);
            }
        }
        stage.follow(&self.options, &self.changed, &self.shared);
        let replicas = self.stages.iter().flat_map(|stage| stage.replicas.values());
        let replicas = replicas.map(|probed| probed.replica.clone()).collect();
        self.shared.replicas.store(Arc::new(replicas));
    }

    /// Makes what is known now visible to everybody.
    fn publish(&mut self) {
        let next = self.merge();
        let last = self.shared.snapshot.load_full();
        let is_news = !next.is_like(&last);
        if is_news || next.waiting != last.waiting {
            log_stages(&last, &next);
            log_models(&last, &next);
            self.shared.snapshot.store(Arc::new(next));
        }
        if is_news {
            self.shared.generation.send_modify(|generation| *generation += 1);
        }
    }

    fn merge(&mut self) -> Snapshot {
        for stage in &mut self.stages {
            if !stage.replicas.is_empty() {
                stage.remembered = stage.view().keys();
            }
        }
        let views: Vec<_> = self.stages.iter().map(StageState::view).collect();
        merge(&views, &mut self.remotes)
    }
}

impl StageState {
    fn new(name: Arc<str>) -> Self {
        Self { name, places: Vec::new(), replicas: BTreeMap::new(), remembered: Vec::new() }
    }

    fn view(&self) -> StageView<'_> {
        let replicas = self.replicas.values();
        let mut problems = self.places.iter().filter_map(|place| place.problem.as_deref());
        StageView {
            name: &self.name,
            replicas: replicas
                .map(|probed| (probed.replica.clone(), probed.replica.report()))
                .collect(),
            remembered: &self.remembered,
            lost: problems.next(),
        }
    }

    /// Starts probing the addresses that have come and forgets those that have gone.
    fn follow(&mut self, options: &FleetOptions, changed: &Arc<Notify>, shared: &Shared) {
        let wanted: Addresses =
            self.places.iter().flat_map(|place| place.addresses.iter().copied()).collect();
        let name = &self.name;
        self.replicas.retain(|address, _| {
            let stays = wanted.contains(address);
            if !stays {
                info!(stage = &**name, %address, "replica has gone");
                options.metrics.remove_upstream(name, &address.to_string());
            }
            stays
        });
        for address in wanted {
            if !self.replicas.contains_key(&address) {
                self.join(address, options, changed, shared);
            }
        }
    }

    fn join(
        &mut self,
        address: SocketAddr,
        options: &FleetOptions,
        changed: &Arc<Notify>,
        shared: &Shared,
    ) {
        let name = &self.name;
        let expected = shared.expected.subscribe();
        match Replica::new(name.clone(), address, options, changed.clone(), expected) {
            Ok(replica) => {
                info!(stage = &**name, %address, "replica has come");
                let replica = Arc::new(replica);
                let probing = probe(replica.clone(), options.probe_every);
                let prober = tokio::spawn(probing).abort_handle();
                let keeping = keep(replica.clone(), shared.wanted.clone());
                let keeper = tokio::spawn(keeping).abort_handle();
                self.replicas.insert(address, Probed { replica, prober, keeper });
            }
            Err(error) => warn!(stage = &**name, "{error}"),
        }
    }
}

/// Says once which stages have become ready, and what those that have not wait for.
fn log_stages(last: &Snapshot, next: &Snapshot) {
    for (stage, reason) in &next.waiting {
        match last.waiting.get(stage) {
            Some(known) if known == reason => {}
            Some(_) => info!(stage = &**stage, "{reason}"),
            None => warn!(stage = &**stage, "{reason}"),
        }
    }
    for stage in last.waiting.keys() {
        if !next.waiting.contains_key(stage) {
            info!(stage = &**stage, "stage is ready");
        }
    }
}

/// Says once what has become different about the models.
fn log_models(last: &Snapshot, next: &Snapshot) {
    for row in next.rows() {
        let entry = &row.entry;
        let mut known = last.models.get(&entry.name).into_iter().flatten();
        if known.any(|known| known.entry == *entry) {
            continue;
        }
        let (model, version) = (&*entry.name, entry.version);
        let (state, reason) = (entry.state.name(), &*entry.reason);
        if reason.is_empty() || [UNLOADED, UNLOADING].contains(&reason) {
            debug!(model, version, state, "model is as it should be, or on its way there");
        } else {
            let rows = next.models.get(&entry.name).into_iter().flatten();
            let mut before = rows.map(|row| &row.entry).take_while(|other| *other != entry);
            // What concerns all versions of a model is said once.
            if before.all(|other| other.reason != entry.reason) {
                warn!(model, version, state, "{reason}");
            }
        }
    }
}
