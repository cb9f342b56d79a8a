//! What ties a queued or running request to its caller, so that either can end it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use consort_stage::Interrupt;
use parking_lot::Mutex;

/// How long a run may go on after an interrupt before it is interrupted again, at first and at
/// most: the first is far below what a caller notices, the last costs nothing.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// Shared between the caller, who may go away, and the instance, which may be at work for it.
#[derive(Clone, Default)]
pub(crate) struct Ticket(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Waiting,
    /// An instance works on it; the interrupt stops that very run.
    Running(Option<Interrupt>),
    Done,
    Cancelled,
}

/// What a request left when it was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was waiting; no instance will begin it.
    TheQueue,
    /// It was running; its instance was told to stop.
    TheInstance,
    /// It was over already.
    Nothing,
}

impl Ticket {
    /// Waiting → Running, unless the caller has gone: then the instance must not begin.
    pub(crate) fn begin(&self, interrupt: Option<Interrupt>) -> bool {
        let mut state = self.0.lock();
        let is_waiting = matches!(*state, State::Waiting);
        if is_waiting {
            *state = State::Running(interrupt);
        }
        is_waiting
    }

    /// Running | Cancelled → Done. After this no interrupt of the run can fire.
    pub(crate) fn end(&self) {
        *self.0.lock() = State::Done;
    }

    /// Whether both are the ticket of one request.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waiting | Running → Cancelled, interrupting the run; what is done stays done.
    pub(crate) fn cancel(&self) -> Left {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Cancelled) {
            State::Waiting => Left::TheQueue,
            State::Running(interrupt) => {
                if let Some(interrupt) = interrupt {
                    // Called under the lock, so that it cannot reach the instance's next run.
                    interrupt();
                    self.clone().insist(interrupt);
                }
                Left::TheInstance
            }
            over @ (State::Done | State::Cancelled) => {
                *state = over;
                Left::Nothing
            }
        }
    }

    /// Interrupts the run again and again until it is over.
    ///
    /// An instance is at work for the request a moment before its backend can be interrupted and
    /// a moment after; an interrupt that falls into the first would be lost. There is at most one
    /// such thread for each instance, and it lives as long as the rest of the run.
    fn insist(self, interrupt: Interrupt) {
        let thread = thread::Builder::new().name("interrupt".to_owned());
        let spawned = thread.spawn(move || {
            let (mut pause, longest) = PATIENCE;
            loop {
                thread::sleep(pause);
                let state = self.0.lock();
                if matches!(*state, State::Done) {
                    return;
                }
                interrupt();
                pause = longest.min(pause * 2);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("a cancelled run was interrupted once only: no thread: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    fn counted() -> (Arc<AtomicUsize>, Interrupt) {
        let interrupts = Arc::new(AtomicUsize::new(0));
        let counter = interrupts.clone();
        let interrupt = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (interrupts, interrupt)
    }

    #[test]
    fn a_run_is_interrupted_until_it_ends_and_not_after() {
        let (interrupts, interrupt) = counted();
        let ticket = Ticket::default();
        assert!(ticket.begin(Some(interrupt)));
        assert_eq!(ticket.cancel(), Left::TheInstance);
        let begun_at = Instant::now();
        while interrupts.load(Ordering::SeqCst) < 3 {
            assert!(begun_at.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(1));
        }
        ticket.end();
        let fired = interrupts.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(interrupts.load(Ordering::SeqCst), fired);
    }

    #[test]
    fn a_finished_run_is_not_interrupted() {
        let (interrupts, interrupt) = counted();
        let ticket = Ticket::default();
        assert!(ticket.begin(Some(interrupt)));
        ticket.end();
        assert_eq!(ticket.cancel(), Left::Nothing);
        assert_eq!(interrupts.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_request_whose_caller_left_is_not_begun() {
        let ticket = Ticket::default();
        assert_eq!(ticket.cancel(), Left::TheQueue);
        assert!(!ticket.begin(None));
    }
}
