//! What can go wrong, as a closed set of codes with a message that is safe to show the caller.

use std::fmt;
use std::sync::Arc;

/// The result of anything that can fail in Consort.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure; each maps to one gRPC status and one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The failure fits no other code.
    Unknown,
    /// The server broke a promise of its own, or could not read the body at all.
    Internal,
    /// The named model, version or region does not exist.
    NotFound,
    /// The request is wrong and will stay wrong.
    InvalidInput,
    /// The model exists but cannot be reached now; a later try may succeed.
    Unavailable,
    /// A bounded queue is full; a later try may succeed.
    Overloaded,
    /// The server knows the feature and does not offer it.
    Unsupported,
    /// The thing to create is there already.
    AlreadyExists,
    /// The caller went away or asked to stop.
    Cancelled,
    /// The request's time budget ran out.
    DeadlineExceeded,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::Unknown,
        Self::Internal,
        Self::NotFound,
        Self::InvalidInput,
        Self::Unavailable,
        Self::Overloaded,
        Self::Unsupported,
        Self::AlreadyExists,
        Self::Cancelled,
        Self::DeadlineExceeded,
    ];

    /// The code's name, for logs, traces and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::InvalidInput => "invalid_input",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Unsupported => "unsupported",
            Self::AlreadyExists => "already_exists",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    /// Whether an operator should look into it; the rest is the caller's business.
    pub fn is_the_servers_fault(self) -> bool {
        matches!(self, Self::Unknown | Self::Internal | Self::Unavailable)
    }

    /// The gRPC status and the HTTP status of this code: the one table of both.
    pub fn statuses(self) -> (i32, u16) {
        match self {
            Self::Cancelled => (1, 400),
            Self::Unknown => (2, 400),
            Self::InvalidInput => (3, 400),
            Self::DeadlineExceeded => (4, 504),
            Self::NotFound => (5, 404),
            Self::AlreadyExists => (6, 400),
            Self::Unsupported => (12, 501),
            Self::Internal => (13, 500),
            Self::Unavailable | Self::Overloaded => (14, 503),
        }
    }

    /// The gRPC metadata that tells the code where a status stands for more than one.
    pub const METADATA: &str = "consort-code";

    /// What goes under [`METADATA`](Self::METADATA): the name of a code that its status does not
    /// tell.
    pub fn beside_status(self) -> Option<&'static str> {
        let (status, _) = self.statuses();
        (Self::from_grpc(status) != self).then(|| self.name())
    }

    /// The code of a gRPC status that came with this under [`METADATA`](Self::METADATA).
    pub fn from_grpc_with(status: i32, beside: Option<&str>) -> Self {
        let told = Self::ALL.into_iter().find(|code| Some(code.name()) == beside);
        // What stands there for another status is nothing of Consort's.
        told.filter(|code| code.statuses().0 == status).unwrap_or_else(|| Self::from_grpc(status))
    }

    /// The code of a gRPC status; statuses that Consort never sends count as unknown.
    pub fn from_grpc(status: i32) -> Self {
        match status {
            1 => Self::Cancelled,
            3 | 11 => Self::InvalidInput,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            8 => Self::Overloaded,
            12 => Self::Unsupported,
            13 => Self::Internal,
            14 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// A failure: its code, a message for the caller and, for the log alone, its cause.
///
/// The message says which model, tensor or step; it never holds tensor contents, prompts or host
/// paths. It is boxed because most results are fine and errors should not widen them.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    is_logged: bool,
    input: Option<Arc<str>>,
}

impl Error {
    /// An error with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { code, message, source: None, is_logged: false, input: None }))
    }

    /// The request is wrong and will stay wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidInput, message)
    }

    /// What the request names does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// A promise of the server's own was broken.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// It cannot be reached now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// A known feature that is not offered.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::Unsupported, message)
    }

    /// The caller went away or asked to stop.
    pub fn cancelled() -> Self {
        Self::new(Code::Cancelled, "request cancelled")
    }

    /// The request's time budget ran out.
    pub fn deadline_exceeded() -> Self {
        Self::new(Code::DeadlineExceeded, "request deadline exceeded")
    }

    /// The same error with its cause, which only the log shows.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error with `place` before its message, such as ``in ensemble `e`, ``.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}{}", self.0.message);
        self
    }

    /// The same error, which concerns this input of the model that it comes from; `None` when it is
    /// none that the caller gave.
    ///
    /// An ensemble that is called in the model's place tells its caller which of its own it is.
    #[must_use]
    pub fn of_input(mut self, input: Option<impl Into<Arc<str>>>) -> Self {
        self.0.input = input.map(Into::into);
        self
    }

    /// The same error once it is in the log, so that nobody on its way writes it again.
    #[must_use]
    pub fn logged(mut self) -> Self {
        self.0.is_logged = true;
        self
    }

    /// Whether it is in the log already.
    pub fn is_logged(&self) -> bool {
        self.0.is_logged
    }

    /// The input that it concerns, where that is known.
    pub fn input(&self) -> Option<&str> {
        self.0.input.as_deref()
    }

    /// The kind of the failure.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The text for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl Clone for Error {
    /// Clones all but the cause, which stays with the first.
    fn clone(&self) -> Self {
        let mut clone = Self::new(self.code(), self.message());
        clone.0.is_logged = self.0.is_logged;
        clone.0.input.clone_from(&self.0.input);
        clone
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Error")
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_the_way_over_grpc() {
        for code in Code::ALL {
            let (grpc, _) = code.statuses();
            let expected = if code == Code::Overloaded { Code::Unavailable } else { code };
            assert_eq!(Code::from_grpc(grpc), expected);
            assert_eq!(Code::from_grpc_with(grpc, code.beside_status()), code);
        }
    }

    #[test]
    fn a_code_of_another_status_is_not_believed() {
        assert_eq!(Code::from_grpc_with(5, Some("overloaded")), Code::NotFound);
        assert_eq!(Code::from_grpc_with(14, Some("no such code")), Code::Unavailable);
    }
}
