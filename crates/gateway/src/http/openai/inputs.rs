//! What a model is told, as tensors in whatever type and shape it takes them.

use consort_stage::{DataType, Signature, Tensor, TensorSpec, VARIABLE};
use serde_json::Value;

use super::error::Refusal;

/// A value for an input of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Input {
    /// True or false.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// Any number.
    Number(f64),
    /// Whole numbers in a row.
    Integers(Vec<i64>),
    /// Numbers in a row.
    Numbers(Vec<f64>),
    /// Texts; one for an input that takes one.
    Texts(Vec<String>),
}

impl Input {
    /// What a field of the request that is named like an input stands for.
    pub(super) fn from_json(value: Value) -> Option<Self> {
        Some(match value {
            Value::Bool(flag) => Self::Flag(flag),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Integer(whole),
                None => Self::Number(number.as_f64()?),
            },
            Value::String(text) => Self::Texts(vec![text]),
            Value::Array(list) => {
                let texts = list.into_iter().map(|text| text.as_str().map(str::to_owned));
                Self::Texts(texts.collect::<Option<_>>()?)
            }
            Value::Null | Value::Object(_) => return None,
        })
    }
}

impl Input {
    fn count(&self) -> usize {
        match self {
            Self::Flag(_) | Self::Integer(_) | Self::Number(_) => 1,
            Self::Integers(list) => list.len(),
            Self::Numbers(list) => list.len(),
            Self::Texts(list) => list.len(),
        }
    }
}

/// A field of the request and the input that it becomes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    /// The field.
    pub(super) field: String,
    /// The input.
    pub(super) input: String,
    /// What it is set to.
    pub(super) value: Input,
}

impl Setting {
    pub(super) fn new(field: &str, input: &str, value: Input) -> Self {
        Self { field: field.to_owned(), input: input.to_owned(), value }
    }

    /// The tensor for the input `spec` of a model with this signature.
    pub(super) fn tensor(
        &self,
        signature: &Signature,
        spec: &TensorSpec,
    ) -> Result<Tensor, Refusal> {
        tensor(signature, spec, &self.value).ok_or_else(|| {
            let (field, input, kind) = (&self.field, &spec.name, spec.datatype.config_name());
            let text = format!("`{field}` does not fit input `{input}` of {kind}");
            Refusal::of(field, text)
        })
    }
}

/// The tensor of `value` for one request, or nothing when the input holds something else.
pub(super) fn tensor(signature: &Signature, spec: &TensorSpec, value: &Input) -> Option<Tensor> {
    let shape = shape(&signature.full_shape(spec), value.count() as i64)?;
    let name = spec.name.clone();
    Some(match (spec.datatype, value) {
        (DataType::Bool, Input::Flag(flag)) => Tensor::from_bools(name, &shape, &[*flag]),
        (DataType::Bytes, Input::Texts(texts)) => Tensor::from_strings(name, &shape, texts),
        (DataType::Fp32, Input::Number(value)) => {
            Tensor::from_vec(name, &shape, vec![*value as f32])
        }
        (DataType::Fp32, Input::Integer(value)) => {
            Tensor::from_vec(name, &shape, vec![*value as f32])
        }
        (DataType::Fp64, Input::Number(value)) => Tensor::from_vec(name, &shape, vec![*value]),
        (DataType::Fp64, Input::Integer(value)) => {
            Tensor::from_vec(name, &shape, vec![*value as f64])
        }
        (DataType::Fp32, Input::Numbers(values)) => {
            Tensor::from_vec(name, &shape, values.iter().map(|value| *value as f32).collect())
        }
        (DataType::Int32, Input::Integers(values)) => {
            let values = values.iter().map(|value| i32::try_from(*value).ok());
            Tensor::from_vec(name, &shape, values.collect::<Option<Vec<_>>>()?)
        }
        (DataType::Int32, Input::Integer(value)) => {
            Tensor::from_vec(name, &shape, vec![i32::try_from(*value).ok()?])
        }
        (DataType::Uint32, Input::Integer(value)) => {
            Tensor::from_vec(name, &shape, vec![u32::try_from(*value).ok()?])
        }
        (DataType::Int64, Input::Integer(value)) => Tensor::from_vec(name, &shape, vec![*value]),
        // The bits of a seed are what counts; nothing else of this type comes from a request.
        (DataType::Uint64, Input::Integer(value)) => {
            Tensor::from_vec(name, &shape, vec![*value as u64])
        }
        _ => return None,
    })
}

/// The shape for `count` elements: the innermost free dimension takes them, any other is 1.
fn shape(dims: &[i64], count: i64) -> Option<Vec<i64>> {
    let mut shape = dims.to_vec();
    let mut rest = count;
    for dim in shape.iter_mut().rev().filter(|dim| **dim == VARIABLE) {
        *dim = std::mem::replace(&mut rest, 1);
    }
    (shape.iter().product::<i64>() == count).then_some(shape)
}
