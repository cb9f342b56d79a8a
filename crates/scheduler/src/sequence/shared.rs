//! What callers and instances share: the sequences behind a lock, and who waits for what.

use std::sync::Arc;
use std::time::Instant;

use consort_stage::{Code, CorrelationId, Error, Interrupt, Request, Response, Result};
use consort_telemetry::{PendingGuard, WorkSpan};
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::controls::shown;
use super::core::{Core, Policy};
use super::exchange::{Arrival, Decision, Key, Lapse, Refusal, Row};
use super::line::Kept;
use super::rows::Rows;
use super::states::Values;
use crate::Counting;
use crate::queue::{full, stopping};
use crate::ticket::{Run, Ticket};

/// A request that waits for its turn.
pub(super) struct Queued {
    pub(super) request: Request,
    ticket: Ticket,
    pub(super) reply: oneshot::Sender<Result<Response>>,
    pub(super) pending: PendingGuard,
    /// The span of the wait.
    span: WorkSpan,
}

/// The sequences of a model, and what callers and instances need beside them.
pub(super) struct Shared {
    core: Mutex<Core<Queued, Values>>,
    /// Where each instance waits for something to decide.
    arrived: RwLock<Vec<Arc<Condvar>>>,
    has_instances: bool,
    pub(super) rows: Rows,
    pub(super) counting: Counting,
}

/// A batch of rows; `None` where a slot has no request.
pub(super) type Batch = Vec<Option<Row<Queued, Values>>>;

impl Shared {
    pub(super) fn new(policy: Policy, rows: Rows, counting: Counting) -> Self {
        let arrived = (0..policy.instances).map(|_| Arc::default()).collect();
        Self {
            has_instances: policy.instances > 0,
            core: Mutex::new(Core::new(policy)),
            arrived: RwLock::new(arrived),
            rows,
            counting,
        }
    }

    /// Adds so many instances, gives their numbers, and retires others.
    pub(super) fn change(&self, added: usize, retired: &[usize]) -> Vec<usize> {
        self.settle(self.core.lock(), |core| {
            let numbers: Vec<_> = (0..added).map(|_| core.add_lane()).collect();
            let mut arrived = self.arrived.write();
            let count = numbers.iter().map(|number| number + 1).max().unwrap_or(0);
            let count = count.max(arrived.len());
            arrived.resize_with(count, Arc::default);
            drop(arrived);
            for lane in retired {
                core.retire(*lane);
            }
            numbers
        })
    }

    /// Answers a request once its turn has come.
    pub(super) async fn submit(&self, request: Request) -> Result<Response> {
        if !self.has_instances {
            return Err(Error::unavailable("the model has no instance"));
        }
        let place = self.rows.place(&request)?;
        let times_out_at =
            request.queue_timeout().and_then(|timeout| Instant::now().checked_add(timeout));
        let (reply, mut answer) = oneshot::channel();
        let ticket = Ticket::default();
        let form = self.rows.form(&request);
        let deadline = request.context.deadline;
        let request = self.queued(request, ticket.clone(), reply);
        let arrival = Arrival { place, request, form, times_out_at, deadline };
        let key = self.admit(arrival)?;
        let caller = Caller { shared: self, key, ticket };
        let answer = match times_out_at {
            None => answer.await,
            Some(at) => tokio::select! {
                biased;
                answer = &mut answer => answer,
                () = sleep_until(at.into()) => {
                    self.settle(self.core.lock(), |core| core.expire(Instant::now()));
                    answer.await
                }
            },
        };
        drop(caller);
        answer.unwrap_or_else(|_| Err(Error::internal("the instance gave no answer")))
    }

    fn queued(
        &self,
        request: Request,
        ticket: Ticket,
        reply: oneshot::Sender<Result<Response>>,
    ) -> Queued {
        let pending = self.counting.meter.pending();
        let span = self.counting.queue_span(&request.context);
        Queued { request, ticket, reply, pending, span }
    }

    fn admit(&self, arrival: Arrival<Queued>) -> Result<Key> {
        let id = arrival.place.id.clone();
        let admitted = self.settle(self.core.lock(), |core| core.submit(arrival, Instant::now()));
        let admitted = admitted.map_err(|refused| {
            let (refusal, mut request) = *refused;
            let error = self.refused(refusal, &id);
            request.span.failed(error.code().name(), error.message());
            error
        })?;
        if admitted.cuts_off {
            tracing::warn!(
                model = &*self.counting.model,
                "sequence {} had not ended when it was started again; it is cut off",
                shown(&id)
            );
        }
        Ok(admitted.key)
    }

