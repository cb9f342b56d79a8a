//! Watches what becomes of the calls of a stage.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use consort_stage::{Request, Response, Responses, Result, Stage};
use futures::{Stream, StreamExt};

/// What became of the calls of a stage; clones watch the same.
#[derive(Clone, Debug, Default)]
pub struct Probe(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    answers: AtomicUsize,
    ended: AtomicUsize,
    cancelled: AtomicUsize,
    most_running: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

impl Probe {
    /// A probe and `inner` under its watch.
    pub fn on(inner: Arc<dyn Stage>) -> (Self, Arc<dyn Stage>) {
        let probe = Self::default();
        (probe.clone(), Arc::new(Watched { probe, inner }))
    }

    /// How many calls were polled at least once.
    pub fn begun(&self) -> usize {
        self.0.begun.load(SeqCst)
    }

    /// How many responses the calls have given.
    pub fn answers(&self) -> usize {
        self.0.answers.load(SeqCst)
    }

    /// How many calls ended by themselves.
    pub fn ended(&self) -> usize {
        self.0.ended.load(SeqCst)
    }

    /// How many calls were dropped after they began and before they ended.
    pub fn cancelled(&self) -> usize {
        self.0.cancelled.load(SeqCst)
    }

    /// How many calls are under way.
    pub fn running(&self) -> usize {
        self.begun() - self.ended() - self.cancelled()
    }

    /// The most calls that were under way at once.
    pub fn most_running(&self) -> usize {
        self.0.most_running.load(SeqCst)
    }

    /// Every request that came, in the order of their coming.
    pub fn requests(&self) -> Vec<Request> {
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Watched {
    probe: Probe,
    inner: Arc<dyn Stage>,
}

impl Stage for Watched {
    fn call(&self, request: Request) -> Responses {
        let counts = &self.probe.0;
        counts.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        Box::pin(Call {
            responses: self.inner.call(request),
            probe: self.probe.clone(),
            state: State::Made,
        })
    }
}

#[derive(PartialEq)]
enum State {
    Made,
    Begun,
    Ended,
}

struct Call {
    responses: Responses,
    probe: Probe,
    state: State,
}

impl Stream for Call {
    type Item = Result<Response>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.state == State::Made {
            self.state = State::Begun;
            self.probe.0.begun.fetch_add(1, SeqCst);
            self.probe.0.most_running.fetch_max(self.probe.running(), SeqCst);
        }
        let item = ready!(self.responses.poll_next_unpin(context));
        match &item {
            Some(Ok(_)) => drop(self.probe.0.answers.fetch_add(1, SeqCst)),
            Some(Err(_)) | None if self.state == State::Begun => {
                self.state = State::Ended;
                self.probe.0.ended.fetch_add(1, SeqCst);
            }
            Some(Err(_)) | None => {}
        }
        Poll::Ready(item)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.state == State::Begun {
            self.probe.0.cancelled.fetch_add(1, SeqCst);
        }
    }
}
