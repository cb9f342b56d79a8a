//! The vocabulary of Consort: tensors, requests, responses, errors and the traits of what can be called.
//!
//! Everything above this crate speaks in these words. It knows no wire format, no file and no model.

mod backend;
mod datatype;
mod directives;
mod element;
mod enough;
mod error;
mod parameters;
mod request;
mod responses;
mod signature;
mod spent;
mod strings;
mod tensor;

pub use backend::{
    Batch, BatchBackend, Brief, Held, InlineBackend, Interrupt, Job, Jobs, JobsClosed, OnAdmission,
    Reply, StreamingBackend,
};
pub use datatype::DataType;
pub use directives::{CorrelationId, SequencePlace, is_directive};
pub use element::Element;
pub use enough::Enough;
pub use error::{Code, Error, Result};
pub use parameters::{Parameter, Parameters};
pub use request::{Context, Request, Response};
pub use responses::{Responses, collect_one, fail, one};
pub use signature::{ShapeText, Signature, TensorSpec, VARIABLE};
pub use spent::{Durations, Spent};
pub use strings::{Strings, encode_strings};
pub use tensor::Tensor;

/// Anything that answers requests: a local instance, a remote service or a whole ensemble.
///
/// The call starts no work before the returned stream is polled, and **dropping the stream
/// cancels the call** wherever it is: queued, running, or in another process.
pub trait Stage: Send + Sync + 'static {
    /// Answers one request with one response, or with many when the model is decoupled.
    fn call(&self, request: Request) -> Responses;
}
