//! Decides which of the requests that wait run together, and when: data in, decisions out.
//!
//! Nothing here knows a lock, a clock or a thread; the time comes with every question.

mod batcher;
mod contest;
mod crew;
mod exact;
mod gathering;
mod greedy;
mod likeness;
mod returning;
mod rules;
mod waiting;

pub(crate) use batcher::{Batcher, Decision};
pub(crate) use crew::{Crew, Post, Told, Turn};
pub(crate) use gathering::Gathering;
pub(crate) use likeness::Likeness;
pub(crate) use returning::{Ended, Hold, Others};
pub(crate) use rules::Manner;
pub use rules::Rules;
pub(crate) use waiting::{Entry, Expired, Place};
