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

use consort_middleware::Turns;
use hyper::rt::Executor;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// For so long the calls that came together are begun in their connection's task. Those after them
/// are tasks from the beginning, so that other threads can take them.
const LONGEST: Duration = Duration::from_micros(500);

/// What runs the calls of one connection; its clones belong to the same.
#[derive(Clone, Debug)]
pub(super) struct AtOnce {
    runtime: Handle,
    turns: Turns,
    turn: Arc<Mutex<Turn>>,
}

/// The turn of the connection's task in which calls were begun last.
#[derive(Debug)]
struct Turn {
    number: u32,
    begun_at: Instant,
    /// Whether the next call is to be a task.
    next_is_long: bool,
}

impl AtOnce {
    /// What runs calls on the runtime that this is called on, for a task with these turns.
    pub(super) fn new(turns: Turns) -> Self {
        let turn = Turn { number: turns.number(), begun_at: Instant::now(), next_is_long: false };
        Self { runtime: Handle::current(), turns, turn: Arc::new(Mutex::new(turn)) }
    }

    /// The next call may keep whoever looks at it for long, and is to be a task from the beginning.
    pub(super) fn next_is_long(&self) {
        self.turn.lock().next_is_long = true;
    }

    /// Whether the call that comes now is to be a task.
    fn is_task(&self) -> bool {
        let (now, number) = (Instant::now(), self.turns.number());
        let mut turn = self.turn.lock();
        if turn.number != number {
            (turn.number, turn.begun_at) = (number, now);
        }
        mem::take(&mut turn.next_is_long) || now - turn.begun_at > LONGEST
    }
}

impl<F> Executor<F> for AtOnce
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, call: F) {
        if self.is_task() {
            self.runtime.spawn(call);
        } else if begin(call, self.runtime.clone()) {
            self.turns.note_answer();
        }
    }
}

/// Looks at the call once, and whether it is over; if it has to wait, it becomes a task when it is
/// woken.
fn begin<F>(call: F, runtime: Handle) -> bool
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let begun = Arc::new(Begun { state: Mutex::new(State::Running), runtime });
    let waker = Waker::from(begun.clone());
    let mut call = Box::pin(call);
    let poll = || call.as_mut().poll(&mut Context::from_waker(&waker));
    // A panic ends the call, as it would end its task, and not the others of the connection.
    let Ok(Poll::Pending) = catch_unwind(AssertUnwindSafe(poll)) else { return true };
    let mut state = begun.state.lock();
    if matches!(*state, State::Woken) {
        drop(state);
        begun.runtime.spawn(Late::new(call));
    } else {
        *state = State::Waiting(call);
    }
    false
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
            self.runtime.spawn(Late::new(call));
        }
    }
}

/// A call that goes on as a task.
///
/// A waker may be called under a lock that the call needs when it is dropped: `h2` does so with those
/// of a connection that ends. A runtime that ends drops at once what is given to it, and so a call
/// that it has never looked at is left in memory, which the process gives back when it ends.
struct Late<F> {
    /// There until this is dropped.
    call: Option<Pin<Box<F>>>,
    is_looked_at: bool,
}

impl<F> Late<F> {
    fn new(call: Pin<Box<F>>) -> Self {
        Self { call: Some(call), is_looked_at: false }
    }
}

impl<F: Future> Future for Late<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.is_looked_at = true;
        self.call.as_mut().map_or(Poll::Pending, |call| call.as_mut().poll(context))
    }
}

impl<F> Drop for Late<F> {
    fn drop(&mut self) {
        if !self.is_looked_at {
            mem::forget(self.call.take());
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
        AtOnce::new(Turns::default()).execute(async move { done.send(()).unwrap() });
        assert!(is_done.try_recv().is_ok());
    }

    #[tokio::test]
    async fn what_waits_goes_on_as_a_task_of_its_own_whoever_wakes_it() {
        let (wake, woken) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        AtOnce::new(Turns::default()).execute(async move {
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
        AtOnce::new(Turns::default()).execute(async move {
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
        AtOnce::new(Turns::default()).execute(async move {
            let _held = held;
            panic!("on purpose");
        });
        assert!(is_dropped.await.is_err());
    }

    #[tokio::test]
    async fn calls_after_a_turn_that_took_long_and_long_ones_are_tasks() {
        let turns = Turns::default();
        let calls = AtOnce::new(turns.clone());
        let is_at_once = || {
            let (done, mut is_done) = oneshot::channel();
            calls.execute(async move { done.send(()).unwrap() });
            is_done.try_recv().is_ok()
        };
        turns.begin();
        calls.next_is_long();
        assert!(!is_at_once());
        calls.execute(async { thread::sleep(2 * LONGEST) });
        assert!(!is_at_once());
        turns.begin();
        assert!(is_at_once());
    }
}
