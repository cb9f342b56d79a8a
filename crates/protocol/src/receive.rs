//! Receives a body that has one message, of which no more is kept than the message may have.

use std::error::Error;
use std::pin::pin;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tonic::Status;

use crate::Pieces;
use crate::infer::{PREFIX, stated};

/// Receives the body of a `what`, whose message has `limit` bytes at most, and what follows it. It
/// ends as soon as it is known that the message is larger or not the only one.
pub async fn receive<B>(
    what: &str,
    body: B,
    limit: usize,
) -> Result<(Bytes, Option<HeaderMap>), Status>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let mut body = pin!(body);
    let (mut received, mut trailers) = (Received::default(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| Status::from_error(error.into()))?.into_data() {
            Ok(piece) => received.add(piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        received.check(what, limit)?;
    }
    Ok((received.pieces.whole(), trailers))
}

/// What has come of a body.
#[derive(Debug, Default)]
struct Received {
    pieces: Pieces,
    /// The bytes of the body, once it has said how many its message has.
    whole: Option<usize>,
}

impl Received {
    fn add(&mut self, piece: Bytes) {
        self.pieces.add(piece, self.whole.unwrap_or(0));
        let stated = stated(self.pieces.so_far());
        self.whole = stated.map(|(_, size)| PREFIX.saturating_add(size));
    }

    fn check(&self, what: &str, limit: usize) -> Result<(), Status> {
        let Some(whole) = self.whole else { return Ok(()) };
        let size = whole - PREFIX;
        if size > limit {
            let text = format!("the {what} has a message of {size} bytes, and may have {limit}");
            return Err(Status::out_of_range(text));
        }
        if self.pieces.so_far().len() > whole {
            return Err(Status::internal(format!("the {what} has more than its one message")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tonic::Code;

    use super::*;

    /// Receives these pieces, of a message that may have 100 bytes.
    fn received(pieces: &[&[u8]]) -> Result<(Bytes, Option<HeaderMap>), Status> {
        let frame = |piece: &&[u8]| Ok(Frame::data(Bytes::copy_from_slice(piece)));
        let frames: Vec<Result<_, Status>> = pieces.iter().map(frame).collect();
        let body = StreamBody::new(stream::iter(frames));
        receive("request", body, 100).now_or_never().expect("all is there")
    }

    /// A message with so many bytes that says that it has `stated`.
    fn message(stated: u32, size: usize) -> Vec<u8> {
        [&[0][..], &stated.to_be_bytes(), &vec![7; size]].concat()
    }

    #[test]
    fn a_body_is_whole_in_whatever_pieces_it_comes() {
        let whole = message(100, 100);
        for size in [1, 2, 5, 6, 50, 104, 105] {
            let pieces: Vec<_> = whole.chunks(size).collect();
            assert_eq!(received(&pieces).unwrap().0, whole, "{size}");
        }
        assert_eq!(received(&[]).unwrap(), (Bytes::new(), None));
        assert_eq!(received(&[&whole[..3]]).unwrap().0, whole[..3]);
    }

    #[test]
    fn what_comes_in_one_piece_is_not_copied_and_its_trailers_are_kept() {
        let whole = Bytes::from(message(100, 100));
        let mut end = HeaderMap::new();
        end.insert("grpc-status", 0.into());
        let [message, nothing] = [whole.clone(), Bytes::new()].map(Frame::data);
        let frames = [message, nothing, Frame::trailers(end.clone())];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Status>)));
        let (body, trailers) = receive("answer", body, 100).now_or_never().unwrap().unwrap();
        assert_eq!(body.as_ptr(), whole.as_ptr());
        assert_eq!(trailers, Some(end));
    }

    #[test]
    fn it_ends_once_the_message_is_known_to_be_too_large_or_not_the_only_one() {
        // Nobody sends the rest of the first.
        let large = received(&[&message(101, 0)[..3], &message(101, 0)[3..]]).unwrap_err();
        assert_eq!(large.code(), Code::OutOfRange);
        assert_eq!(large.message(), "the request has a message of 101 bytes, and may have 100");
        for second in [&[0][..], &message(1, 1)] {
            let several = received(&[&message(9, 9), second]).unwrap_err();
            assert_eq!(several.message(), "the request has more than its one message");
        }
    }

    #[test]
    fn several_pieces_take_as_much_memory_as_their_message() {
        let whole = message(100, 100);
        for size in [1, 3, 5, 60, 104] {
            let mut received = Received::default();
            let pieces = whole.chunks(size).map(Bytes::copy_from_slice);
            pieces.for_each(|piece| received.add(piece));
            assert!(received.pieces.first.is_empty());
            assert_eq!(received.pieces.all.capacity(), whole.len(), "{size}");
        }
    }

    #[test]
    fn what_ends_a_body_too_early_is_the_status() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"\0"))), Err(Status::aborted("gone"))];
        let broken = receive("request", StreamBody::new(stream::iter(frames)), 100).now_or_never();
        assert_eq!(broken.unwrap().unwrap_err().code(), Code::Aborted);
    }
}
