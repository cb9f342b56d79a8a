//! The fleet against real gRPC servers in this process: models, balancing, calls and failures.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

mod balancing;
mod calls;
mod control;
mod fake;
mod models;
