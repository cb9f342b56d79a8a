//! What a model takes and gives: the names, types and shapes of its tensors.

use std::fmt;
use std::sync::Arc;

use crate::DataType;

/// The dimension that may have any size.
pub const VARIABLE: i64 = -1;

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's name.
    pub name: Arc<str>,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its dimensions without the batch dimension; [`VARIABLE`] where any size goes.
    pub dims: Vec<i64>,
    /// The dimensions that the backend sees instead of `dims`, when they differ.
    pub reshape: Option<Vec<i64>>,
    /// Whether a request may leave it out.
    pub is_optional: bool,
    /// Whether requests in which it has different shapes may share a batch, unpadded: the backend
    /// is given an input's elements in one dimension, and an output is cut by an input's shape.
    pub is_ragged: bool,
}

impl TensorSpec {
    /// A required tensor without reshape.
    pub fn new(name: &str, datatype: DataType, dims: &[i64]) -> Self {
        Self {
            name: name.into(),
            datatype,
            dims: dims.to_vec(),
            reshape: None,
            is_optional: false,
            is_ragged: false,
        }
    }

    /// Whether a tensor of this shape, batch dimension left away, fits.
    pub fn accepts(&self, shape: &[i64]) -> bool {
        self.dims.len() == shape.len()
            && self.dims.iter().zip(shape).all(|(dim, size)| *dim == VARIABLE || dim == size)
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The largest batch; 0 when tensors have no batch dimension.
    pub max_batch_size: i64,
    /// The inputs, in the configuration's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, in the configuration's order.
    pub outputs: Vec<TensorSpec>,
    /// Whether one request may have any number of responses.
    pub is_decoupled: bool,
}

impl Signature {
    /// Whether every tensor has a leading batch dimension.
    pub fn is_batching(&self) -> bool {
        self.max_batch_size > 0
    }

    /// The input with this name.
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|spec| &*spec.name == name)
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| &*spec.name == name)
    }

    /// The full shape of `spec` as callers see it, with -1 for the batch when there is one.
    pub fn full_shape(&self, spec: &TensorSpec) -> Vec<i64> {
        let batch = self.is_batching().then_some(VARIABLE);
        batch.into_iter().chain(spec.dims.iter().copied()).collect()
    }
}

/// Shows a shape the way Triton's messages do: `[-1,16]`.
pub struct ShapeText<'a>(pub &'a [i64]);

impl fmt::Display for ShapeText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[")?;
        for (index, dim) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{dim}")?;
        }
        formatter.write_str("]")
    }
}
