//! Tensor elements in JSON: read into a tensor's bytes, and written from them.

use std::fmt;

use consort_stage::{DataType, Element, Error, Result, Strings, Tensor};
use serde::Serialize;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Wanted, mismatch};

/// The elements read from JSON.
#[derive(Debug, Default)]
pub(super) struct Elements {
    /// Their bytes, as a tensor has them; cut off where they would exceed the limit.
    pub(super) data: Vec<u8>,
    /// How many there are.
    pub(super) count: usize,
    /// How many bytes they take, those that were cut off included.
    pub(super) size: usize,
    is_out_of_range: bool,
}

/// What `data` may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// An array of any depth.
    Nested,
    /// One element, or a flat array of them.
    Flat,
}

/// Reads the elements of input `name` from `member`, keeping at most `limit` bytes of them.
pub(super) fn read_elements(
    member: &RawValue,
    (field, name): (&str, &str),
    (datatype, layout): (DataType, Layout),
    limit: usize,
) -> Result<Elements> {
    if matches!(datatype, DataType::Fp16 | DataType::Bf16) {
        return Err(Error::invalid(format!(
            "receiving {datatype} data via JSON is not supported. Please use the binary data \
             format for input {name}"
        )));
    }
    let mut elements = Elements::default();
    let depth = match layout {
        Layout::Nested if !member.get().starts_with('[') => {
            return Err(mismatch(field, Wanted::Array));
        }
        Layout::Nested => usize::MAX,
        Layout::Flat => 1,
    };
    let reader = Reader { datatype, elements: &mut elements, limit, depth };
    let mut deserializer = serde_json::Deserializer::from_str(member.get());
    match reader.deserialize(&mut deserializer) {
        Ok(()) => Ok(elements),
        Err(_) if elements.is_out_of_range => Err(Error::internal(format!(
            "Unable to parse '{field}': a value is out of the range of {datatype}"
        ))),
        Err(_) => Err(mismatch(field, wanted(datatype))),
    }
}

fn wanted(datatype: DataType) -> Wanted {
    match datatype {
        DataType::Bool => Wanted::Boolean,
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => {
            Wanted::Unsigned
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Wanted::Signed,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => Wanted::Double,
        DataType::Bytes => Wanted::String,
    }
}

/// Reads one element or an array of them, and calls itself for the arrays within.
struct Reader<'e> {
    datatype: DataType,
    elements: &'e mut Elements,
    limit: usize,
    depth: usize,
}

