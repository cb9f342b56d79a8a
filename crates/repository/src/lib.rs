//! The model repository on disk: versions, loading, and the models being served.

mod cached;
mod checked;
mod class_labels;
mod classification;
mod control;
mod failure;
mod filling;
mod folder;
mod identity;
mod instance_file;
mod instances;
mod kind;
mod load;
mod local;
mod models;
mod response_cache;
mod sequences;
mod snapshot;
mod stamp;
mod stand_in;
mod stated;
pub mod statistics;
mod turns;
mod warmup;
mod watching;

pub use cached::Cached;
pub use checked::{Checked, reason};
pub use class_labels::{ClassLabels, read_labels};
pub use classification::{classify, classify_outputs};
pub use control::{
    Action, AtStart, Change, ControlMode, Override, UNLOADED, UNLOADING, failed_to_poll,
    load_failed, not_explicit,
};
pub use failure::{Labels, log_failure};
pub use folder::{ModelFolder, models_in, oddities, served_versions, versions_in};
pub use identity::IDENTITY;
pub use kind::{
    ADAPTERS, Backend, EXCLUDE_PROMPT, Instance, KEEPS_STOP, Kind, ModelFile, Told, VersionFiles,
};
pub use load::Loader;
pub use local::{Foreign, LOAD_THREADS, Local, LocalOptions};
pub use models::{IndexEntry, Leaves, Models, Served, State};
pub use response_cache::ResponseCache;
pub use snapshot::{Entry, Snapshot};
pub use stated::{Stated, duplicate, is_ensemble};
pub use turns::{Turn, Turns};
pub use warmup::check_warm_up;
pub use watching::{Changes, Rounds, Watching};
