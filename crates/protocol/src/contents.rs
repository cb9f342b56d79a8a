//! Tensor elements in the typed fields of a message, read into the raw bytes that stages use.

use bytes::Bytes;
use consort_stage::{DataType, encode_strings};

use crate::InferTensorContents;

/// Why typed fields cannot be the data of a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// They hold elements of another type.
    Type(DataType),
    /// An element is too large for the tensor's type.
    Range(i64),
}

/// The raw bytes of the elements in `contents`.
pub(crate) fn encode(contents: &InferTensorContents, datatype: DataType) -> Result<Bytes, Misfit> {
    let field = field_of(datatype);
    let filled = filled(contents);
    if let Some((found, _)) =
        filled.into_iter().find(|(kind, is_filled)| *is_filled && Some(*kind) != field)
    {
        return Err(Misfit::Type(found));
    }
    Ok(match datatype {
        DataType::Bool => contents.bool_contents.iter().map(|v| u8::from(*v)).collect(),
        DataType::Int8 => {
            narrow(&contents.int_contents, |v| Some(i8::try_from(v).ok()?.to_le_bytes()))?
        }
        DataType::Int16 => {
            narrow(&contents.int_contents, |v| Some(i16::try_from(v).ok()?.to_le_bytes()))?
        }
        DataType::Int32 => plain(&contents.int_contents, i32::to_le_bytes),
        DataType::Int64 => plain(&contents.int64_contents, i64::to_le_bytes),
        DataType::Uint8 => {
            narrow(&contents.uint_contents, |v| Some(u8::try_from(v).ok()?.to_le_bytes()))?
        }
        DataType::Uint16 => {
            narrow(&contents.uint_contents, |v| Some(u16::try_from(v).ok()?.to_le_bytes()))?
        }
        DataType::Uint32 => plain(&contents.uint_contents, u32::to_le_bytes),
        DataType::Uint64 => plain(&contents.uint64_contents, u64::to_le_bytes),
        DataType::Fp32 => plain(&contents.fp32_contents, f32::to_le_bytes),
        DataType::Fp64 => plain(&contents.fp64_contents, f64::to_le_bytes),
        DataType::Bytes => encode_strings(&contents.bytes_contents),
        // No field holds them, so every field is empty here.
        DataType::Fp16 | DataType::Bf16 => Bytes::new(),
    })
}

/// The type that the field for `datatype` is called after; narrow integers share the 32-bit ones.
fn field_of(datatype: DataType) -> Option<DataType> {
    Some(match datatype {
        DataType::Int8 | DataType::Int16 => DataType::Int32,
        DataType::Uint8 | DataType::Uint16 => DataType::Uint32,
        DataType::Fp16 | DataType::Bf16 => return None,
        other => other,
    })
}

fn filled(contents: &InferTensorContents) -> [(DataType, bool); 8] {
    [
        (DataType::Bool, !contents.bool_contents.is_empty()),
        (DataType::Int32, !contents.int_contents.is_empty()),
        (DataType::Int64, !contents.int64_contents.is_empty()),
        (DataType::Uint32, !contents.uint_contents.is_empty()),
        (DataType::Uint64, !contents.uint64_contents.is_empty()),
        (DataType::Fp32, !contents.fp32_contents.is_empty()),
        (DataType::Fp64, !contents.fp64_contents.is_empty()),
        (DataType::Bytes, !contents.bytes_contents.is_empty()),
    ]
}

fn plain<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Bytes {
    values.iter().copied().flat_map(bytes).collect()
}

fn narrow<T: Copy + Into<i64>, const N: usize>(
    values: &[T],
    bytes: fn(T) -> Option<[u8; N]>,
) -> Result<Bytes, Misfit> {
    let mut data = Vec::with_capacity(values.len() * N);
    for value in values {
        data.extend(bytes(*value).ok_or_else(|| Misfit::Range((*value).into()))?);
    }
    Ok(data.into())
}
