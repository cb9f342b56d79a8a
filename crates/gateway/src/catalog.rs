//! The ensembles of a repository over the models they are made of, near or far.
//!
//! The plans are made anew whenever the models change, so that an ensemble is ready exactly while
//! everything it calls is.

mod assemble;
mod change;
mod reveal;
mod served_config;
mod statement;
mod unlisted;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use consort_protocol::ModelStatistics;
use consort_repository::{
    Change, ControlMode, Entry, Foreign, IndexEntry, Leaves, Models, ResponseCache, Rounds, Served,
    Snapshot, Stated, Turns, Watching, statistics,
};
use consort_stage::{Error, Result};
use consort_telemetry::Metrics;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use assemble::{Assembly, Parts};
use statement::Statement;
use unlisted::Callable;

/// Where the ensembles lie and what decides which of them are served.
#[derive(Clone)]
pub struct CatalogOptions {
    /// The model repositories.
    pub repositories: Vec<PathBuf>,
    /// What decides which ensembles are served.
    pub mode: ControlMode,
    /// What becomes of models in the repositories that are no ensembles and that nobody lists.
    pub foreign: Foreign,
    /// Where the responses of ensembles are kept, when they are.
    pub cache: Option<Arc<ResponseCache>>,
}

/// The models of a gateway: ensembles, and what they are made of.
pub struct Catalog {
    me: Weak<Self>,
    options: CatalogOptions,
    leaves: Arc<dyn Leaves>,
    /// Held while the plans are made, so that a later state is never overwritten by an earlier.
    statements: Mutex<Statements>,
    metrics: Arc<Metrics>,
    /// What it answers for itself: the ensembles, and the models that no service lists.
    own: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    turns: Turns,
}

/// What the repositories state, and what callers have made of it.
struct Statements {
    ensembles: BTreeMap<Arc<str>, Statement>,
    callable: Callable,
}

impl Catalog {
    /// The ensembles of the repositories over `leaves`; follows the leaves as they come and go.
    ///
    /// Must be called in a runtime. Errors only when a repository cannot be read.
    pub fn open(
        options: CatalogOptions,
        leaves: Arc<dyn Leaves>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        // Before the models are read, so that no later change is missed.
        let watching = match options.mode {
            ControlMode::Poll { every } => Some((every, Watching::begin(&options.repositories)?)),
            ControlMode::None | ControlMode::Explicit { .. } => None,
        };
        let all = Stated::all(&options.repositories)?;
        let options = CatalogOptions { mode: options.mode.with_steps(&all), ..options };
        let statements = Statements::of(&all, &options);
        let catalog = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            options,
            leaves,
            statements: Mutex::new(statements),
            metrics,
            own: ArcSwap::default(),
            generation: watch::Sender::new(0),
            turns: Turns::default(),
        });
        catalog.assemble();
        tokio::spawn(follow(catalog.me.clone(), catalog.leaves.generation()));
        if let Some((every, watching)) = watching {
            tokio::spawn(poll(catalog.me.clone(), watching.every(every)));
        }
        Ok(catalog)
    }

    /// For each ensemble that could not be served whatever its models are, a sentence that says
    /// why.
    pub fn misstated(&self) -> Vec<String> {
        let statements = self.statements.lock();
        let problems = statements
            .ensembles
            .values()
            .filter_map(|statement| statement.wanted()?.as_ref().err());
        problems.cloned().collect()
    }

    fn is_stated(&self, name: &str) -> bool {
        self.statements.lock().ensembles.contains_key(name)
    }

    /// Makes the plans anew over the models as they are now.
    fn assemble(&self) {
        self.state(|_| ());
    }

    /// Changes what is stated and makes the plans anew.
    fn state(&self, change: impl FnOnce(&mut Statements)) {
        let mut statements = self.statements.lock();
        change(&mut statements);
        self.publish(self.assembled(&statements));
    }

    fn assembled(&self, statements: &Statements) -> BTreeMap<Arc<str>, Entry> {
        let Statements { ensembles, callable } = statements;
        let specs = ensembles.values().filter_map(Statement::spec);
        let steps = specs.flat_map(|spec| &spec.steps).map(|step| step.model.clone());
        let called = steps.chain(callable.wanted().cloned());
        self.leaves.expect(called.filter(|model| !ensembles.contains_key(model)).collect());
        let unlisted = callable.unlisted(&*self.leaves);
        let parts = Parts { listed: &*self.leaves, unlisted: Snapshot::new(unlisted.clone()) };
        let cache = self.options.cache.as_ref();
        let mut entries = Assembly::new(ensembles, parts, &self.metrics, cache).all();
        entries.extend(unlisted);
        entries
    }

    /// Makes these plans the ones that are served; the statements they follow from are locked.
    fn publish(&self, entries: BTreeMap<Arc<str>, Entry>) {
        let before = self.own.load();
        let snapshot = Snapshot::new(entries);
        for row in snapshot.index() {
            if row.is_trouble() && !before.index().contains(&row) {
                tracing::warn!(model = &*row.name, "not ready: {}", row.reason);
            }
        }
        let served = |snapshot: &Snapshot| snapshot.select("", None).unwrap_or_default();
        if self.options.cache.is_none() {
            warn_of_no_cache(&served(&before), &served(&snapshot));
        }
        assemble::forget_meters(&self.metrics, &served(&before), &served(&snapshot));
        self.own.store(Arc::new(snapshot));
        self.generation.send_modify(|generation| *generation += 1);
    }
}

