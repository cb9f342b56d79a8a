//! One instance on its thread: runs the rows of its sequences and keeps what they keep.

use consort_stage::{BatchBackend, Error, Request, Response, Result, SequencePlace};
use tokio::sync::oneshot;

use super::exchange::Row;
use super::rows::{Rows, Said};
use super::shared::{Batch, Queued, Shared};
use super::states::Values;
use crate::assembly::Layout;
use crate::worker::{Done, Wait, Worker, for_each_caller};

/// A backend with its place among the instances of its model.
pub(super) struct Instance {
    index: usize,
    worker: Worker,
    layout: Layout,
}

/// What is kept of a request while the batch has its tensors.
struct Caller {
    reply: oneshot::Sender<Result<Response>>,
    said: Said,
    wait: Wait,
}

impl Instance {
    pub(super) fn new(index: usize, backend: Box<dyn BatchBackend>, layout: Layout) -> Self {
        Self { index, worker: Worker::new(backend), layout }
    }

    /// Works until the stage is closed and nothing waits.
    pub(super) fn work(mut self, shared: &Shared) {
        while let Some((batch, run)) = shared.next(self.index, self.worker.interrupt.clone()) {
            run.depart();
            // What an instance waits for, its requests wait for.
            let prepared = self.worker.prepare(&shared.counting);
            let (callers, requests) = dress(&shared.rows, batch);
            let inferences = callers.iter().flatten().count() as u64;
            let done = prepared.and_then(|_held| {
                self.worker.run(requests, inferences, &self.layout, &shared.counting)
            });
            run.end();
            self.settle(shared, callers, done);
        }
    }

    /// Keeps the states of a run that went well and answers everybody.
    fn settle(&self, shared: &Shared, callers: Vec<Option<Caller>>, done: Result<Done>) {
        let count = callers.len();
        let mut done = match done {
            Ok(done) => done,
            Err(error) => {
                shared.finish(self.index, vec![None; count]);
                return fail(callers, error);
            }
        };
        let waits = callers.iter().flatten().map(|caller| &caller.wait);
        let inferences = waits.clone().count() as u64;
        done.count(waits, inferences, &self.layout, &shared.counting);
        let mut kept = vec![None; count];
        let mut answers = Vec::with_capacity(count);
        let rows = callers.into_iter().zip(std::mem::take(&mut done.outputs));
        for ((caller, mut outputs), kept) in rows.zip(&mut kept) {
            // What a silent row gave is nobody's.
            let Some(Caller { reply, said, .. }) = caller else { continue };
            let state = shared.rows.states.take(&mut outputs);
            let answer = state.map(|state| {
                *kept = state;
                said.respond(outputs)
            });
            answers.push((reply, answer));
        }
        shared.finish(self.index, kept);
        for (reply, answer) in answers {
            // A caller that has gone does not want it.
            drop(reply.send(answer));
        }
    }
}

/// The rows as the backend sees them, and who waits for each.
fn dress(rows: &Rows, batch: Batch) -> (Vec<Option<Caller>>, Vec<Request>) {
    let dressed: Vec<_> =
        batch.into_iter().map(|row| row.map(|row| dress_row(rows, row))).collect();
    let first = dressed.iter().flatten().map(|(_, request)| request).next();
    let is_full = dressed.iter().all(Option::is_some);
    let blank = first.filter(|_| !is_full).map(|first| rows.blank(first)).unwrap_or_default();
    let each = |row: Option<(Caller, Request)>| match row {
        Some((caller, request)) => (Some(caller), request),
        None => (None, blank.clone()),
    };
    dressed.into_iter().map(each).unzip()
}

fn dress_row(rows: &Rows, row: Row<Queued, Values>) -> (Caller, Request) {
    let Row { id, request, is_start, is_end, kept } = row;
    let place = SequencePlace { id, is_start, is_end };
    let (request, waited, reply) = request.depart();
    let wait = Wait { waited, spent: request.context.spent.clone() };
    let caller = Caller { reply, said: Rows::said(&place), wait };
    (caller, rows.dress(request, &place, kept))
}

/// Gives all of them the error.
fn fail(callers: Vec<Option<Caller>>, error: Error) {
    let callers = callers.into_iter().flatten();
    for (Caller { reply, .. }, error) in callers.zip(for_each_caller(error)) {
        drop(reply.send(Err(error)));
    }
}
