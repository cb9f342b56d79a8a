//! Reads, completes and checks model configurations, reporting every mistake with its place.
//!
//! A file becomes a [`Draft`], which is completed from the model file where it leaves something
//! out, and then a checked [`Model`].

mod backend;
mod bind;
mod complete;
mod draft;
mod folder;
mod from_wire;
mod model;
mod nearest;
mod normalise;
mod problem;
mod report;
mod scheduling;
mod source;
mod text;
mod tree;
mod validate;
mod yaml;

pub use draft::Draft;
pub use folder::read;
pub use model::{
    BATCHING, Device, InstanceGroup, MAX_BATCH_TOKENS, Model, OPTIONAL, PADDING_MASK, Setting,
    Settings, VersionPolicy, WIDE_INSTANCE,
};
pub use nearest::did_you_mean;
pub use problem::{Place, Problem, Problems};
pub use scheduling::{
    BatchInput, BatchInputKind, BatchOutput, Control, ControlKind, DynamicBatching, Filling,
    FillingData, Flag, Priorities, QueuePolicy, RaggedBatching, RateLimiter, Resource, Scheduling,
    SequenceBatching, State, Strategy, TimeoutAction, Warmup,
};
pub use source::Source;
