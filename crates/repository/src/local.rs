//! The models of this process: loaded from their folders, listed and found by name.

mod leaving;
mod listing;
mod loaded;
mod reload;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use consort_protocol::ModelStatistics;
use consort_stage::{Code, Error, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::control::{Action, Change, ControlMode};
use crate::instances::no_thread;
use crate::load::Loader;
use crate::models::{IndexEntry, Leaves, Models, Served, State};
use crate::snapshot::{Entry, Snapshot};
use crate::stated::Stated;
use crate::statistics;
use crate::turns::Turns;
use crate::watching::{Changes, Rounds, Watching};
use leaving::Leaving;
use loaded::Loaded;
use reload::Task;

/// Triton's default for `--model-load-thread-count`.
pub const LOAD_THREADS: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

/// The changes that may wait for their turn; each may hold the files of a model.
const MAX_WAITING: usize = 256;

/// What becomes of models that nobody here has the backend of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Another service serves them.
    Ignored,
    /// Nobody serves them, and the index says so.
    Reported,
}

/// Where the models lie and how they are loaded.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The model repositories.
    pub repositories: Vec<PathBuf>,
    /// What becomes of models whose backend this process does not have.
    pub foreign: Foreign,
    /// What decides which models are loaded.
    pub mode: ControlMode,
    /// How many models are loaded at the same time.
    pub load_threads: NonZeroUsize,
}

impl LocalOptions {
    /// Loads everything there is once.
    pub fn new(repositories: Vec<PathBuf>, foreign: Foreign) -> Self {
        Self { repositories, foreign, mode: ControlMode::None, load_threads: LOAD_THREADS }
    }
}

/// The models that this process loads.
pub struct Local {
    me: Weak<Self>,
    runtime: Handle,
    options: LocalOptions,
    loader: Loader,
    snapshot: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    /// What the models that are served were loaded from.
    loaded: Mutex<BTreeMap<Arc<str>, Loaded>>,
    /// What is left of versions that are served no longer.
    leaving: Leaving,
    /// The models that were seen to be other people's.
    others: Mutex<BTreeSet<String>>,
    /// The folders as they were when the models were listed; where callers decide, who list them anew.
    listed: Mutex<Option<Watching>>,
    turns: Turns,
    threads: Semaphore,
    waiting: Arc<Semaphore>,
}

impl Local {
    /// Lists the models of the repositories that are not ensembles, and loads in the background
    /// those that are loaded at the start.
    ///
    /// Must be called in a runtime. Errors only when a repository cannot be read; a model that
    /// cannot be loaded is listed with its reason and leaves the others serving.
    pub fn open(options: LocalOptions, loader: Loader) -> Result<Arc<Self>> {
        // Before the models are read, so that no later change is missed.
        let begin = || Watching::begin(&options.repositories);
        let (watching, listed) = match options.mode {
            ControlMode::None => (None, None),
            ControlMode::Poll { every } => (Some((every, begin()?)), None),
            ControlMode::Explicit { .. } => (None, Some(begin()?)),
        };
        let all = Stated::all(&options.repositories)?;
        let options = LocalOptions { mode: options.mode.with_steps(&all), ..options };
        let local = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            runtime: Handle::current(),
            snapshot: ArcSwap::default(),
            generation: watch::Sender::new(0),
            loaded: Mutex::default(),
            leaving: Leaving::default(),
            others: Mutex::default(),
            listed: Mutex::new(listed),
            turns: Turns::default(),
            threads: Semaphore::new(options.load_threads.get()),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            options,
            loader,
        });
        local.list_missing(&all);
        for stated in all.into_iter().filter(|stated| local.is_ours(stated)) {
            local.list(stated);
        }
        if let Some((every, watching)) = watching {
            tokio::spawn(poll(Arc::downgrade(&local), watching.every(every)));
        }
        Ok(local)
    }

    /// Adds a model to the index, and begins to load it if it is loaded at the start.
    fn list(self: &Arc<Self>, stated: Stated) {
        let name: Arc<str> = stated.folder.name.as_str().into();
        let is_wanted = self.options.mode.loads_at_start(&name);
        let state = if is_wanted { State::Loading } else { State::Unknown };
        let entry = Entry::of_model(state, "").with_optional(stated.is_optional());
        self.replace(&name, &entry);
        if is_wanted {
            // Nobody waits for it: the index says what came of it.
            drop(self.begin(name, Task::LoadStated(Box::new(stated))));
        }
    }

    /// Does what is to be done about a model when its turn comes, whoever waits for it.
    fn begin(self: &Arc<Self>, name: Arc<str>, task: Task) -> JoinHandle<Result<()>> {
        let local = self.clone();
        tokio::spawn(async move {
            let _turn = local.turns.of(&name).await;
            // Unloading takes no time, and makes room for what waits to be loaded.
            let _thread = match task {
                Task::Unload => None,
                _ => Some(local.threads.acquire().await.map_err(|_| Error::cancelled())?),
            };
            let worker = local.clone();
            on_thread(move || worker.carry_out(&name, task)).await
        })
    }

    fn replace(&self, name: &Arc<str>, entry: &Entry) {
        self.snapshot.rcu(|snapshot| snapshot.with(name.clone(), entry.clone()));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Loads what has come or changed in the repositories and unloads what has gone.
    async fn follow(self: &Arc<Self>, Changes { changed, gone }: Changes) {
        let follow = |name| self.begin(name, Task::Follow);
        let tasks: Vec<_> = changed.into_iter().chain(gone).map(follow).collect();
        for task in tasks {
            // What went wrong is in the index and in the log.
            drop(task.await);
        }
    }
}

