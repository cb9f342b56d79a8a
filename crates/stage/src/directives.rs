//! What the reserved parameters of a request tell the scheduler of its model.

use std::sync::Arc;
use std::time::Duration;

use crate::{Error, Parameter, Request, Result};

/// The parameter for a request's place among others; 0 leaves it to the model.
const PRIORITY: &str = "priority";
/// The parameter for how many microseconds a request may wait in a queue.
const TIMEOUT: &str = "timeout";
/// The parameters that make a request part of a sequence.
const SEQUENCE: [&str; 3] = ["sequence_id", "sequence_start", "sequence_end"];

/// The name that joins the requests of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CorrelationId {
    /// A number above zero.
    Number(u64),
    /// A text that is not empty.
    Text(Arc<str>),
}

/// A request's place in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencePlace {
    /// Which sequence.
    pub id: CorrelationId,
    /// Whether the request is its first.
    pub is_start: bool,
    /// Whether the request is its last.
    pub is_end: bool,
}

impl Request {
    /// The priority asked for, 1 being the highest; 0 when none is.
    pub fn priority(&self) -> u64 {
        self.parameters.get(PRIORITY).and_then(Parameter::as_u64).unwrap_or(0)
    }

    /// How long the request may wait in a queue, when it says.
    pub fn queue_timeout(&self) -> Option<Duration> {
        let timeout_us = self.parameters.get(TIMEOUT).and_then(Parameter::as_u64);
        timeout_us.filter(|timeout_us| *timeout_us > 0).map(Duration::from_micros)
    }

    /// The request's place in a sequence; `None` when it has no correlation id, which is also
    /// what an id of zero or an empty one means.
    ///
    /// Errors when a parameter of a sequence has the wrong type.
    pub fn sequence(&self) -> Result<Option<SequencePlace>> {
        let [id, start, end] = SEQUENCE;
        let id = match self.parameters.get(id) {
            None => return Ok(None),
            Some(Parameter::String(text)) if text.is_empty() => return Ok(None),
            Some(Parameter::String(text)) => CorrelationId::Text(text.as_str().into()),
            Some(number) => match number.as_u64() {
                Some(0) => return Ok(None),
                Some(number) => CorrelationId::Number(number),
                None => {
                    return Err(wrong_type(id, "a whole number that is not negative, or a text"));
                }
            },
        };
        Ok(Some(SequencePlace { id, is_start: self.flag(start)?, is_end: self.flag(end)? }))
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.parameters.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| wrong_type(name, "a boolean")),
        }
    }
}

/// Whether a parameter speaks to the scheduler and not to the model.
pub fn is_directive(name: &str) -> bool {
    name == PRIORITY || name == TIMEOUT || SEQUENCE.contains(&name)
}

fn wrong_type(name: &str, expected: &str) -> Error {
    Error::invalid(format!("parameter `{name}` must be {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parameters: &[(&str, Parameter)]) -> Request {
        let parameters = parameters.iter();
        let parameters = parameters.map(|(name, value)| ((*name).to_owned(), value.clone()));
        Request { parameters: parameters.collect(), ..Request::default() }
    }

    #[test]
    fn a_request_without_a_name_for_its_sequence_is_in_none() {
        for id in [Parameter::Int(0), Parameter::Uint(0), Parameter::String(String::new())] {
            assert_eq!(request(&[("sequence_id", id)]).sequence().unwrap(), None);
        }
        let start = request(&[("sequence_start", Parameter::Bool(true))]);
        assert_eq!(start.sequence().unwrap(), None);
    }

    #[test]
    fn a_sequence_has_a_number_or_a_text() {
        let place = request(&[
            ("sequence_id", Parameter::Int(7)),
            ("sequence_start", Parameter::Bool(true)),
        ]);
        let place = place.sequence().unwrap().unwrap();
        assert_eq!(
            (place.id, place.is_start, place.is_end),
            (CorrelationId::Number(7), true, false)
        );
        let text = request(&[("sequence_id", Parameter::String("a".into()))]);
        assert_eq!(text.sequence().unwrap().unwrap().id, CorrelationId::Text("a".into()));
    }

    #[test]
    fn a_parameter_of_another_type_is_refused_by_name() {
        let negative = request(&[("sequence_id", Parameter::Int(-1))]);
        assert!(negative.sequence().unwrap_err().message().contains("sequence_id"));
        let number = ("sequence_end", Parameter::Int(1));
        let wrong = request(&[("sequence_id", Parameter::Int(1)), number]);
        assert!(wrong.sequence().unwrap_err().message().contains("sequence_end"));
    }

    #[test]
    fn time_and_priority_are_read_where_they_are_numbers() {
        let asked = request(&[("priority", Parameter::Uint(2)), ("timeout", Parameter::Int(1500))]);
        assert_eq!(asked.priority(), 2);
        assert_eq!(asked.queue_timeout(), Some(Duration::from_micros(1500)));
        assert_eq!(request(&[("timeout", Parameter::Int(0))]).queue_timeout(), None);
    }
}
