//! The model repository on disk: versions, loading, and the models being served.

mod kind;
mod models;

pub use kind::{Backend, Instance, Kind, ModelFile};
pub use models::{IndexEntry, Models, Served, State};
