//! Decides which of the requests that wait run together, and when: data in, decisions out.
//!
//! Nothing here knows a lock, a clock or a thread; the time comes with every question.

mod batcher;
mod exact;
mod greedy;
mod likeness;
mod returning;
mod rules;
mod waiting;

pub(crate) use batcher::{Batcher, Decision};
pub(crate) use likeness::Likeness;
pub(crate) use returning::{Ended, Others};
pub(crate) use rules::Manner;
pub use rules::Rules;
pub(crate) use waiting::{Entry, Expired, Place};
