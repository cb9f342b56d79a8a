//! Reads a request's JSON object field by field, so that a refusal names the field that is wrong.

use std::fmt::Display;
use std::ops::RangeInclusive;

use consort_stage::{Error, Result};
use serde_json::{Map, Value};

use super::error::Refusal;
use crate::http::json;

/// Fields that say nothing about the answer.
const WITHOUT_EFFECT: [&str; 7] = [
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// The fields that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> = json::document(body).map_err(|error| {
            let reason = error.message().trim_start_matches("failed to parse the request");
            let reason = reason.trim_start_matches(" JSON buffer").trim_start_matches(": ");
            Error::invalid(format!("the request body is not a JSON object: {reason}"))
        })?;
        Ok(Self(fields))
    }

    /// The field, if it is there and not null.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    /// The field, which must be there.
    pub(super) fn require(&mut self, name: &str) -> Result<Value, Refusal> {
        self.take(name).ok_or_else(|| Refusal::of(name, format!("`{name}` is missing")))
    }

    /// The field as text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(mismatch(name, "a string", &other)),
        }
    }

    /// The field as true or false.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(mismatch(name, "true or false", &other)),
        }
    }

    /// The field as a whole number within `range`.
    pub(super) fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_i64().ok_or_else(|| mismatch(name, "a whole number", &value))?;
        within(name, number, range).map(Some)
    }

    /// The field as a number within `range`.
    pub(super) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| mismatch(name, "a number", &value))?;
        within(name, number, range).map(Some)
    }

    /// Refuses a field that is known and not offered, unless it asks for nothing.
    pub(super) fn refuse(&mut self, name: &str, why: &str) -> Result<(), Refusal> {
        match self.take(name) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(Value::Array(list)) if list.is_empty() => Ok(()),
            Some(Value::Object(object)) if object.is_empty() => Ok(()),
            Some(_) => Err(Refusal::of(name, format!("`{name}` is not supported: {why}"))),
        }
    }

    /// What nobody has read and may change the answer.
    pub(super) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        let has_effect = |name: &str| !WITHOUT_EFFECT.contains(&name);
        self.0.into_iter().filter(move |(name, value)| has_effect(name) && !value.is_null())
    }

    /// Refuses what nobody has read.
    pub(super) fn refuse_rest(self) -> Result<(), Refusal> {
        self.rest().next().map_or(Ok(()), |(name, _)| Err(unrecognized(&name)))
    }
}

/// The refusal of a field that nobody knows, in OpenAI's words.
pub(super) fn unrecognized(name: &str) -> Refusal {
    Refusal::of(name, format!("Unrecognized request argument supplied: {name}"))
}

/// The refusal of a value of the wrong type.
pub(super) fn mismatch(name: &str, wanted: &str, found: &Value) -> Refusal {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Refusal::of(name, format!("`{name}` must be {wanted}, not {found}"))
}

fn within<T: PartialOrd + Display>(
    name: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, Refusal> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = range.into_inner();
    Err(Refusal::of(name, format!("`{name}` must be between {least} and {most}, not {value}")))
}
