//! When a backend that owns its loop took up a request, which ends the wait of the request.

use std::sync::Arc;
use std::time::Duration;

use consort_stage::Error;
use consort_telemetry::{Meter, PendingGuard, WorkSpan};
use parking_lot::Mutex;

/// The wait of one request, which counts as pending until it is admitted or its caller has gone.
#[derive(Debug)]
pub(super) struct Admission(Mutex<Wait>);

#[derive(Debug)]
enum Wait {
    Pending(PendingGuard, WorkSpan),
    Over(Duration),
}

impl Admission {
    /// A wait that begins now.
    pub(super) fn awaited(meter: &Arc<Meter>, span: WorkSpan) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Wait::Pending(meter.pending(), span))))
    }

    /// Pending → Over, of a request that was given up; what was over stays as it was.
    pub(super) fn give_up(&self) {
        let mut wait = self.0.lock();
        if let Wait::Pending(pending, _) = &*wait {
            *wait = Wait::Over(pending.waited());
        }
    }

    /// Says on the span of the wait why the instance has not even let the request wait.
    pub(super) fn refuse(&self, error: &Error) {
        if let Wait::Pending(_, span) = &mut *self.0.lock() {
            span.failed(error.code().name(), error.message());
        }
    }

    /// Pending → Over; what was over stays as it was.
    pub(super) fn happen(&self) {
        let mut wait = self.0.lock();
        if let Wait::Pending(pending, span) = &mut *wait {
            span.done();
            *wait = Wait::Over(pending.waited());
        }
    }

    /// How long the request has waited, or had when it was admitted.
    pub(super) fn waited(&self) -> Duration {
        match &*self.0.lock() {
            Wait::Pending(pending, _) => pending.waited(),
            Wait::Over(waited) => *waited,
        }
    }
}
