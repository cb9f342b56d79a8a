//! What ties a queued or running request to its caller, so that either can end it.

use std::sync::Arc;

use consort_stage::Interrupt;
use parking_lot::Mutex;

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

    /// Running → Done. After this no interrupt of the run can fire.
    pub(crate) fn end(&self) {
        *self.0.lock() = State::Done;
    }

    /// Whether the caller has gone.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(*self.0.lock(), State::Cancelled)
    }

    /// Waiting | Running → Cancelled, interrupting the run; what is done stays done.
    fn cancel(&self) {
        let mut state = self.0.lock();
        match &*state {
            State::Done | State::Cancelled => return,
            State::Waiting | State::Running(None) => {}
            // Called under the lock, so that it cannot reach the instance's next run.
            State::Running(Some(interrupt)) => interrupt(),
        }
        *state = State::Cancelled;
    }
}

/// The caller's half; dropping it before the end cancels the request.
pub(crate) struct CallerGuard(pub(crate) Ticket);

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_caller_that_leaves_interrupts_only_its_own_run() {
        let interrupts = Arc::new(AtomicUsize::new(0));
        let interrupt: Interrupt = {
            let interrupts = interrupts.clone();
            Arc::new(move || {
                interrupts.fetch_add(1, Ordering::SeqCst);
            })
        };
        let running = Ticket::default();
        assert!(running.begin(Some(interrupt.clone())));
        drop(CallerGuard(running));
        assert_eq!(interrupts.load(Ordering::SeqCst), 1);

        let finished = Ticket::default();
        assert!(finished.begin(Some(interrupt)));
        finished.end();
        drop(CallerGuard(finished));
        assert_eq!(interrupts.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_request_whose_caller_left_is_not_begun() {
        let ticket = Ticket::default();
        drop(CallerGuard(ticket.clone()));
        assert!(!ticket.begin(None));
    }
}
