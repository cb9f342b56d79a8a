//! Begins each call in the task of its connection, and makes a task of it when it is woken.
//!
//! A task for each call would wake a second thread to take it, for what is often done at once: a text
//! of a few words is tokenized in less time than a thread needs to wake up. A call that has to wait
//! need not be looked at again before it is woken either.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// For so long the calls that came together are begun in their connection's task. Those after them
/// are tasks from the beginning, so that other threads can take them.
const TURN: Duration = Duration::from_micros(500);

/// What runs the calls of one connection; its clones belong to the same.
#[derive(Clone, Debug)]
pub(super) struct AtOnce {
    runtime: Handle,
    /// When the first call of this turn was begun.
    begun_at: Arc<Mutex<Option<Instant>>>,
}

impl AtOnce {
    /// What runs calls on the runtime that this is called on.
    pub(super) fn new() -> Self {
        Self { runtime: Handle::current(), begun_at: Arc::default() }
    }

    /// The connection's task looks at what has come.
    pub(super) fn begin_turn(&self) {
        *self.begun_at.lock() = None;
    }

    fn is_turn_over(&self) -> bool {
        let now = Instant::now();
        let begun_at = *self.begun_at.lock().get_or_insert(now);
        now - begun_at > TURN
    }
}

impl<F> Executor<F> for AtOnce
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, call: F) {
        if self.is_turn_over() {
            self.runtime.spawn(call);
        } else {
            begin(call, self.runtime.clone());
        }
    }
}

/// Looks at the call once; if it has to wait, it becomes a task when it is woken.
fn begin<F>(call: F, runtime: Handle)
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let begun = Arc::new(Begun { state: Mutex::new(State::Running), runtime });
    let waker = Waker::from(begun.clone());
    let mut call = Box::pin(call);
    let poll = || call.as_mut().poll(&mut Context::from_waker(&waker));
    // A panic ends the call, as it would end its task, and not the others of the connection.
    let Ok(Poll::Pending) = catch_unwind(AssertUnwindSafe(poll)) else { return };
    let mut state = begun.state.lock();
    if matches!(*state, State::Woken) {
        drop(state);
        begun.runtime.spawn(call);
    } else {
        *state = State::Waiting(call);
    }
}

/// The waker of a call that is not a task yet.
struct Begun<F> {
    state: Mutex<State<F>>,
    runtime: Handle,
}

enum State<F> {
    /// It is being looked at for the first time.
    Running,
    /// It has to wait.
    Waiting(Pin<Box<F>>),
    /// It is a task or about to become one, or it is over.
    Woken,
}

impl<F> Wake for Begun<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let state = mem::replace(&mut *self.state.lock(), State::Woken);
        if let State::Waiting(call) = state {
            self.runtime.spawn(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::thread;

    use tokio::sync::oneshot;
    use tokio::task::try_id;

    use super::*;

    #[tokio::test]
    async fn what_need_not_wait_is_over_at_once() {
        let (done, mut is_done) = oneshot::channel();
        AtOnce::new().execute(async move { done.send(()).unwrap() });
        assert!(is_done.try_recv().is_ok());
    }

    #[tokio::test]
    async fn what_waits_goes_on_as_a_task_of_its_own_whoever_wakes_it() {
        let (wake, woken) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        AtOnce::new().execute(async move {
            woken.await.unwrap();
            done.send(try_id()).unwrap();
        });
        thread::spawn(move || wake.send(()).unwrap()).join().unwrap();
        assert!(is_done.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_woken_while_it_is_begun_goes_on() {
        let (done, is_done) = oneshot::channel();
        let mut looks = 0;
        AtOnce::new().execute(async move {
            let twice = poll_fn(|context| {
                looks += 1;
                context.waker().wake_by_ref();
                if looks < 3 { Poll::Pending } else { Poll::Ready(looks) }
            });
            done.send(twice.await).unwrap();
        });
        assert_eq!(is_done.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_panic_ends_its_call_alone() {
        let (held, is_dropped) = oneshot::channel::<()>();
        AtOnce::new().execute(async move {
            let _held = held;
            panic!("on purpose");
        });
        assert!(is_dropped.await.is_err());
    }

    #[tokio::test]
    async fn calls_after_a_turn_that_took_long_are_tasks() {
        let calls = AtOnce::new();
        let is_at_once = || {
            let (done, mut is_done) = oneshot::channel();
            calls.execute(async move { done.send(()).unwrap() });
            is_done.try_recv().is_ok()
        };
        calls.begin_turn();
        calls.execute(async { thread::sleep(2 * TURN) });
        assert!(!is_at_once());
        calls.begin_turn();
        assert!(is_at_once());
    }
}
