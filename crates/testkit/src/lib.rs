//! What the tests of several crates share.

mod gate;
mod particular;
mod probe;
mod signature;
mod stages;
mod wakes;

pub use gate::Gate;
pub use particular::Particular;
pub use probe::Probe;
pub use signature::signature;
pub use stages::{answering, failing, identity, many, silent};
pub use wakes::Wakes;
