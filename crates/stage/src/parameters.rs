//! The parameters that travel with a request or a response.

use std::collections::BTreeMap;

/// One parameter's value, in the types of the wire.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant says all there is to say")]
pub enum Parameter {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
}

/// Parameters by name, in the order of their names.
pub type Parameters = BTreeMap<String, Parameter>;

impl Parameter {
    /// The value when it is a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The value when it is an integer that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(value) => Some(*value),
            Self::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The value when it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }
}