impl Reader<'_> {
    fn push(self, prefix: &[u8], element: &[u8]) {
        let Elements { data, count, size, .. } = self.elements;
        *count += 1;
        *size += prefix.len() + element.len();
        if *size <= self.limit {
            data.extend_from_slice(prefix);
            data.extend_from_slice(element);
        }
    }

    fn push_number(self, element: &[u8]) {
        self.push(&[], element);
    }

    fn push_integer<T: TryFrom<i128>, E: de::Error>(self, value: i128) -> Result<(), E> {
        if T::try_from(value).is_err() {
            self.elements.is_out_of_range = true;
            return Err(E::custom("out of range"));
        }
        // The low bytes of a wide integer are the narrow integer that it fits.
        self.push_number(&value.to_le_bytes()[..size_of::<T>()]);
        Ok(())
    }

    fn integer<E: de::Error>(self, value: i128) -> Result<(), E> {
        match self.datatype {
            DataType::Bool => self.push_number(&[u8::from(value != 0)]),
            DataType::Uint8 => return self.push_integer::<u8, E>(value),
            DataType::Uint16 => return self.push_integer::<u16, E>(value),
            DataType::Uint32 => return self.push_integer::<u32, E>(value),
            DataType::Uint64 => return self.push_integer::<u64, E>(value),
            DataType::Int8 => return self.push_integer::<i8, E>(value),
            DataType::Int16 => return self.push_integer::<i16, E>(value),
            DataType::Int32 => return self.push_integer::<i32, E>(value),
            DataType::Int64 => return self.push_integer::<i64, E>(value),
            DataType::Fp32 => self.push_number(&(value as f32).to_le_bytes()),
            DataType::Fp64 => self.push_number(&(value as f64).to_le_bytes()),
            DataType::Fp16 | DataType::Bf16 | DataType::Bytes => {
                return Err(E::invalid_type(de::Unexpected::Other("number"), &self));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.datatype.name())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        if self.datatype != DataType::Bool {
            return Err(E::invalid_type(de::Unexpected::Bool(value), &self));
        }
        self.push_number(&[u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        match self.datatype {
            DataType::Fp32 => {
                let narrow = value as f32;
                if narrow.is_infinite() {
                    self.elements.is_out_of_range = true;
                    return Err(E::custom("out of range"));
                }
                self.push_number(&narrow.to_le_bytes());
            }
            DataType::Fp64 => self.push_number(&value.to_le_bytes()),
            _ => return Err(E::invalid_type(de::Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        if self.datatype != DataType::Bytes {
            return Err(E::invalid_type(de::Unexpected::Other("string"), &self));
        }
        let length = (value.len() as u32).to_le_bytes();
        self.push(&length, value.as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        };
        loop {
            let element = Reader {
                datatype: self.datatype,
                elements: self.elements,
                limit: self.limit,
                depth,
            };
            if array.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }
}

/// Writes the elements of `tensor` with commas between them.
pub(super) fn write_elements(out: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    match tensor.datatype {
        DataType::Bool => write_list(out, tensor.data.iter(), |out, byte| {
            write(out, &(*byte != 0));
        }),
        DataType::Uint8 => write_numbers::<u8>(out, tensor)?,
        DataType::Uint16 => write_numbers::<u16>(out, tensor)?,
        DataType::Uint32 => write_numbers::<u32>(out, tensor)?,
        DataType::Uint64 => write_numbers::<u64>(out, tensor)?,
        DataType::Int8 => write_numbers::<i8>(out, tensor)?,
        DataType::Int16 => write_numbers::<i16>(out, tensor)?,
        DataType::Int32 => write_numbers::<i32>(out, tensor)?,
        DataType::Int64 => write_numbers::<i64>(out, tensor)?,
        DataType::Fp32 => write_list(out, tensor.to_slice::<f32>()?.iter(), |out, value| {
            match not_a_number(f64::from(*value)) {
                Some(name) => out.extend_from_slice(name.as_bytes()),
                None => write(out, value),
            }
        }),
        DataType::Fp64 => write_list(out, tensor.to_slice::<f64>()?.iter(), |out, value| {
            match not_a_number(*value) {
                Some(name) => out.extend_from_slice(name.as_bytes()),
                None => write(out, value),
            }
        }),
        DataType::Bytes => {
            let strings = Strings::new(&tensor.data).collect::<Result<Vec<_>>>()?;
            write_list(out, strings.into_iter(), write_string);
        }
        DataType::Fp16 | DataType::Bf16 => {
            return Err(Error::invalid(format!(
                "sending {} data via JSON is not supported. Please use the binary data format \
                 for output {}",
                tensor.datatype, tensor.name
            )));
        }
    }
    Ok(())
}

fn write_numbers<T: Element + Serialize>(out: &mut Vec<u8>, tensor: &Tensor) -> Result<()> {
    write_list(out, tensor.to_slice::<T>()?.iter(), write);
    Ok(())
}

fn write_list<I: Iterator>(out: &mut Vec<u8>, items: I, write: impl Fn(&mut Vec<u8>, I::Item)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

/// The name of a value that JSON has none for; Triton writes these and Python reads them.
fn not_a_number(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// Writes any value that JSON has words for.
pub(super) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("writing to memory does not fail");
}

/// Writes an element of a `BYTES` tensor; bytes that are not UTF-8 stay as they are, as in Triton.
fn write_string(out: &mut Vec<u8>, element: &[u8]) {
    if let Ok(text) = std::str::from_utf8(element) {
        return write(out, text);
    }
    out.push(b'"');
    for chunk in element.utf8_chunks() {
        let quoted = serde_json::Value::from(chunk.valid()).to_string();
        out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
        out.extend_from_slice(chunk.invalid());
    }
    out.push(b'"');
}
