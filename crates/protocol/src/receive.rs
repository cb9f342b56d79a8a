//! Receives a body that has one message, of which no more is kept than the message may have.

use std::error::Error;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tonic::Status;

use crate::infer::{PREFIX, stated};

/// What has come of a body.
#[derive(Debug, Default)]
struct Received {
    /// The only piece so far, as it came.
    first: Bytes,
    /// All pieces, once there are several.
    all: BytesMut,
}

/// Receives a body whose message has `limit` bytes at most, and what follows it. It ends as soon as
/// it is known that the message is larger or not the only one.
pub async fn receive<B>(body: B, limit: usize) -> Result<(Bytes, Option<HeaderMap>), Status>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let mut body = pin!(body);
    let (mut received, mut trailers) = (Received::default(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| Status::from_error(error.into()))?.into_data() {
            Ok(piece) => received.add(piece, limit)?,
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((received.whole(), trailers))
}

impl Received {
    fn add(&mut self, piece: Bytes, limit: usize) -> Result<(), Status> {
        if self.len() == 0 {
            self.first = piece;
        } else {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
            self.all.extend_from_slice(&piece);
        }
        let head = if self.all.is_empty() { &self.first[..] } else { &self.all[..] };
        let Some((_, size)) = stated(head) else { return Ok(()) };
        if size > limit {
            let text = format!("a message of {size} bytes is more than the {limit} it may have");
            return Err(Status::out_of_range(text));
        }
        let whole = PREFIX + size;
        if self.len() > whole {
            return Err(Status::unimplemented("there is more than the one message of this method"));
        }
        if self.all.len() < whole && !self.all.is_empty() {
            self.all.reserve(whole - self.all.len());
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
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
        receive(StreamBody::new(stream::iter(frames)), 100).now_or_never().expect("all is there")
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
        let frames = [Frame::data(whole.clone()), Frame::trailers(end.clone())];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Status>)));
        let (body, trailers) = receive(body, 100).now_or_never().unwrap().unwrap();
        assert_eq!(body.as_ptr(), whole.as_ptr());
        assert_eq!(trailers, Some(end));
    }

    #[test]
    fn it_ends_once_the_message_is_known_to_be_too_large_or_not_the_only_one() {
        // Nobody sends the rest of the first.
        let large = received(&[&message(101, 0)[..3], &message(101, 0)[3..]]).unwrap_err();
        assert_eq!(large.code(), Code::OutOfRange);
        assert_eq!(large.message(), "a message of 101 bytes is more than the 100 it may have");
        for second in [&[0][..], &message(1, 1)] {
            let several = received(&[&message(9, 9), second]).unwrap_err();
            assert_eq!(several.code(), Code::Unimplemented);
        }
    }

    #[test]
    fn many_pieces_take_no_more_memory_than_their_message() {
        let whole = message(100, 100);
        let mut received = Received::default();
        for piece in whole.chunks(1) {
            received.add(Bytes::copy_from_slice(piece), 100).unwrap();
        }
        assert!(received.first.is_empty() && received.all.capacity() < 2 * whole.len());
    }

    #[test]
    fn what_ends_a_body_too_early_is_the_status() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"\0"))), Err(Status::aborted("gone"))];
        let broken = receive(StreamBody::new(stream::iter(frames)), 100).now_or_never().unwrap();
        assert_eq!(broken.unwrap_err().code(), Code::Aborted);
    }
}
