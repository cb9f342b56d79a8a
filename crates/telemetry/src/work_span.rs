//! The span of work that may be cut off, which says so when that is because its time is over.

use std::time::{Duration, Instant};

use tracing::Span;

use crate::span::failed;

/// What a request is told whose time is over, as every service says it.
const TOO_LATE: (&str, &str) = ("deadline_exceeded", "request deadline exceeded");

/// Whoever asks for work ends it at its own deadline, which comes a little before the one here: by
/// the time that the request took to get here.
const MARGIN: Duration = Duration::from_millis(20);

/// The span of work that ends when this is dropped, wherever it is by then.
#[derive(Debug)]
pub struct WorkSpan {
    /// `None` once it is known how the work ended, and without an exporter.
    span: Option<Span>,
    ends_at: Option<Instant>,
}

impl WorkSpan {
    /// The span of work that is to be over at `ends_at`.
    pub fn new(span: Option<Span>, ends_at: Option<Instant>) -> Self {
        Self { span: span.filter(|span| !span.is_disabled()), ends_at }
    }

    /// Notes that the work was done.
    pub fn done(&mut self) {
        self.span = None;
    }

    /// Notes that it failed: the kind of the failure and what the caller is told.
    pub fn failed(&mut self, error_type: &'static str, message: &str) {
        if let Some(span) = self.span.take() {
            failed(&span, error_type, message);
        }
    }
}

impl Drop for WorkSpan {
    /// Work that is cut off has failed when its time is over; else its caller wants it no longer.
    fn drop(&mut self) {
        let is_over = |ends_at: Instant| ends_at <= Instant::now() + MARGIN;
        if self.span.is_some() && self.ends_at.is_some_and(is_over) {
            let (error_type, message) = TOO_LATE;
            self.failed(error_type, message);
        }
    }
}
