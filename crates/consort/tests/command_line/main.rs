//! The commands that print, as a person at a shell sees them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::needless_raw_string_hashes, reason = "expectations are written by a tool")]

mod check;
mod plan;
mod repository;
