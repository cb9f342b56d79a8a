//! Reads request bodies, keeping no more of one than the limit allows and waiting for no slow sender.

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use bytes::Bytes;
use consort_middleware::{Halt, Paced};
use consort_protocol::Pieces;
use consort_stage::Error;
use http_body_util::BodyExt;

use super::error::Failure;

/// How many pieces a body of unknown length may come in; each costs more to receive than to send.
const MAX_CHUNKS: usize = 65_536;

/// Why a body was not read to its end.
enum Stop {
    /// It has at least so many bytes, and so many of them were received.
    TooLarge {
        size: usize,
        received: usize,
    },
    TooManyChunks,
    TooSlow,
    Broken(axum::Error),
}

impl From<Halt<axum::Error>> for Stop {
    fn from(halt: Halt<axum::Error>) -> Self {
        match halt {
            Halt::TooSlow => Self::TooSlow,
            Halt::Broken(error) => Self::Broken(error),
        }
    }
}

/// The whole body, or an error once it proves larger than `limit`.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Failure> {
    let mut body = Paced::new(body);
    let stop = match collect(&mut body, limit).await {
        Ok(bytes) => return Ok(bytes),
        Err(stop) => stop,
    };
    let (error, may_stay) = match stop {
        Stop::TooLarge { size, received } => {
            let most = limit.saturating_mul(2).saturating_sub(received);
            (too_large(size, limit), skip_rest(&mut body, most).await)
        }
        Stop::TooManyChunks => {
            let text = format!("the chunked request body has more than {MAX_CHUNKS} chunks");
            (Error::invalid(text), false)
        }
        Stop::TooSlow => return Err(too_slow()),
        Stop::Broken(cause) => {
            let error = Error::invalid("the request body could not be read to its end");
            (error.with_source(cause), false)
        }
    };
    let failure = Failure::from(error);
    Err(if may_stay { failure } else { failure.with_header(CONNECTION, "close") })
}

/// Puts the pieces of a body together; one that comes in one piece is not copied.
///
/// A body that says its length is refused before any of it is read.
async fn collect(body: &mut Paced<Body>, limit: usize) -> Result<Bytes, Stop> {
    let hint = body.size_hint();
    let announced = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Stop::TooLarge { size: announced, received: 0 });
    }
    let max_chunks = hint.exact().map_or(MAX_CHUNKS, |_| usize::MAX);
    let mut pieces = Pieces::default();
    let mut chunks = 0;
    while let Some(frame) = body.frame().await {
        let chunk = frame?.into_data().unwrap_or_default();
        if chunk.is_empty() {
            continue;
        }
        chunks += 1;
        if chunks > max_chunks {
            return Err(Stop::TooManyChunks);
        }
        let size = chunk.len() + pieces.so_far().len();
        if size > limit {
            return Err(Stop::TooLarge { size, received: size });
        }
        pieces.add(chunk, announced);
    }
    Ok(pieces.whole())
}

/// Receives and forgets the rest of a body if it is at most so many bytes; says whether it was.
///
/// A client that sends its body before it reads the answer would otherwise see no more of the
/// answer than a broken pipe.
async fn skip_rest(body: &mut Paced<Body>, most: usize) -> bool {
    let mut left = most as u64;
    while body.size_hint().lower() <= left {
        let frame = match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => frame,
        };
        let size = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    false
}

/// The answer to a body that is waited for no longer; the connection goes with it.
fn too_slow() -> Failure {
    Failure::from(consort_middleware::too_slow())
        .with_status(StatusCode::REQUEST_TIMEOUT)
        .with_header(CONNECTION, "close")
}

/// The error about input of `size` bytes where `limit` are allowed.
pub(super) fn too_large(size: usize, limit: usize) -> Error {
    Error::invalid(format!(
        "request JSON size of {size} bytes exceeds the maximum allowed input size of {limit} \
         bytes. Use --http-max-input-size to increase the limit."
    ))
}
