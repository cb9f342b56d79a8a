//! Reads JSON with the messages that Triton's clients know.
//!
//! A document is read into structs whose members stay raw text, and each member is then read as
//! what it should be, so that the message can name the member and say what it is not. Everything
//! that is wrong with JSON is an internal error, status 500, as Triton has it.

use std::borrow::Cow;
use std::fmt;

use consort_stage::{Error, Parameter, Result};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// How deep arrays and objects may lie in one another.
const MAX_DEPTH: usize = 100;

/// Reads a whole document.
pub(super) fn document<'a, T: Deserialize<'a>>(buffer: &'a [u8]) -> Result<T> {
    check_depth(buffer)?;
    if buffer.iter().all(u8::is_ascii_whitespace) {
        return Err(malformed("The document is empty.", 0));
    }
    // A struct could be read from an array of its members, too.
    if buffer.trim_ascii_start().starts_with(b"[") {
        return Err(Error::internal("failed to parse the request: expected an object"));
    }
    serde_json::from_slice(buffer).map_err(|cause| {
        let reason = reason(&cause);
        match cause.classify() {
            Category::Data => Error::internal(format!("failed to parse the request: {reason}")),
            _ => malformed(&reason, offset(buffer, cause.line(), cause.column())),
        }
    })
}

fn malformed(reason: &str, offset: usize) -> Error {
    Error::internal(format!("failed to parse the request JSON buffer: {reason} at {offset}"))
}

/// The message of `cause` without its place and without anything out of the document.
fn reason(cause: &serde_json::Error) -> String {
    let message = cause.to_string();
    let place = format!(" at line {} column {}", cause.line(), cause.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    // What serde found is the caller's data; what it expected is not.
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    }
}

/// The place in `buffer` of a column in a line, both counted from 1.
fn offset(buffer: &[u8], line: usize, column: usize) -> usize {
    let lines = buffer.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column).min(buffer.len())
}

fn check_depth(buffer: &[u8]) -> Result<()> {
    let mut depth = 0_usize;
    let mut bytes = buffer.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!(
                "JSON nesting depth exceeds maximum allowed limit ({MAX_DEPTH})"
            )));
        }
    }
    Ok(())
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// A value that has no other words: what it was read as and what it is not.
pub(super) fn mismatch(field: &str, wanted: Wanted) -> Error {
    Error::internal(format!("Unable to parse '{field}': {}", wanted.text()))
}

/// What a member should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    String,
    Boolean,
    Signed,
    Unsigned,
    Double,
    Array,
    Object,
}

impl Wanted {
    /// The words Triton has for a member that is something else.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::String => "attempt to access JSON non-string as string",
            Self::Boolean => "attempt to access JSON non-boolean as boolean",
            Self::Signed => "attempt to access JSON non-signed-integer as signed-integer",
            Self::Unsigned => "attempt to access JSON non-unsigned-integer as unsigned-integer",
            Self::Double => "attempt to access JSON non-number as double",
            Self::Array => "attempt to access JSON non-array as array",
            Self::Object => "attempt to access JSON non-object as object",
        }
    }
}

/// The member that must be there.
pub(super) fn required<T>(field: &str, member: Option<T>) -> Result<T> {
    member.ok_or_else(|| {
        Error::internal(format!(
            "Unable to parse '{field}': attempt to access non-existing object member '{field}'"
        ))
    })
}

/// A member read as text.
pub(super) fn text<'a>(field: &str, member: &'a RawValue) -> Result<Cow<'a, str>> {
    let Text(text) = read(field, member, Wanted::String)?;
    Ok(text)
}

/// A member read as a boolean.
pub(super) fn boolean(field: &str, member: &RawValue) -> Result<bool> {
    read(field, member, Wanted::Boolean)
}

/// A member read as a number that is whole and not negative.
pub(super) fn unsigned(field: &str, member: &RawValue) -> Result<u64> {
    read(field, member, Wanted::Unsigned)
}

/// A member read as a shape; a dimension too large for any tensor is kept as the largest there is.
pub(super) fn shape(field: &str, member: &RawValue) -> Result<Vec<i64>> {
    if !member.get().starts_with('[') {
        return Err(mismatch(field, Wanted::Array));
    }
    let dims: Vec<u64> = read(field, member, Wanted::Unsigned)?;
    let dims = dims.into_iter();
    Ok(dims.map(|dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect())
}

/// The members of an object in order, those that repeat included; none when it is not there.
pub(super) fn members<'a>(field: &str, member: Option<&'a RawValue>) -> Result<Vec<Member<'a>>> {
    let Some(member) = member else {
        return Ok(Vec::new());
    };
    let Members(members) = read(field, member, Wanted::Object)?;
    Ok(members)
}

/// A member read as a parameter, if it is anything that a parameter can be.
pub(super) fn parameter(member: &RawValue) -> Option<Parameter> {
    let value: serde_json::Value = match member.get().as_bytes().first() {
        Some(b'[' | b'{') | None => return None,
        Some(_) => serde_json::from_str(member.get()).ok()?,
    };
    match value {
        serde_json::Value::Bool(value) => Some(Parameter::Bool(value)),
        serde_json::Value::String(value) => Some(Parameter::String(value)),
        serde_json::Value::Number(number) => (number.as_i64().map(Parameter::Int))
            .or_else(|| number.as_u64().map(Parameter::Uint))
            .or_else(|| number.as_f64().map(Parameter::Double)),
        _ => None,
    }
}

fn read<'a, T: Deserialize<'a>>(field: &str, member: &'a RawValue, wanted: Wanted) -> Result<T> {
    serde_json::from_str(member.get()).map_err(|cause| match cause.classify() {
        Category::Data => mismatch(field, wanted),
        _ => Error::internal(format!("Unable to parse '{field}': {}", reason(&cause))),
    })
}

/// One member of an object.
pub(super) type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// An object's members in order, those that repeat included.
#[derive(Debug)]
pub(super) struct Members<'a>(pub(super) Vec<Member<'a>>);

/// Text that is copied only when it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Self)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(key), value)) = map.next_entry()? {
            members.push((key, value));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(document_text: &str) -> String {
        let error = document::<Members<'_>>(document_text.as_bytes()).unwrap_err();
        error.message().to_owned()
    }

    #[test]
    fn a_malformed_document_is_refused_with_the_place() {
        assert_eq!(
            refused("  "),
            "failed to parse the request JSON buffer: The document is empty. at 0"
        );
        assert_eq!(
            refused("{\n\"a\": nope}"),
            "failed to parse the request JSON buffer: expected ident at 9"
        );
        assert!(refused("{\"a\":").ends_with(" at 5"));
    }

    #[test]
    fn the_message_holds_nothing_of_the_document() {
        assert_eq!(
            refused("\"my secret, expected nothing\""),
            "failed to parse the request: expected an object"
        );
    }

    #[test]
    fn nesting_is_allowed_to_a_depth_and_brackets_in_text_do_not_count() {
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(document::<Members<'_>>(nested(99).as_bytes()).is_ok());
        assert!(
            refused(&nested(100)).contains("nesting depth exceeds maximum allowed limit (100)")
        );
        let text = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(500));
        assert!(document::<Members<'_>>(text.as_bytes()).is_ok());
    }
}
