//! Reads, completes and checks model configurations, reporting every mistake with its place.

mod draft;
mod model;
mod problem;
mod source;

pub use draft::{Draft, read};
pub use model::{
    Device, DynamicBatching, InstanceGroup, Model, Scheduling, Settings, VersionPolicy,
};
pub use problem::{Place, Problem, Problems};
pub use source::Source;
