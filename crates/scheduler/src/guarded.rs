//! Turns a backend's panic into an error of the request it happened on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use consort_stage::{Error, Result};

/// What `run` gives; a panic is logged and fails this run alone.
///
/// Backends begin every run afresh, so one that panicked is called again.
pub fn guarded<T>(model: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        report(model, &*panic);
        Err(Error::internal("the backend broke down on this request; see the server's log"))
    })
}

/// Writes to the log what a backend said as it panicked.
pub(crate) fn report(model: &str, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(model, "the backend panicked: {}", text.unwrap_or("it did not say why"));
}
