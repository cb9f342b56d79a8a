//! Tensors of several number types read as the one type that a backend computes with.

use std::borrow::Cow;

use consort_stage::{DataType, Error, Result, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// The elements of an `INT32` or `INT64` tensor.
pub(crate) fn integers(tensor: &Tensor) -> Result<Vec<i64>> {
    match tensor.datatype {
        DataType::Int32 => {
            let values = tensor.to_slice::<i32>()?;
            Ok(values.iter().map(|value| i64::from(*value)).collect())
        }
        _ => Ok(tensor.to_slice::<i64>()?.into_owned()),
    }
}

/// The elements of an `FP32` or `FP16` tensor.
pub(crate) fn floats(tensor: &Tensor) -> Result<Cow<'_, [f32]>> {
    match tensor.datatype {
        DataType::Fp16 => Ok(Cow::Owned(tensor.to_slice::<f16>()?.to_f32_vec())),
        _ => tensor.to_slice::<f32>(),
    }
}

/// `values` as a tensor of type `FP16`, or else `FP32`.
pub(crate) fn float_tensor(
    name: &std::sync::Arc<str>,
    datatype: DataType,
    shape: &[i64],
    values: Vec<f32>,
) -> Tensor {
    if datatype == DataType::Fp16 {
        let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
        return Tensor::from_vec(name.clone(), shape, values);
    }
    Tensor::from_vec(name.clone(), shape, values)
}

/// The size of the last dimension of `tensor` and the shape before it.
pub(crate) fn last_dimension(tensor: &Tensor) -> Result<(usize, &[i64])> {
    match tensor.shape.split_last() {
        Some((last, leading)) => Ok((*last as usize, leading)),
        None => Err(Error::invalid(format!(
            "tensor `{}` has no dimension, but at least one is needed",
            tensor.name
        ))
        .of_input(Some(&*tensor.name))),
    }
}