    /// The texts are Triton's.
    fn refused(&self, refusal: Refusal, id: &CorrelationId) -> Error {
        match refusal {
            Refusal::Full => full(),
            Refusal::Closed => stopping(),
            Refusal::NotStarted => Error::invalid(format!(
                "inference request for sequence {} to model '{}' must specify the START flag on \
                 the first request of the sequence",
                shown(id),
                self.counting.model
            )),
        }
    }

    /// What the instance `lane` runs next, waiting for it; `None` when nothing will come.
    ///
    /// Its requests have boarded `run` when their callers can no longer take them out of line.
    pub(super) fn next(&self, lane: usize, interrupt: Option<Interrupt>) -> Option<(Batch, Run)> {
        let arrived = self.arrived.read().get(lane).cloned()?;
        let mut core = self.core.lock();
        loop {
            let decision = core.decide(lane, Instant::now());
            if let Decision::Run(rows) = decision {
                let run = Run::new(interrupt);
                for row in rows.iter().flatten() {
                    row.request.ticket.board(&run);
                }
                self.settle(core, |_| ());
                return Some((rows, run));
            }
            let lapsed = self.wake(&mut core);
            if !lapsed.is_empty() {
                MutexGuard::unlocked(&mut core, || answer_lapsed(lapsed));
                continue;
            }
            match decision {
                Decision::Wait(Some(until)) => {
                    arrived.wait_until(&mut core, until);
                }
                Decision::Wait(None) => arrived.wait(&mut core),
                _ => return None,
            }
        }
    }

    /// Notes that what the instance `lane` ran is over.
    pub(super) fn finish(&self, lane: usize, kept: Vec<Option<Kept<Values>>>) {
        self.settle(self.core.lock(), |core| core.finish(lane, kept, Instant::now()));
    }

    /// Takes in nothing any more and lets what waits run.
    pub(super) fn close(&self, now: Instant) {
        self.settle(self.core.lock(), |core| core.close(now));
    }

    /// Does something to the sequences and tells everybody whom it concerns.
    fn settle<T>(
        &self,
        mut core: MutexGuard<'_, Core<Queued, Values>>,
        change: impl FnOnce(&mut Core<Queued, Values>) -> T,
    ) -> T {
        let changed = change(&mut core);
        let lapsed = self.wake(&mut core);
        drop(core);
        answer_lapsed(lapsed);
        changed
    }

    /// Wakes the instances that have something to decide; gives the requests that will not run.
    fn wake(&self, core: &mut Core<Queued, Values>) -> Vec<(Queued, Lapse)> {
        let arrived = self.arrived.read();
        for condvar in core.take_woken().into_iter().filter_map(|lane| arrived.get(lane)) {
            condvar.notify_one();
        }
        core.take_lapsed()
    }
}

impl Queued {
    /// Leaves the queue: how long it waited there and where its answer goes.
    pub(super) fn depart(
        mut self,
    ) -> (Request, std::time::Duration, oneshot::Sender<Result<Response>>) {
        self.span.done();
        (self.request, self.pending.waited(), self.reply)
    }
}

fn answer_lapsed(lapsed: Vec<(Queued, Lapse)>) {
    for (mut queued, lapse) in lapsed {
        let error = match lapse {
            Lapse::Deadline => Error::deadline_exceeded(),
            Lapse::NoSlot => Error::new(
                Code::Overloaded,
                "timeout of the corresponding sequence has been expired",
            ),
        };
        queued.span.failed(error.code().name(), error.message());
        // A caller that has gone does not want it.
        drop(queued.reply.send(Err(error)));
    }
}

/// Who waits for a queued or running request; dropping it before the end cancels the request.
struct Caller<'a> {
    shared: &'a Shared,
    key: Key,
    ticket: Ticket,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        let left = self.shared.settle(self.shared.core.lock(), |core| core.cancel(&self.key));
        // What is no longer in line has boarded its run, under the same lock.
        if left.is_none() {
            self.ticket.cancel();
        }
    }
}
