//! Looks once more at a connection that was woken while it was looked at.
//!
//! A call that is answered at once puts its answer on the connection and wakes it, while its task is
//! at it. The runtime would put that task behind the others and wake a second thread to take it, for
//! what has mostly been done by then.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

const IDLE: u8 = 0;
const LOOKING: u8 = 1;
const WOKEN: u8 = 2;

/// The waker of what one task looks at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Looks {
    /// Polls `future` in a turn of its task, and once more if it is woken meanwhile.
    pub(super) fn poll<F: Future>(
        self: &Arc<Self>,
        mut future: Pin<&mut F>,
        context: &Context<'_>,
    ) -> Poll<F::Output> {
        self.task.register(context.waker());
        let waker = Waker::from(self.clone());
        for _ in 0..2 {
            self.state.store(LOOKING, SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            let was_woken = self.state.swap(IDLE, SeqCst) == WOKEN;
            if polled.is_ready() || !was_woken {
                return polled;
            }
        }
        // It is woken again and again: the others come first.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted = self.state.compare_exchange(LOOKING, WOKEN, SeqCst, SeqCst);
        if noted == Err(IDLE) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use consort_testkit::Wakes;

    use super::*;

    /// How often a future that wakes itself so often is looked at in one turn, and its task woken.
    fn looked_at(self_wakes: usize) -> (usize, usize, Poll<()>) {
        let (looks, wakes) = (Arc::<Looks>::default(), Arc::<Wakes>::default());
        let mut count = 0;
        let polled = {
            let future = poll_fn(|context| {
                count += 1;
                if count <= self_wakes {
                    context.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            });
            let waker = Waker::from(wakes.clone());
            looks.poll(pin!(future), &Context::from_waker(&waker))
        };
        (count, wakes.count(), polled)
    }

    #[test]
    fn what_wakes_itself_is_looked_at_once_more_without_its_task() {
        assert_eq!(looked_at(0), (1, 0, Poll::Pending));
        assert_eq!(looked_at(1), (2, 0, Poll::Pending));
        assert_eq!(looked_at(9), (2, 1, Poll::Pending));
    }

    #[test]
    fn who_wakes_it_between_two_turns_wakes_its_task() {
        let (looks, wakes) = (Arc::<Looks>::default(), Arc::<Wakes>::default());
        let mut kept = None;
        let future = poll_fn(|context| {
            kept = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        let task = Waker::from(wakes.clone());
        assert!(looks.poll(pin!(future), &Context::from_waker(&task)).is_pending());
        assert_eq!(wakes.count(), 0);
        kept.unwrap().wake();
        assert_eq!(wakes.count(), 1);
    }
}