/// Says of each ensemble that has begun to ask for a cache that there is none.
fn warn_of_no_cache(before: &[Arc<Served>], now: &[Arc<Served>]) {
    let asks = |served: &&Arc<Served>| {
        served.config.response_cache.as_ref().is_some_and(|cache| cache.enable)
    };
    for served in now.iter().filter(asks) {
        if before.iter().filter(asks).all(|old| old.name != served.name) {
            tracing::warn!(
                ensemble = &*served.name,
                "`response_cache` has no effect without `--cache-config local,size=BYTES`"
            );
        }
    }
}

impl Statements {
    /// What `all` state.
    ///
    /// A configuration that cannot be read counts as an ensemble's only where it says so; the
    /// service of its backend reports the others.
    fn of(all: &[Stated], CatalogOptions { mode, foreign, .. }: &CatalogOptions) -> Self {
        let state = |stated: &Stated| {
            let name = stated.folder.name.as_str();
            let is_wanted = mode.loads_at_start(name);
            let statement =
                if is_wanted { Statement::served(stated) } else { Statement::unknown(stated) };
            (Arc::from(name), statement)
        };
        let ensembles = all.iter().filter(|stated| stated.is_ensemble()).map(state).collect();
        Self { ensembles, callable: Callable::among(all, mode, *foreign) }
    }
}

/// Assembles the ensembles again whenever the models change, for as long as the catalog lives.
async fn follow(catalog: Weak<Catalog>, mut generation: watch::Receiver<u64>) {
    // What changed between the first assembly and now is not missed.
    generation.mark_changed();
    while generation.changed().await.is_ok() {
        let Some(catalog) = catalog.upgrade() else { return };
        catalog.assemble();
    }
}

/// Looks at the repositories once in `every` for as long as the catalog lives.
async fn poll(catalog: Weak<Catalog>, mut rounds: Rounds) {
    loop {
        rounds.due().await;
        let Some(catalog) = catalog.upgrade() else { return };
        let Some(changes) = rounds.look().await else { return };
        match changes {
            Ok(changes) => catalog.follow_files(changes).await,
            // Whoever loads the models says so; a gateway alone has nothing to lose by waiting.
            Err(error) => tracing::debug!("{error}"),
        }
    }
}

impl Models for Catalog {
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        let own = self.own.load();
        if own.entry(name).is_some() {
            return own.get(name, version);
        }
        self.leaves.get(name, version)
    }

    fn discover(&self) -> BoxFuture<'_, ()> {
        self.leaves.discover()
    }

    fn index(&self) -> Vec<IndexEntry> {
        let own = self.own.load();
        let mut rows = self.leaves.index();
        rows.retain(|row| own.entry(&row.name).is_none());
        rows.extend(own.index());
        rows.sort_by(|left, right| (&left.name, left.version).cmp(&(&right.name, right.version)));
        rows
    }

    fn is_ready(&self) -> bool {
        self.leaves.is_ready() && self.own.load().is_ready()
    }

    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let snapshot = self.own.load_full();
            let ensembles = snapshot.select(&name, version);
            let read = |served: &Arc<Served>| statistics::of(&self.metrics, served);
            if snapshot.entry(&name).is_some() {
                return Ok(ensembles?.iter().map(read).collect());
            }
            let mut all = self.leaves.statistics(&name, version).await?;
            if name.is_empty() {
                all.extend(ensembles?.iter().map(read));
            }
            Ok(all)
        })
    }

    fn control(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.options.mode.admit()?;
            let catalog = self.me.upgrade().ok_or_else(Error::cancelled)?;
            let done = tokio::spawn(catalog.carry_out(change));
            done.await.unwrap_or_else(|_| Err(Error::internal("the change was cut short")))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // The plans let go of the steps' models, and miss none of them.
        let callable = Callable::among(&[], &ControlMode::None, self.options.foreign);
        self.state(|statements| *statements = Statements { ensembles: BTreeMap::new(), callable });
        self.leaves.close()
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
