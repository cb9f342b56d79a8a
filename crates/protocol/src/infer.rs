//! The one message of a `ModelInfer` as it stands in the body of a call, there and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tonic::Status;

use crate::{ModelInferRequest, ModelInferResponse};

/// What stands before a message: whether it is compressed, and its length.
pub(crate) const PREFIX: usize = 5;

/// The largest message, in bytes: with what stands before it as much as HTTP/2 takes at once, which
/// is also what a Triton server has.
pub const MESSAGE_LIMIT: usize = i32::MAX as usize - PREFIX;

/// Requests of fewer bytes are read from a copy: the memory that was received holds those of other
/// calls too, and is kept for as long as any of them.
const COPIED: usize = 4 << 10;

impl ModelInferRequest {
    /// The body of a call with this message.
    pub fn to_body(&self) -> Result<Bytes, Status> {
        body(self).map_err(|size| {
            let text = format!("a request of {size} bytes is more than a message may have");
            Status::invalid_argument(text)
        })
    }

    /// Reads the body of a call, which has one message. Raw tensors of a large one are slices of the
    /// body, not copies.
    pub fn from_body(body: Bytes) -> Result<Self, Status> {
        let is_small = body.len() < COPIED;
        message("request", if is_small { Bytes::copy_from_slice(&body) } else { body })
    }
}

impl ModelInferResponse {
    /// The body of an answer with this message.
    pub fn to_body(&self) -> Result<Bytes, Status> {
        body(self).map_err(|size| {
            let text = format!("an answer of {size} bytes is more than a message may have");
            Status::out_of_range(text)
        })
    }

    /// Reads the body of an answer, which has one message. Raw tensors are slices of the body, not
    /// copies.
    pub fn from_body(body: Bytes) -> Result<Self, Status> {
        message("answer", body)
    }
}

/// The message behind its length; its size if it has more than fits.
fn body(message: &impl Message) -> Result<Bytes, usize> {
    let size = message.encoded_len();
    let stated = u32::try_from(size).ok().filter(|_| size <= MESSAGE_LIMIT).ok_or(size)?;
    let mut body = BytesMut::with_capacity(PREFIX + size);
    body.put_u8(0);
    body.put_u32(stated);
    message.encode(&mut body).expect("the memory has room for it");
    Ok(body.freeze())
}

/// What a body says of its message, once so much of it is there: the flags, of which 0 is a message
/// as it is and 1 a compressed one, and its bytes.
pub(crate) fn stated(body: &[u8]) -> Option<(u8, usize)> {
    let (flags, rest) = body.split_first()?;
    let size = u32::from_be_bytes(*rest.first_chunk()?);
    Some((*flags, usize::try_from(size).unwrap_or(usize::MAX)))
}

/// The message in the body of a `what`.
fn message<M: Message + Default>(what: &str, mut body: Bytes) -> Result<M, Status> {
    let Some((flags, size)) = stated(&body) else {
        return Err(Status::internal(format!("the {what} has no message")));
    };
    body.advance(PREFIX);
    if flags != 0 {
        return Err(Status::internal(format!("the {what} is compressed and does not say how")));
    }
    if size != body.len() {
        let is = body.len();
        let text = format!("the {what} should have a message of {size} bytes and has {is}");
        return Err(Status::internal(text));
    }
    M::decode(body).map_err(|error| Status::internal(format!("the {what} is malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &impl Message) -> Vec<u8> {
        let message = message.encode_to_vec();
        let size = u32::try_from(message.len()).unwrap();
        [&[0][..], &size.to_be_bytes(), &message].concat()
    }

    #[test]
    fn a_request_stands_in_its_body_behind_its_length() {
        let request = ModelInferRequest { model_name: "m".into(), ..ModelInferRequest::default() };
        assert_eq!(request.to_body().unwrap(), framed(&request));
    }

    #[test]
    fn a_request_that_is_too_large_is_refused_before_it_takes_memory() {
        let tensor = Bytes::from(vec![0; 1 << 20]);
        let raw_input_contents = vec![tensor; 2048];
        let request = ModelInferRequest { raw_input_contents, ..ModelInferRequest::default() };
        let status = request.to_body().unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with("a request of 21474"), "{}", status.message());
    }

    fn is_within(part: &Bytes, whole: &Bytes) -> bool {
        whole.as_ptr_range().contains(&part.as_ptr())
    }

    #[test]
    fn an_answer_is_read_without_a_copy() {
        let raw_output_contents = vec![Bytes::from(vec![7; 1000])];
        let response = ModelInferResponse { raw_output_contents, ..ModelInferResponse::default() };
        let body = response.to_body().unwrap();
        assert_eq!(body, framed(&response));
        let read = ModelInferResponse::from_body(body.clone()).unwrap();
        assert_eq!(read, response);
        assert!(is_within(&read.raw_output_contents[0], &body));
    }

    #[test]
    fn a_small_request_does_not_keep_what_it_was_received_in() {
        for (size, is_copied) in [(1_000, true), (COPIED, false)] {
            let raw_input_contents = vec![Bytes::from(vec![7; size])];
            let request = ModelInferRequest { raw_input_contents, ..ModelInferRequest::default() };
            let body = Bytes::from(framed(&request));
            let read = ModelInferRequest::from_body(body.clone()).unwrap();
            assert_eq!(read, request);
            assert_eq!(is_within(&read.raw_input_contents[0], &body), !is_copied, "{size}");
        }
    }

    #[test]
    fn what_is_no_message_is_said() {
        for (body, text) in [
            (&[][..], "no message"),
            (&[0, 0, 0, 0], "no message"),
            (&[1, 0, 0, 0, 0], "compressed"),
            (&[0, 0, 0, 0, 2, 0], "a message of 2 bytes and has 1"),
            (&[0, 0, 0, 0, 1, 0, 0], "a message of 1 bytes and has 2"),
            (&[0, 0, 0, 0, 1, 7], "malformed"),
        ] {
            let status = ModelInferResponse::from_body(Bytes::from_static(body)).unwrap_err();
            assert!(status.message().contains(text), "{body:?}: {}", status.message());
        }
    }
}
