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
    /// An instance works on it, or has done so.
    Riding(Run),
    Cancelled,
}

/// One run of an instance, for one request or several.
#[derive(Clone)]
pub(crate) struct Run(Arc<Mutex<Ride>>);

struct Ride {
    /// The requests it is done for; the instance counts as one while it lets them on.
    riders: usize,
    /// Stops this very run.
    interrupt: Option<Interrupt>,
    is_over: bool,
}

impl Ticket {
    /// Waiting → Riding, unless the caller has gone: then the instance must not begin it.
    pub(crate) fn board(&self, run: &Run) -> bool {
        let mut state = self.0.lock();
        let is_waiting = matches!(*state, State::Waiting);
        if is_waiting {
            run.0.lock().riders += 1;
            *state = State::Riding(run.clone());
        }
        is_waiting
    }

    /// Waiting | Riding → Cancelled, ending a run that nobody else rides in. Whether it was
    /// waiting, so that no instance will begin it.
    pub(crate) fn cancel(&self) -> bool {
        let state = std::mem::replace(&mut *self.0.lock(), State::Cancelled);
        if let State::Riding(run) = &state {
            run.leave();
        }
        matches!(state, State::Waiting)
    }
}

impl Run {
    /// A run that requests may board until it departs.
    pub(crate) fn new(interrupt: Option<Interrupt>) -> Self {
        Self(Arc::new(Mutex::new(Ride { riders: 1, interrupt, is_over: false })))
    }

    /// Lets no further request on; whether there is anybody to run for.
    pub(crate) fn depart(&self) -> bool {
        let mut ride = self.0.lock();
        ride.riders -= 1;
        ride.riders > 0
    }

    /// Says that the run is over. After this no interrupt of it can fire.
    pub(crate) fn end(&self) {
        self.0.lock().is_over = true;
    }

    /// Takes one request off, and interrupts the run when it was the last.
    fn leave(&self) {
        let mut ride = self.0.lock();
        ride.riders -= 1;
        if ride.riders > 0 || ride.is_over {
            return;
        }
        if let Some(interrupt) = ride.interrupt.clone() {
            // Called under the lock, so that it cannot reach the instance's next run.
            interrupt();
            self.clone().insist(interrupt);
        }
    }

    /// Interrupts the run again and again until it is over.
    ///
    /// An instance is at work for its requests a moment before its backend can be interrupted and
    /// a moment after; an interrupt that falls into the first would be lost. There is at most one
    /// such thread for each instance, and it lives as long as the rest of the run.
    fn insist(self, interrupt: Interrupt) {
        let thread = thread::Builder::new().name("interrupt".to_owned());
        let spawned = thread.spawn(move || {
            let (mut pause, longest) = PATIENCE;
            loop {
                thread::sleep(pause);
                let ride = self.0.lock();
                if ride.is_over {
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

    /// A run under way, with so many requests.
    fn ride<const N: usize>(interrupt: Interrupt) -> (Run, [Ticket; N]) {
        let run = Run::new(Some(interrupt));
        let tickets = [(); N].map(|()| Ticket::default());
        assert!(tickets.iter().all(|ticket| ticket.board(&run)));
        assert!(run.depart());
        (run, tickets)
    }

    #[test]
    fn a_run_is_interrupted_until_it_ends_and_not_after() {
        let (interrupts, interrupt) = counted();
        let (run, [ticket]) = ride(interrupt);
        assert!(!ticket.cancel());
        let begun_at = Instant::now();
        while interrupts.load(Ordering::SeqCst) < 3 {
            assert!(begun_at.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(1));
        }
        run.end();
        let fired = interrupts.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(interrupts.load(Ordering::SeqCst), fired);
    }

    #[test]
    fn a_finished_run_is_not_interrupted() {
        let (interrupts, interrupt) = counted();
        let (run, [ticket]) = ride(interrupt);
        run.end();
        assert!(!ticket.cancel());
        assert_eq!(interrupts.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_shared_run_goes_on_until_the_last_has_left() {
        let (interrupts, interrupt) = counted();
        let (run, [one, other]) = ride(interrupt);
        one.cancel();
        one.cancel();
        assert_eq!(interrupts.load(Ordering::SeqCst), 0);
        other.cancel();
        assert!(interrupts.load(Ordering::SeqCst) > 0);
        run.end();
    }

    #[test]
    fn a_request_whose_caller_left_is_not_begun() {
        let ticket = Ticket::default();
        assert!(ticket.cancel());
        let run = Run::new(None);
        assert!(!ticket.board(&run));
        assert!(!run.depart(), "nobody is left to run for");
    }
}
