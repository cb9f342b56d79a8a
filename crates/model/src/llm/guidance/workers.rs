//! Threads that do short pieces of work beside the generation loop, from a bounded queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use consort_stage::{Code, Error, Result};

/// What is to be done, as long as somebody has the other end of it.
struct Task {
    wanted: Weak<()>,
    work: Box<dyn FnOnce() + Send>,
}

/// What a task will give. Where it is dropped before a thread came to the task, nothing is done.
pub(super) struct Pending<T> {
    result: Receiver<T>,
    _wanted: Arc<()>,
}

/// Threads and the queue that they take their work from; they end when this is dropped and the
/// queue is empty.
pub(super) struct Workers(SyncSender<Task>);

impl Workers {
    /// So many threads of a name, with stacks of so many bytes, before which so many tasks may wait.
    pub(super) fn start(
        (name, stack_size): (&str, usize),
        threads: usize,
        capacity: usize,
    ) -> Result<Self> {
        let (sender, tasks) = mpsc::sync_channel::<Task>(capacity);
        let tasks = Arc::new(Mutex::new(tasks));
        for _ in 0..threads {
            let tasks = Arc::clone(&tasks);
            let thread = thread::Builder::new().name(name.to_owned()).stack_size(stack_size);
            thread.spawn(move || work(&tasks)).map_err(|error| {
                Error::unavailable(format!(
                    "a thread for structured output does not start: {error}"
                ))
            })?;
        }
        Ok(Self(sender))
    }

    /// Has a task done by the next thread that is free, if it is wanted then.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Pending<T>> {
        // For one result, which nobody may want any more.
        let (sender, result) = mpsc::sync_channel(1);
        let work = Box::new(move || drop(sender.send(task())));
        let wanted = Arc::new(());
        match self.0.try_send(Task { wanted: Arc::downgrade(&wanted), work }) {
            Ok(()) => Ok(Pending { result, _wanted: wanted }),
            Err(TrySendError::Full(_)) => {
                // Beside those of every text there can be, some of callers who have left.
                let full = "too many structured outputs are under way; try again later";
                Err(Error::new(Code::Overloaded, full))
            }
            Err(TrySendError::Disconnected(_)) => {
                Err(Error::internal("the threads of structured output have ended"))
            }
        }
    }
}

impl<T> Pending<T> {
    /// The result, if it is there. When the task breaks down it never comes, which is an error.
    pub(super) fn take(&self) -> Result<T, TryRecvError> {
        self.result.try_recv()
    }

    /// The same, waited for.
    pub(super) fn wait(&self, longest: Duration) -> Result<T, RecvTimeoutError> {
        self.result.recv_timeout(longest)
    }
}

fn work(tasks: &Mutex<Receiver<Task>>) {
    loop {
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else {
            return;
        };
        if task.wanted.strong_count() == 0 {
            continue;
        }
        // What failed is told to whoever waits for the result; the thread goes on.
        drop(catch_unwind(AssertUnwindSafe(task.work)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_task_that_breaks_down_takes_nothing_with_it() {
        let workers = Workers::start(("test", 1 << 20), 1, 4).unwrap();
        let broken = workers.submit(|| -> u8 { panic!("on purpose") }).unwrap();
        let whole = workers.submit(|| 7).unwrap();
        assert!(broken.wait(LONG).is_err());
        assert_eq!(whole.wait(LONG), Ok(7));
    }

    #[test]
    fn the_queue_is_bounded() {
        let workers = Workers::start(("test", 1 << 20), 1, 1).unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let first = workers.submit(move || held.recv()).unwrap();
        let refused = (0..3).map(|_| workers.submit(|| ())).find_map(Result::err);
        assert!(refused.is_some_and(|error| error.code() == Code::Overloaded));
        drop(hold);
        assert!(first.wait(LONG).is_ok());
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_done() {
        let workers = Workers::start(("test", 1 << 20), 1, 4).unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let first = workers.submit(move || held.recv()).unwrap();
        let (done, was_done) = mpsc::channel();
        let left = workers.submit(move || done.send(())).unwrap();
        let last = workers.submit(|| ()).unwrap();
        drop(left);
        drop(hold);
        assert!(first.wait(LONG).is_ok() && last.wait(LONG).is_ok());
        assert!(was_done.recv().is_err(), "it went without being run");
    }
}
