//! Routes of Triton's that this server knows and does not offer.

use consort_stage::Error;

use super::error::Failure;

/// Trace settings.
pub(super) async fn tracing() -> Failure {
    Error::unsupported(
        "trace settings can not be read or changed over the protocol; tracing follows the server's \
         `OTEL_*` environment variables",
    )
    .into()
}

/// Log settings.
pub(super) async fn logging() -> Failure {
    Error::unsupported(
        "log settings can not be read or changed over the protocol; the server's options \
         `--log-format` and `--log-verbose` set them",
    )
    .into()
}

/// Control of shared memory.
pub(super) async fn memory() -> Failure {
    shared_memory().into()
}

/// The error about anything that would place tensors in memory shared with the client.
pub(super) fn shared_memory() -> Error {
    Error::unsupported("Client shared memory is disabled. Tensors are sent in the request.")
}
