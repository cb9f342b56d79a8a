//! The contracts between Consort and a backend: what a backend is given and what it owes.
//!
//! A backend sees tensors and nothing else: no runtime, no wire, no configuration file, no metric.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{Error, Parameters, Request, Response, Responses, Result, Tensor};

/// Stops the work that an instance is doing right now, from any thread.
pub type Interrupt = Arc<dyn Fn() + Send + Sync>;

/// What a run holds and gives back when this is dropped.
pub type Held = Box<dyn Any + Send>;

/// The work of one execution: one request, or several concatenated along the batch dimension.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The inputs, checked against the model's signature.
    pub inputs: Vec<Tensor>,
    /// The outputs that somebody wants; empty means all.
    pub outputs: Vec<Arc<str>>,
    /// The parameters of the request, when the batch is one request.
    pub parameters: Parameters,
}

impl Batch {
    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|tensor| &*tensor.name == name)
    }

    /// Whether the output with this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.outputs.is_empty() || self.outputs.iter().any(|output| &**output == name)
    }
}

impl From<Request> for Batch {
    fn from(request: Request) -> Self {
        Self { inputs: request.inputs, outputs: request.outputs, parameters: request.parameters }
    }
}

/// A backend that answers a batch with a batch; one OS thread owns each instance.
pub trait BatchBackend: Send {
    /// Waits for what a [`run`](Self::run) needs besides the instance's thread, and gives what is to
    /// be held until it is over. The time counts as its requests' wait.
    ///
    /// It can be interrupted as a run can. After an error there is no run.
    fn prepare(&mut self) -> Result<Option<Held>> {
        Ok(None)
    }

    /// Runs one batch. Outputs have the batch dimension of the inputs when the model batches.
    ///
    /// A panic fails this run; the next one starts afresh.
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>>;

    /// Whether a request comes out of a shared run as it does alone, so that requests may share
    /// runs although the configuration does not ask for it.
    fn keeps_requests_apart(&self) -> bool {
        true
    }

    /// Whether an instance with more threads would run one request sooner, so that it is worth
    /// having one with the threads of all the others besides, and opening one anew when its share of
    /// the cores is another.
    fn gains_from_threads(&self) -> bool {
        false
    }

    /// What runs small requests where they are called, without any instance; `None` where even
    /// those take longer than a change of thread, or need a [`prepare`](Self::prepare).
    fn brief(&self) -> Option<Brief> {
        None
    }

    /// What stops a running [`run`](Self::run) from another thread, when the backend can.
    ///
    /// An interrupted run gives an error; the next run starts afresh. An interrupt may come
    /// several times, and a moment before or after the run, where it must do nothing.
    fn interrupt(&self) -> Option<Interrupt> {
        None
    }
}

/// A backend whose work is about as long as parsing its tensors, so it runs where it is called.
///
/// It has no instance, no queue and no thread of its own.
pub trait InlineBackend: Send + Sync {
    /// Runs one batch on the caller's task.
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>>;
}

/// What a [`BatchBackend`] has for requests that are so small that handing them to a thread and
/// back takes about as long as their work.
pub struct Brief {
    /// The most bytes of input of such a request.
    pub bytes: usize,
    /// Runs it as any instance would.
    pub backend: Arc<dyn InlineBackend>,
}

/// A backend that owns its loop: it takes requests as they come and answers each many times.
pub trait StreamingBackend: Send {
    /// Works until [`Jobs`] is closed and everything admitted is answered. Owns its thread.
    ///
    /// It is called once for every warm-up request and then once for all others, never at the same
    /// time. After a panic it is called again with new jobs: what it kept of the run before, replies
    /// above all, is to be failed and forgotten then.
    fn run(&mut self, jobs: Jobs);

    /// Whether an instance with more threads would answer sooner, so that it is worth opening one
    /// anew when its share of the cores is another.
    fn gains_from_threads(&self) -> bool {
        false
    }

    /// What is called, from any thread, whenever a caller has gone, so that the backend can stop
    /// work that nobody waits for any more, when it can.
    ///
    /// It must be quick, and do nothing where somebody waits: it may be called at any time.
    fn interrupt(&self) -> Option<Interrupt> {
        None
    }
}

