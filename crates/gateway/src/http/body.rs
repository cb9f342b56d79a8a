//! Reads request bodies, never more of one than the limit allows.

use axum::body::{Body, HttpBody};
use axum::http::header::CONNECTION;
use bytes::{Bytes, BytesMut};
use consort_stage::Error;
use http_body_util::BodyExt;

use super::error::Failure;

/// How many pieces a body of unknown length may come in; each costs more to receive than to send.
const MAX_CHUNKS: usize = 65_536;

/// The whole body, or an error once it proves larger than `limit`.
///
/// A body that says its length is refused before it is read; a body in one piece is not copied.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Bytes, Failure> {
    let hint = body.size_hint();
    let announced = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(refuse(too_large(announced, limit)));
    }
    let max_chunks = hint.exact().map_or(MAX_CHUNKS, |_| usize::MAX);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut chunks = 0;
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(cut_off)?.into_data() else {
            continue;
        };
        if chunk.is_empty() {
            continue;
        }
        chunks += 1;
        if chunks > max_chunks {
            return Err(refuse(Error::invalid(format!(
                "the chunked request body has more than {MAX_CHUNKS} chunks"
            ))));
        }
        let size = chunk.len() + first.len() + rest.len();
        if size > limit {
            return Err(refuse(too_large(size, limit)));
        }
        if chunks == 1 {
            first = chunk;
            continue;
        }
        if chunks == 2 {
            rest.reserve(announced.max(size));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&chunk);
    }
    Ok(if chunks > 1 { rest.freeze() } else { first })
}

/// The error about input of `size` bytes where `limit` are allowed.
pub(super) fn too_large(size: usize, limit: usize) -> Error {
    Error::invalid(format!(
        "request JSON size of {size} bytes exceeds the maximum allowed input size of {limit} \
         bytes. Use --http-max-input-size to increase the limit."
    ))
}

/// An unread rest cannot be skipped cheaply, so the connection ends with the answer.
fn refuse(error: Error) -> Failure {
    Failure::from(error).with_header(CONNECTION, "close")
}

fn cut_off(cause: axum::Error) -> Failure {
    Error::invalid("the request body could not be read to its end").with_source(cause).into()
}
