//! The body of a response that may have been refused before it reached the service.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The service's own body, or the few bytes that say why there is none.
#[derive(Debug)]
pub enum Refusable<B> {
    /// What the service answers.
    Service(B),
    /// What the edge answers instead; `None` once it is sent.
    Refused(Option<Bytes>),
}

impl<B: Body<Data = Bytes> + Unpin> Body for Refusable<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.get_mut() {
            Self::Service(body) => Pin::new(body).poll_frame(context),
            Self::Refused(bytes) => Poll::Ready(bytes.take().map(Frame::data).map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Service(body) => body.is_end_stream(),
            Self::Refused(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Service(body) => body.size_hint(),
            Self::Refused(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
        }
    }
}
