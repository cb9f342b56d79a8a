//! What a caller is told who asks for a part of the protocol that is not offered, over any front.

/// Trace settings.
pub const TRACE_SETTINGS: &str = "trace settings can not be read or changed over the protocol; tracing \
     follows the server's `OTEL_*` environment variables";

/// Log settings.
pub const LOG_SETTINGS: &str = "log settings can not be read or changed over the protocol; the server's \
     options `--log-format` and `--log-verbose` set them";

/// Anything that would place tensors in memory shared with the caller.
pub const SHARED_MEMORY: &str =
    "Client shared memory is disabled. Tensors are sent in the request.";
