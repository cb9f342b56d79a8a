//! Routes of Triton's that this server knows and does not offer.

use consort_server::not_offered;
use consort_stage::Error;

use super::error::Failure;

/// Trace settings.
pub(super) async fn tracing() -> Failure {
    Error::unsupported(not_offered::TRACE_SETTINGS).into()
}

/// Log settings.
pub(super) async fn logging() -> Failure {
    Error::unsupported(not_offered::LOG_SETTINGS).into()
}

/// Control of shared memory.
pub(super) async fn memory() -> Failure {
    shared_memory().into()
}

/// The error about anything that would place tensors in memory shared with the client.
pub(super) fn shared_memory() -> Error {
    Error::unsupported(not_offered::SHARED_MEMORY)
}
