//! Maps a flat JSON object to tensors and parameters, led by the model's signature.

use bytes::Bytes;
use consort_stage::{DataType, Error, Request, Result, Signature, Tensor, TensorSpec, VARIABLE};
use serde_json::value::RawValue;

use crate::http::body::too_large;
use crate::http::error::Failure;
use crate::http::json::{self, Member, Members};
use crate::http::json_tensor::{Layout, read_elements};
use crate::http::parameters;

/// The input by which a decoupled language model is told to answer token by token.
const STREAM: &str = "stream";

/// Reads the request that a JSON object stands for.
pub(super) fn parse(signature: &Signature, body: &Bytes, limit: usize) -> Result<Request, Failure> {
    let Members(members) = json::document(body).map_err(Failure::of_the_caller)?;
    let mut mapping = Mapping { signature, limit, request: Request::default() };
    // The id comes first, wherever it stands: what is wrong with the rest is logged with it.
    for (_, value) in members.iter().filter(|(key, _)| key == "id") {
        let id = json::text("id", value).map_err(Failure::of_the_caller)?;
        mapping.request.id = id.into_owned();
    }
    for (key, value) in members {
        let added = match &*key {
            "id" => Ok(()),
            "parameters" => mapping.add_nested(value),
            _ => mapping.add((key, value)),
        };
        let id = &mapping.request.id;
        added.map_err(|error| Failure::of_the_caller(error).of_request(id))?;
    }
    Ok(mapping.request)
}

/// Sets an optional BOOL input `stream` that the request leaves out.
///
/// Who asks for a stream wants one, and a model that takes such an input answers once without it.
pub(super) fn ask_for_a_stream(signature: &Signature, request: &mut Request) {
    let takes_it = |spec: &&TensorSpec| spec.datatype == DataType::Bool && spec.is_optional;
    let Some(spec) = signature.input(STREAM).filter(takes_it) else {
        return;
    };
    if request.input(STREAM).is_some() {
        return;
    }
    if let Ok(shape) = deduce(&signature.full_shape(spec), 1) {
        request.inputs.push(Tensor {
            name: spec.name.clone(),
            datatype: DataType::Bool,
            shape,
            data: Bytes::from_static(&[1]),
        });
    }
}

struct Mapping<'s> {
    signature: &'s Signature,
    limit: usize,
    request: Request,
}

impl Mapping<'_> {
    fn add_nested(&mut self, value: &RawValue) -> Result<()> {
        if !value.get().starts_with('{') {
            return Err(Error::invalid(
                "Expected JSON object for keyword: 'parameters': attempt to access JSON \
                 non-object as object",
            ));
        }
        let mut members = json::members("parameters", Some(value))?.into_iter();
        members.try_for_each(|member| self.add(member))
    }

    fn add(&mut self, (key, value): Member<'_>) -> Result<()> {
        let Some(spec) = self.signature.input(&key) else {
            let parameter = parameters::custom(&key, value)?;
            self.request.parameters.insert(key.into_owned(), parameter);
            return Ok(());
        };
        if self.request.input(&key).is_some() {
            return Err(Error::invalid(format!("input '{key}' already exists in request")));
        }
        let tensor = self.tensor(spec, value)?;
        self.request.inputs.push(tensor);
        Ok(())
    }

    fn tensor(&self, spec: &TensorSpec, value: &RawValue) -> Result<Tensor> {
        let kind = (spec.datatype, Layout::Flat);
        let elements = read_elements(value, (&spec.name, &spec.name), kind, self.limit)?;
        if elements.size > self.limit {
            return Err(too_large(elements.size, self.limit));
        }
        let shape = deduce(&self.signature.full_shape(spec), elements.count).map_err(|Uneven| {
            Error::invalid(format!(
                "The schema can not convert input '{}' to tensor with proper shape",
                spec.name
            ))
        })?;
        Ok(Tensor {
            name: spec.name.clone(),
            datatype: spec.datatype,
            shape,
            data: elements.data.into(),
        })
    }
}

/// A number of elements does not fill a shape.
#[derive(Debug, PartialEq)]
struct Uneven;

/// The shape for `count` elements: the innermost variable dimension takes what the fixed ones
/// leave, and every other is 1.
fn deduce(dims: &[i64], count: usize) -> Result<Vec<i64>, Uneven> {
    let mut shape = dims.to_vec();
    let mut rest = count as i64;
    for dim in dims.iter().filter(|dim| **dim != VARIABLE) {
        match rest.checked_rem(*dim) {
            Some(0) => rest /= dim,
            // A dimension of no size holds nothing, and nothing is left over.
            None if rest == 0 => {}
            _ => return Err(Uneven),
        }
    }
    for dim in shape.iter_mut().rev().filter(|dim| **dim == VARIABLE) {
        *dim = std::mem::replace(&mut rest, 1);
    }
    let is_filled = rest == 1 || dims.contains(&0);
    is_filled.then_some(shape).ok_or(Uneven)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_variable_dimension_takes_what_the_fixed_ones_leave() {
        assert_eq!(deduce(&[-1, 1], 1), Ok(vec![1, 1]));
        assert_eq!(deduce(&[-1, 1], 3), Ok(vec![3, 1]));
        assert_eq!(deduce(&[-1, -1], 3), Ok(vec![1, 3]));
        assert_eq!(deduce(&[-1, -1, 2], 6), Ok(vec![1, 3, 2]));
        assert_eq!(deduce(&[-1], 0), Ok(vec![0]));
        assert_eq!(deduce(&[-1, -1], 0), Ok(vec![1, 0]));
        assert_eq!(deduce(&[], 1), Ok(vec![]));
    }

    #[test]
    fn a_count_that_leaves_something_over_is_uneven() {
        for (dims, count) in [(&[2_i64][..], 1), (&[2], 4), (&[1], 0), (&[-1, 2], 3), (&[], 2)] {
            assert_eq!(deduce(dims, count), Err(Uneven), "{dims:?} {count}");
        }
    }
}
