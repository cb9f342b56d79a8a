//! Errors as gRPC statuses and back.

use consort_stage::{Code, Error};
use tonic::Status;

/// The status that tells a caller of `error`. Its cause is not told.
pub fn to_status(error: &Error) -> Status {
    let (code, _) = error.code().statuses();
    Status::new(code.into(), error.message())
}

/// The error that a callee's `status` tells of.
pub fn from_status(status: &Status) -> Error {
    Error::new(Code::from_grpc(status.code().into()), status.message())
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
            assert_eq!(back.code().statuses().0, code.statuses().0);
            assert_eq!(back.message(), "what failed");
        }
    }
}
