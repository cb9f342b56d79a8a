//! Wakes the tasks of calls once their connection has been read, not while it is.
//!
//! `h2` tells the task of a call that an answer has come for it while it holds the lock of all the
//! connection's streams. Whoever is woken on another thread at once asks for that lock, and both
//! threads wait for each other in turn: with one answer after another in what has been read, twice
//! for each of them.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

thread_local! {
    /// Those to be woken after the connection that is being polled on this thread.
    static WOKEN: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// Polls a connection, and wakes whom it wakes when it is over.
pub(crate) fn polling<T>(poll: impl FnOnce() -> T) -> T {
    let _after = After(WOKEN.replace(Some(Vec::new())));
    poll()
}

/// Wakes them when dropped, also after a panic; keeps what was there before.
struct After(Option<Vec<Waker>>);

impl Drop for After {
    fn drop(&mut self) {
        let woken = WOKEN.replace(self.0.take());
        woken.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The waker of one call's task that is put off, kept while the task is the same.
#[derive(Debug, Default)]
pub(crate) struct PutOff(Option<(Waker, Waker)>);

impl PutOff {
    /// The same context with that waker.
    pub(crate) fn context(&mut self, context: &Context<'_>) -> Context<'_> {
        let own = context.waker();
        let is_same = self.0.as_ref().is_some_and(|(kept, _)| kept.will_wake(own));
        if !is_same {
            self.0 = None;
        }
        let make = || (own.clone(), Waker::from(Arc::new(Task(own.clone()))));
        Context::from_waker(&self.0.get_or_insert_with(make).1)
    }
}

/// A task that is woken after the connection.
struct Task(Waker);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let put_off = WOKEN.try_with(|woken| {
            let mut woken = woken.borrow_mut();
            woken.as_mut().map(|woken| woken.push(self.0.clone())).is_some()
        });
        if !put_off.unwrap_or(false) {
            self.0.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use consort_testkit::Wakes;

    use super::*;

    #[test]
    fn who_is_woken_while_the_connection_is_polled_is_woken_after_it() {
        let wakes = Arc::new(Wakes::default());
        let own = Waker::from(wakes.clone());
        let mut put_off = PutOff::default();
        let waker = put_off.context(&Context::from_waker(&own)).waker().clone();
        waker.wake_by_ref();
        assert_eq!(wakes.count(), 1, "nothing is polled");
        polling(|| {
            waker.wake_by_ref();
            polling(|| waker.wake_by_ref());
            assert_eq!(wakes.count(), 2, "the inner one is over");
        });
        assert_eq!(wakes.count(), 3);
        let panicked = std::panic::catch_unwind(|| {
            polling(|| {
                waker.wake_by_ref();
                panic!("it broke");
            });
        });
        assert!(panicked.is_err());
        assert_eq!(wakes.count(), 4);
        waker.wake();
        assert_eq!(wakes.count(), 5);
    }

    #[test]
    fn a_call_that_changes_its_task_wakes_the_new_one() {
        let both = [Arc::new(Wakes::default()), Arc::new(Wakes::default())];
        let mut put_off = PutOff::default();
        for wakes in &both {
            let own = Waker::from(wakes.clone());
            for _ in 0..2 {
                put_off.context(&Context::from_waker(&own)).waker().wake_by_ref();
            }
        }
        assert_eq!(both.map(|wakes| wakes.count()), [2, 2]);
    }
}
