//! The one message of a `ModelInfer` as it stands in the body of a call, there and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tonic::Status;

use crate::{ModelInferRequest, ModelInferResponse};

/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The largest body of a call with one message, in bytes: what HTTP/2 takes at once.
pub const BODY_LIMIT: usize = i32::MAX as usize;

/// The largest message, as a Triton server has it but for what stands before it.
pub const MESSAGE_LIMIT: usize = BODY_LIMIT - PREFIX;

impl ModelInferRequest {
    /// The body of a call with this message.
    pub fn to_body(&self) -> Result<Bytes, Status> {
        let size = self.encoded_len();
        let stated = u32::try_from(size).ok().filter(|_| size <= MESSAGE_LIMIT);
        let stated = stated.ok_or_else(|| {
            let text = format!("a request of {size} bytes is more than a message may have");
            Status::invalid_argument(text)
        })?;
        let mut body = BytesMut::with_capacity(PREFIX + size);
        body.put_u8(0);
        body.put_u32(stated);
        self.encode(&mut body).expect("the memory has room for it");
        Ok(body.freeze())
    }
}

impl ModelInferResponse {
    /// Reads the body of an answer, which has one message. Raw tensors are slices of it, not copies.
    pub fn from_body(mut body: Bytes) -> Result<Self, Status> {
        if body.len() < PREFIX {
            return Err(Status::internal("the answer has no message"));
        }
        let is_compressed = body.get_u8() != 0;
        let size = body.get_u32();
        if is_compressed {
            return Err(Status::internal("the answer is compressed, which nobody asked for"));
        }
        if usize::try_from(size).ok() != Some(body.len()) {
            let is = body.len();
            let text = format!("the answer should have a message of {size} bytes and has {is}");
            return Err(Status::internal(text));
        }
        Self::decode(body)
            .map_err(|error| Status::internal(format!("the answer is malformed: {error}")))
    }
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

    #[test]
    fn an_answer_is_read_without_a_copy() {
        let tensor = Bytes::from(vec![7; 1000]);
        let raw_output_contents = vec![tensor.clone()];
        let response = ModelInferResponse { raw_output_contents, ..ModelInferResponse::default() };
        let body = Bytes::from(framed(&response));
        let read = ModelInferResponse::from_body(body.clone()).unwrap();
        assert_eq!(read, response);
        let within = body.as_ptr_range();
        assert!(within.contains(&read.raw_output_contents[0].as_ptr()));
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
