//! The threads of instances, whose ends somebody may have to wait for.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;

/// Starts the threads of instances and waits for their ends; clones share them.
///
/// A process must not end while such a thread does: what the libraries of a device keep for the
/// thread is freed by it last of all, after its backend, and is no longer there once the process
/// has begun to end.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    /// The model whose they are, for their names.
    model: Arc<str>,
    started: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Threads {
    /// The same for the instances of a model.
    #[must_use]
    pub fn of(&self, model: &Arc<str>) -> Self {
        Self { model: model.clone(), started: self.started.clone() }
    }

    /// Waits until every thread has ended that was started so far.
    pub fn join(&self) {
        let started = std::mem::take(&mut *self.started.lock());
        for thread in started {
            // One that panicked has ended too, and has said so.
            drop(thread.join());
        }
    }

    /// The model whose they are.
    pub(crate) fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// Starts the thread of an instance, named by the model and `which` it is.
    pub(crate) fn start(
        &self,
        which: impl Display,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let name = format!("{}_{which}", self.model);
        let thread = Builder::new().name(name).spawn(work)?;
        let mut started = self.started.lock();
        started.retain(|thread| !thread.is_finished());
        started.push(thread);
        Ok(())
    }
}

impl From<&str> for Threads {
    /// Those of a model alone.
    fn from(model: &str) -> Self {
        Self { model: model.into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_waits_waits_for_the_threads_of_every_model_and_few_that_ended_are_kept() {
        let (all, ended) = (Threads::default(), Arc::new(AtomicUsize::new(0)));
        let start = |model: &str, pause| {
            let ended = ended.clone();
            let work = move || {
                std::thread::sleep(Duration::from_millis(pause));
                ended.fetch_add(1, Ordering::SeqCst);
            };
            all.of(&model.into()).start(0, work).unwrap();
        };
        start("a", 20);
        start("b", 40);
        all.join();
        assert_eq!(ended.load(Ordering::SeqCst), 2);
        start("a", 0);
        while !all.started.lock().iter().all(JoinHandle::is_finished) {
            std::thread::yield_now();
        }
        start("b", 0);
        assert_eq!(all.started.lock().len(), 1);
    }
}
