//! Who waits for the texts of a request: all of them go the same way back.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use consort_stage::{Context, Error, Job, Reply, Response};
use tracing::Span;

/// The caller of a request, which waits for one text or for several.
///
/// Only the loop's thread changes it; from others it is asked whether it has gone.
pub(crate) struct Caller {
    context: Context,
    /// `None` once the request has failed.
    reply: Mutex<Option<Reply>>,
    /// How many of its texts are not at their end.
    open: AtomicUsize,
    /// How many responses were promised room and have not come yet.
    promised: AtomicUsize,
}

impl Caller {
    /// The caller of a job for so many texts.
    pub(crate) fn new(job: Job, texts: usize) -> Self {
        Self {
            context: job.request.context,
            reply: Mutex::new(Some(job.reply)),
            open: AtomicUsize::new(texts),
            promised: AtomicUsize::new(0),
        }
    }

    /// Says that the request waits no longer.
    pub(crate) fn admit(&self) {
        self.with_reply(Reply::admit);
    }

    /// The span of the work for it, where a trace shows it.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.context.span.as_ref().filter(|span| !span.is_disabled())
    }

    /// Whether nobody waits any more, or not any longer.
    pub(crate) fn is_over(&self) -> bool {
        self.is_gone() || self.context.is_expired()
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.with_reply(Reply::is_gone).unwrap_or(true)
    }

    /// Promises room for one more response; whether there is any, beside what was promised.
    pub(crate) fn promise(&self) -> bool {
        let room = self.with_reply(Reply::room).unwrap_or(0);
        let has_room = room > self.promised.load(Relaxed);
        self.promised.fetch_add(usize::from(has_room), Relaxed);
        has_room
    }

    /// Takes a promise back: the response has come, or none will.
    pub(crate) fn release(&self) {
        self.promised.fetch_sub(1, Relaxed);
    }

    /// Gives the caller a response that room was promised for; `ends` says that it is the last of
    /// its text.
    pub(crate) fn give(&self, mut response: Response, ends: bool) {
        let left = self.open.load(Relaxed) - usize::from(ends);
        self.open.store(left, Relaxed);
        response.is_last = left == 0;
        // There is room, as was promised.
        self.with_reply(|reply| drop(reply.try_send(response)));
    }

    /// Ends every text with an error.
    pub(crate) fn fail(&self, error: Error) {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            reply.fail(error);
        }
    }

    /// Ends every text because nobody waits, or not any longer.
    pub(crate) fn retire(&self) {
        if self.context.is_expired() {
            self.fail(Error::deadline_exceeded());
        }
    }

    fn with_reply<T>(&self, ask: impl FnOnce(&Reply) -> T) -> Option<T> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ask)
    }
}
