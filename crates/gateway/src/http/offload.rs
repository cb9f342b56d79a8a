//! Moves long work on bytes off the threads that serve connections.

use consort_stage::{Error, Result};

/// Work on fewer bytes than these takes less time than handing it over would be worth.
const INLINE_BYTES: usize = 256 << 10;

/// Does `work` here when it is on few `bytes`, and on a thread for blocking work when on many.
pub(super) async fn offload<T, E>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    if bytes <= INLINE_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|cause| {
        Error::internal("the work on a large body was cut short").with_source(cause)
    })?
}
