//! End-to-end tests: real programs, real sockets, the ecosystem's own clients.
//!
//! `cargo xtask test` builds the programs and the Python environment that these tests use.

mod adapters;
mod bad_input;
mod batching;
mod classes;
mod clients;
mod control;
mod foreign;
mod generate;
mod instances;
mod kserve;
mod lifecycle;
mod numbers;
mod otlp;
mod program;
mod python;
mod repository;
mod scenarios;
mod sequences;
mod system;
mod telemetry;
mod tls;
