//! Errors as gRPC statuses and back.

use consort_stage::{Code, Error};
use tonic::Status;
use tonic::metadata::MetadataValue;

/// The metadata that says which input of the model an error concerns. A name may have any
/// characters, so it goes as bytes.
const INPUT: &str = "consort-input-bin";

/// The status that tells a caller of `error`. Its cause is not told.
pub fn to_status(error: &Error) -> Status {
    let (code, _) = error.code().statuses();
    let mut status = Status::new(code.into(), error.message());
    if let Some(input) = error.input() {
        status.metadata_mut().insert_bin(INPUT, MetadataValue::from_bytes(input.as_bytes()));
    }
    if let Some(code) = error.code().beside_status() {
        status.metadata_mut().insert(Code::METADATA, MetadataValue::from_static(code));
    }
    status
}

/// The error that a callee's `status` tells of.
pub fn from_status(status: &Status) -> Error {
    let bytes = status.metadata().get_bin(INPUT).and_then(|value| value.to_bytes().ok());
    let input = bytes.and_then(|bytes| String::from_utf8(bytes.into()).ok());
    let beside = status.metadata().get(Code::METADATA).and_then(|value| value.to_str().ok());
    let code = Code::from_grpc_with(status.code().into(), beside);
    Error::new(code, status.message()).of_input(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_code_and_text_on_the_way() {
        for code in Code::ALL {
            let status = to_status(&Error::new(code, "what failed"));
            assert_eq!(i32::from(status.code()), code.statuses().0);
            let back = from_status(&status);
            assert_eq!(back.code(), code);
            assert_eq!(back.message(), "what failed");
            assert_eq!(back.input(), None);
        }
    }

    #[test]
    fn the_input_that_an_error_concerns_comes_along_whatever_its_name() {
        for name in ["runtime_top_p", "größe\n"] {
            let status = to_status(&Error::invalid("must be positive").of_input(Some(name)));
            assert_eq!(from_status(&status).input(), Some(name));
        }
    }
}
