//! The model repository on disk: versions, loading, and the models being served.

mod checked;
mod classification;
mod failure;
mod filling;
mod folder;
mod identity;
mod instance_file;
mod kind;
mod load;
mod local;
mod models;
mod snapshot;
pub mod statistics;
mod warmup;

pub use checked::{Checked, reason};
pub use classification::{classify, classify_outputs};
pub use failure::log_failure;
pub use folder::{ModelFolder, models_in, served_versions, versions_in};
pub use identity::IDENTITY;
pub use kind::{Backend, Instance, Kind, ModelFile};
pub use load::Loader;
pub use local::{Foreign, Local, ensembles_in};
pub use models::{IndexEntry, Models, Served, State};
pub use snapshot::{Entry, Snapshot};