/// Looks at the repositories once in `every` for as long as the models live.
async fn poll(local: Weak<Local>, mut rounds: Rounds) {
    let mut problem = String::new();
    loop {
        rounds.due().await;
        let Some(local) = local.upgrade() else { return };
        let Some(changes) = rounds.look().await else { return };
        match changes {
            Ok(changes) => {
                problem.clear();
                local.follow(changes).await;
            }
            Err(error) if error.message() == problem => {}
            Err(error) => {
                tracing::error!("{error}");
                error.message().clone_into(&mut problem);
            }
        }
    }
}

/// Does `work` on a thread of its own: loading takes long, and a runtime that ends does not wait.
async fn on_thread(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let (sender, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("load".into())
        .spawn(move || drop(sender.send(work())))
        .map_err(no_thread)?;
    done.await.unwrap_or_else(|_| Err(Error::internal("loading ended in a panic")))
}

/// Nothing of this process is out of reach, and all of it is listed.
impl Leaves for Local {}

impl Models for Local {
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        self.snapshot.load().get(name, version)
    }

    fn discover(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(local) = self.me.upgrade().filter(|local| local.options.mode.is_explicit())
            else {
                return;
            };
            // Without an answer the runtime is about to end.
            drop(tokio::task::spawn_blocking(move || local.list_anew()).await);
        })
    }

    fn index(&self) -> Vec<IndexEntry> {
        self.snapshot.load().index()
    }

    fn is_ready(&self) -> bool {
        self.snapshot.load().is_ready()
    }

    fn statistics(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        let served = self.snapshot.load().select(name, version);
        let metrics = self.loader.metrics.clone();
        Box::pin(async move {
            let read = |served: &Arc<Served>| statistics::of(&metrics, served);
            Ok(served?.iter().map(read).collect())
        })
    }

    fn control(&self, change: Change) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.options.mode.admit()?;
            let local = self.me.upgrade().ok_or_else(Error::cancelled)?;
            let place = self.waiting.clone().try_acquire_owned().map_err(|_| {
                let text = format!("{MAX_WAITING} changes to models wait already; try again later");
                Error::new(Code::Overloaded, text)
            })?;
            let task = match change.action {
                Action::Load(given) => Task::Load(given),
                Action::Unload { .. } => Task::Unload,
            };
            let done = tokio::spawn(async move {
                let _place = place;
                local.begin(change.model, task).await
            });
            let cut_short = |_| Error::internal("the change was cut short");
            done.await.map_err(cut_short)?.map_err(cut_short)?
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(local) = self.me.upgrade() else { return };
            let names: Vec<_> = local.snapshot.load().names().cloned().collect();
            let unload = |name: &Arc<str>| local.begin(name.clone(), Task::Unload);
            let unloads: Vec<_> = names.iter().map(unload).collect();
            for unload in unloads {
                // One that ended in a panic has left its model as it was.
                drop(unload.await);
            }
            // What has gone from the repositories is listed no longer and may still be at work.
            for name in names.into_iter().chain(local.leaving.names()) {
                local.gone(&name).await;
            }
            // Their backends are gone, and they are about to end.
            let threads = local.loader.threads.clone();
            let join = move || {
                threads.join();
                Ok(())
            };
            drop(on_thread(join).await);
        })
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