/// One request to a streaming backend and the way back to its caller.
#[derive(Debug)]
pub struct Job {
    /// What is asked, checked against the model's signature.
    pub request: Request,
    /// Where the responses go.
    pub reply: Reply,
}

/// The way back to the caller of a [`Job`]; dropping it ends the responses.
pub struct Reply {
    sender: mpsc::Sender<Result<Response>>,
    on_admission: Option<OnAdmission>,
}

/// What is told that a request waits no longer, from the backend's thread.
pub type OnAdmission = Box<dyn Fn() + Send + Sync>;

/// The place in every reply's queue that only its final error may take.
const RESERVED: usize = 1;

impl Reply {
    /// A reply that holds up to `capacity` responses its caller has not read, and those responses.
    ///
    /// Dropping the responses tells the backend that its caller has gone.
    pub fn channel(capacity: usize) -> (Self, Responses) {
        let (sender, mut receiver) = mpsc::channel(capacity + RESERVED);
        let responses = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        (Self { sender, on_admission: None }, Box::pin(responses))
    }

    /// The same, which tells when the backend admits the request.
    #[must_use]
    pub fn telling(mut self, on_admission: OnAdmission) -> Self {
        self.on_admission = Some(on_admission);
        self
    }

    /// Says that the request waits no longer: what it takes from now on is work. One that is never
    /// said to be admitted counts as waiting until its first response.
    pub fn admit(&self) {
        if let Some(tell) = &self.on_admission {
            tell();
        }
    }

    /// Whether the caller has gone, so that nothing need be done for it any more.
    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the caller has not yet read what it was given, so that more must wait.
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// How many responses can be sent before the caller reads one.
    pub fn room(&self) -> usize {
        self.sender.capacity().saturating_sub(RESERVED)
    }

    /// Sends a response without waiting.
    ///
    /// Gives the response back when the caller reads too slowly; to one that has gone, it is lost.
    pub fn try_send(&self, response: Response) -> Result<(), Response> {
        if !self.is_gone() && self.is_full() {
            return Err(response);
        }
        drop(self.sender.try_send(Ok(response)));
        Ok(())
    }

    /// Ends the responses with an error, for which there is always room.
    pub fn fail(self, error: Error) {
        drop(self.sender.try_send(Err(error)));
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reply").field("sender", &self.sender).finish_non_exhaustive()
    }
}

impl Drop for Reply {
    /// A loop that breaks down tells its callers so, where they would take the end for the whole.
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.sender.try_send(Err(Error::internal(
                "the backend broke down on this request; see the server's log",
            ))));
        }
    }
}

/// No request will come any more: the model is being unloaded or the service stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobsClosed;

/// The requests that come to a streaming backend, in order of arrival.
#[derive(Debug)]
pub struct Jobs(mpsc::Receiver<Job>);

impl Jobs {
    /// A bounded queue of jobs and its sending end.
    pub fn channel(capacity: usize) -> (mpsc::Sender<Job>, Self) {
        let (sender, receiver) = mpsc::channel(capacity);
        (sender, Self(receiver))
    }

    /// The next request, waiting for it; `Err` when none will come any more.
    pub fn wait(&mut self) -> Result<Job, JobsClosed> {
        self.0.blocking_recv().ok_or(JobsClosed)
    }

    /// The next request if one is there; `Err` when none will come any more.
    pub fn poll(&mut self) -> Result<Option<Job>, JobsClosed> {
        match self.0.try_recv() {
            Ok(job) => Ok(Some(job)),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(JobsClosed),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn an_error_finds_room_behind_a_caller_that_does_not_read() {
        let (reply, responses) = Reply::channel(1);
        assert!(reply.try_send(Response::default()).is_ok());
        assert!(reply.is_full());
        assert!(reply.try_send(Response::default()).is_err());
        reply.fail(Error::internal("broken"));
        let read: Vec<_> = responses.collect().await;
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].as_ref().unwrap_err().message(), "broken");
    }

    #[test]
    fn a_caller_that_has_gone_is_noticed() {
        let (reply, responses) = Reply::channel(1);
        drop(responses);
        assert!(reply.is_gone());
        assert!(reply.try_send(Response::default()).is_ok());
    }
}
