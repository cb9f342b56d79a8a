//! Reads, completes and checks model configurations, reporting every mistake with its place.

mod model;

pub use model::{
    Device, DynamicBatching, InstanceGroup, Model, Scheduling, Settings, VersionPolicy,
};
