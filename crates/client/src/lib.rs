//! A far stage made near: discovery, balancing and the gRPC client.
//!
//! A [`Fleet`] watches the replicas of every service, learns from them which models they serve and
//! offers these models like local ones.

mod address;
mod affinity;
mod call;
mod connection;
mod control;
mod discovery;
mod expected;
mod failure;
mod fleet;
mod keeper;
mod label_files;
mod leaving;
mod merge;
mod outgoing;
mod plain;
mod probe;
mod put_off;
mod remote;
mod remotes;
mod replica;
mod report;
mod sending;
mod signature;
mod snapshot;
mod statistics;
mod supervisor;
mod turns;
mod unary;
mod wanted;

pub use address::{StageAddress, Target};
pub use discovery::{Addresses, Discovery, Dns, Found};
pub use fleet::{Fleet, FleetOptions};
