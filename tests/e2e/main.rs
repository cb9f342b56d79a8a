//! End-to-end tests: real programs, real sockets, the ecosystem's own clients.
//!
//! `cargo xtask test` builds the programs and the Python environment that these tests use.

mod bad_input;
mod clients;
mod control;
mod generate;
mod instances;
mod lifecycle;
mod program;
mod repository;
mod scenarios;
mod system;
mod telemetry;
