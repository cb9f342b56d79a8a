//! Reads single values as the types of fields.

use std::fmt::Display;
use std::ops::RangeInclusive;

use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, Value};

use crate::nearest::did_you_mean;
use crate::tree::{Syntax, Value as Written};

/// Why a value does not fit its field.
pub(super) struct Misread {
    /// What is wrong, to stand behind the field's name.
    pub(super) message: String,
    /// What would be right.
    pub(super) help: Option<String>,
}

/// Enum values that are named in full when none is near: more would drown the message.
const MAX_NAMED: usize = 16;

/// Reads `value` as a field of this kind.
pub(super) fn read(kind: &Kind, value: &Written, syntax: Syntax) -> Result<Value, Misread> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            integer(value, i32::MIN..=i32::MAX).map(Value::I32)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            integer(value, i64::MIN..=i64::MAX).map(Value::I64)
        }
        Kind::Uint32 | Kind::Fixed32 => integer(value, u32::MIN..=u32::MAX).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => integer(value, u64::MIN..=u64::MAX).map(Value::U64),
        Kind::Float => float(value).map(|value| Value::F32(value as f32)),
        Kind::Double => float(value).map(Value::F64),
        Kind::Bool => switch(value).map(Value::Bool),
        Kind::String => string(value, syntax).map(Value::String),
        Kind::Bytes => string(value, syntax).map(|text| Value::Bytes(text.into_bytes().into())),
        Kind::Enum(names) => enumerated(names, value, syntax).map(Value::EnumNumber),
        Kind::Message(_) => Err(misread("a group of fields", value)),
    }
}

/// A parameter given as its string alone, `parameters: {key: value}`, which YAML allows.
pub(super) fn as_parameter(message: &MessageDescriptor, value: &Written) -> Result<Value, Misread> {
    let field = message.get_field_by_name("string_value");
    let field = field.ok_or_else(|| misread("a group of fields", value))?;
    let mut parameter = DynamicMessage::new(message.clone());
    parameter.set_field(&field, Value::String(string(value, Syntax::Yaml)?));
    Ok(Value::Message(parameter))
}

fn misread(expected: &str, value: &Written) -> Misread {
    Misread { message: format!("must be {expected}, not {}", value.describe()), help: None }
}

/// The integer, which must lie in `range`: all that `T` can hold.
fn integer<T>(value: &Written, range: RangeInclusive<T>) -> Result<T, Misread>
where
    T: TryFrom<i128> + Display,
{
    let Written::Number(text) = value else { return Err(misread("an integer", value)) };
    let number = parse_integer(text).ok_or_else(|| misread("an integer", value))?;
    T::try_from(number).map_err(|_| Misread {
        message: format!("must be between {} and {}, not {text}", range.start(), range.end()),
        help: None,
    })
}

/// Decimal, `0x` hexadecimal or `0` octal, with or without a sign.
fn parse_integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let octal = digits.strip_prefix('0').filter(|rest| !rest.is_empty());
    let (digits, radix) = match (hex, octal) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => (digits, 10),
    };
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

fn float(value: &Written) -> Result<f64, Misread> {
    let (Written::Number(text) | Written::Word(text)) = value else {
        return Err(misread("a number", value));
    };
    let digits = text.strip_prefix('-').unwrap_or(text);
    let starts_right = matches!(value, Written::Number(_))
        && digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let is_word = ["inf", "infinity", "nan"].iter().any(|word| digits.eq_ignore_ascii_case(word));
    let text = if starts_right { text.trim_end_matches(['f', 'F']) } else { text };
    let number = text.parse().ok().filter(|_| starts_right || is_word);
    number.ok_or_else(|| misread("a number", value))
}

fn switch(value: &Written) -> Result<bool, Misread> {
    match value {
        Written::Bool(value) => Ok(*value),
        Written::Word(text) | Written::Number(text) => match text.as_str() {
            "true" | "True" | "t" | "1" => Ok(true),
            "false" | "False" | "f" | "0" => Ok(false),
            _ => Err(misread("`true` or `false`", value)),
        },
        _ => Err(misread("`true` or `false`", value)),
    }
}

fn string(value: &Written, syntax: Syntax) -> Result<String, Misread> {
    match (value, syntax) {
        (Written::Text(text), _) | (Written::Number(text), Syntax::Yaml) => Ok(text.clone()),
        (Written::Bool(value), Syntax::Yaml) => Ok(value.to_string()),
        (Written::Word(text) | Written::Number(text), Syntax::Text) => Err(Misread {
            help: Some(format!("write \"{text}\"")),
            ..misread("a string in quotes", value)
        }),
        _ => Err(misread("a string", value)),
    }
}

fn enumerated(names: &EnumDescriptor, value: &Written, syntax: Syntax) -> Result<i32, Misread> {
    match (value, syntax) {
        (Written::Word(name), _) | (Written::Text(name), Syntax::Yaml) => {
            let found = names.get_value_by_name(name);
            found.map(|found| found.number()).ok_or_else(|| no_such_name(names, name))
        }
        (Written::Number(text), _) => {
            let number = parse_integer(text).and_then(|number| i32::try_from(number).ok());
            let found = number.and_then(|number| names.get_value(number));
            found.map(|found| found.number()).ok_or_else(|| no_such_name(names, text))
        }
        (Written::Text(name), Syntax::Text) => Err(Misread {
            help: Some(format!("write {name}")),
            ..misread("a name without quotes", value)
        }),
        _ => Err(misread("a name", value)),
    }
}

fn no_such_name(names: &EnumDescriptor, name: &str) -> Misread {
    let known: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
    let listed =
        || (known.len() <= MAX_NAMED).then(|| format!("the values are: {}", known.join(", ")));
    let help = did_you_mean(name, known.iter().map(String::as_str)).or_else(listed);
    Misread { message: format!("has no value `{name}`"), help }
}
