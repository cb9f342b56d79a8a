//! One loop of a streaming backend on its thread, and the queue that leads to it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use consort_stage::{Error, Interrupt, Job, Jobs, Result, StreamingBackend};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::guarded::report;
use crate::queue::{full, stopping};
use crate::threads::Threads;

/// How long a loop that panicked rests before it begins again, so that one that always panics
/// does not take a core and fill the log.
const REST: Duration = Duration::from_millis(100);

/// One loop and the queue that leads to it.
pub(super) struct Instance {
    /// The way to the loop; `None` once the stage is closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    queue_size: usize,
    in_flight: AtomicUsize,
    /// Tells the loop that a caller has gone.
    interrupt: Option<Interrupt>,
}

impl Instance {
    /// Starts the loop on a thread.
    pub(super) fn start(
        threads: &Threads,
        index: usize,
        backend: Box<dyn StreamingBackend>,
        queue_size: usize,
    ) -> io::Result<Arc<Self>> {
        // A channel for nothing cannot be made.
        let queue_size = queue_size.max(1);
        let (sender, jobs) = Jobs::channel(queue_size);
        let jobs_sender = Mutex::new(Some(sender));
        let instance = Arc::new(Self {
            jobs: jobs_sender,
            queue_size,
            in_flight: AtomicUsize::new(0),
            interrupt: backend.interrupt(),
        });
        let (model, looped) = (threads.model().clone(), instance.clone());
        threads.start(index, move || looped.work(&model, backend, jobs))?;
        Ok(instance)
    }

    /// Runs the loop; one that panics fails the requests it had and begins again.
    fn work(&self, model: &str, mut backend: Box<dyn StreamingBackend>, mut jobs: Jobs) {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| backend.run(jobs))) {
            report(model, &*panic);
            let Some(reopened) = self.reopen() else {
                return;
            };
            jobs = reopened;
            thread::sleep(REST);
        }
    }

    /// A new queue in place of the one that the panic took, unless the stage is closed.
    fn reopen(&self) -> Option<Jobs> {
        let mut sender = self.jobs.lock();
        sender.as_ref()?;
        let (reopened, jobs) = Jobs::channel(self.queue_size);
        *sender = Some(reopened);
        Some(jobs)
    }

    /// Queues a request; refused at once when the queue is full.
    pub(super) fn send(&self, job: Job) -> Result<()> {
        let sender = self.jobs.lock();
        let Some(sender) = &*sender else {
            return Err(stopping());
        };
        sender.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => full(),
            TrySendError::Closed(_) => {
                Error::unavailable("the backend has just broken down; see the server's log")
            }
        })
    }

    /// Lets the loop finish what it has and go home.
    pub(super) fn close(&self) {
        drop(self.jobs.lock().take());
    }

    /// How many requests wait for the loop or are in it.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Counts one more request until the guard is dropped.
    pub(super) fn enter(instance: &Arc<Self>) -> InFlight {
        instance.in_flight.fetch_add(1, Relaxed);
        InFlight(instance.clone())
    }
}

/// One request on an instance, from its submission until its caller has everything or has gone.
pub(super) struct InFlight(Arc<Instance>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
        if let Some(interrupt) = &self.0.interrupt {
            interrupt();
        }
    }
}
