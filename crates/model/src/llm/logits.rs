//! Reads the scores that a graph gives each token of the vocabulary, whatever their width.

use std::fmt::Display;
use std::ops::Range;

use consort_stage::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType};

use super::buffers::{BlockId, Buffers};

/// Appends the logits of the last position of each row, as `f32`.
pub(crate) fn read_last(
    logits: &DynValue,
    rows: usize,
    vocabulary: usize,
    into: &mut Vec<f32>,
) -> Result<()> {
    match logits.dtype().tensor_type() {
        Some(TensorElementType::Float32) => {
            last::<f32>(logits, rows, vocabulary, |row| into.extend_from_slice(row))
        }
        Some(TensorElementType::Float16) => {
            last::<f16>(logits, rows, vocabulary, |row| widen(row, into))
        }
        Some(TensorElementType::Bfloat16) => {
            last::<bf16>(logits, rows, vocabulary, |row| widen(row, into))
        }
        _ => Err(unknown(logits.dtype())),
    }
}

/// Puts the logits behind the token at `place` of a run of one row into `into`, as `f32`, in place
/// of what is there.
pub(crate) fn read_place(
    logits: &DynValue,
    (place, tokens): (usize, usize),
    vocabulary: usize,
    into: &mut Vec<f32>,
) -> Result<()> {
    into.clear();
    let (place, size) = ((place, tokens), vocabulary);
    match logits.dtype().tensor_type() {
        Some(TensorElementType::Float32) => {
            at::<f32>(logits, place, size, |row| into.extend_from_slice(row))
        }
        Some(TensorElementType::Float16) => at::<f16>(logits, place, size, |row| widen(row, into)),
        Some(TensorElementType::Bfloat16) => {
            at::<bf16>(logits, place, size, |row| widen(row, into))
        }
        _ => Err(unknown(logits.dtype())),
    }
}

/// The logits in a part of a block, as `f32`; those of half the width are put into `widened`.
pub(crate) fn read<'a>(
    buffers: &'a mut Buffers,
    block: BlockId,
    (element, range): (TensorElementType, Range<usize>),
    widened: &'a mut Vec<f32>,
) -> Result<&'a mut [f32]> {
    widened.clear();
    match element {
        TensorElementType::Float32 => return Ok(&mut buffers.slice_mut(block)[range]),
        TensorElementType::Float16 => widen(&buffers.slice_mut::<f16>(block)[range], widened),
        TensorElementType::Bfloat16 => widen(&buffers.slice_mut::<bf16>(block)[range], widened),
        other => return Err(unknown(other)),
    }
    Ok(widened)
}

/// The error for logits of another type.
fn unknown(what: impl Display) -> Error {
    Error::unsupported(format!("the logits are a {what}; only FP32, FP16 and BF16 are known"))
}

/// Appends numbers of half the width, as `f32`.
fn widen<T>(half: &[T], into: &mut Vec<f32>)
where
    [T]: HalfFloatSliceExt,
{
    let start = into.len();
    into.resize(start + half.len(), 0.0);
    half.convert_to_f32_slice(&mut into[start..]);
}

/// Hands on the logits behind one of some tokens, as the graph computed them.
fn at<T: PrimitiveTensorElementType>(
    logits: &DynValue,
    (place, tokens): (usize, usize),
    vocabulary: usize,
    mut take: impl FnMut(&[T]),
) -> Result<()> {
    let (shape, values) = logits.try_extract_tensor::<T>().map_err(|error| unreadable(&error))?;
    let row = place * vocabulary..(place + 1) * vocabulary;
    match values.get(row) {
        Some(row) if values.len() == tokens * vocabulary => {
            take(row);
            Ok(())
        }
        _ => Err(Error::unsupported(format!(
            "the graph gives logits of shape {shape} for {tokens} tokens of a prompt, and not those \
             behind each"
        ))),
    }
}

fn unreadable(error: &ort::Error) -> Error {
    Error::internal(format!("the logits cannot be read: {error}"))
}

/// Hands on the logits of the last position of each row, as the graph computed them.
fn last<T: PrimitiveTensorElementType>(
    logits: &DynValue,
    rows: usize,
    vocabulary: usize,
    mut take: impl FnMut(&[T]),
) -> Result<()> {
    let (shape, values) = logits.try_extract_tensor::<T>().map_err(|error| unreadable(&error))?;
    let row = values.len() / rows;
    if shape.last() != Some(&(vocabulary as i64)) || row < vocabulary {
        return Err(Error::internal(format!(
            "the logits have shape {shape}; their last dimension should be {vocabulary}"
        )));
    }
    values.chunks(row).for_each(|row| take(&row[row.len() - vocabulary..]));
    Ok(())
}
