//! Hands tensors to ONNX Runtime and takes its outputs back, without copying their elements.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::{NoUninit, Pod};
use bytes::Bytes;
use consort_stage::{DataType, Error, Result, Tensor};
use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, TensorRef,
    ValueType,
};

/// The type of tensor that ONNX calls `element`; `None` for those that have no name on the wire.
pub(crate) fn datatype(element: TensorElementType) -> Option<DataType> {
    Some(match element {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        TensorElementType::Bfloat16 => DataType::Bf16,
        _ => return None,
    })
}

/// An input over the tensor's own bytes; they are copied only where they lie unaligned.
pub(crate) fn input(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    match tensor.datatype {
        DataType::Bool => bools(tensor),
        DataType::Uint8 => view::<u8>(tensor),
        DataType::Uint16 => view::<u16>(tensor),
        DataType::Uint32 => view::<u32>(tensor),
        DataType::Uint64 => view::<u64>(tensor),
        DataType::Int8 => view::<i8>(tensor),
        DataType::Int16 => view::<i16>(tensor),
        DataType::Int32 => view::<i32>(tensor),
        DataType::Int64 => view::<i64>(tensor),
        DataType::Fp16 => view::<f16>(tensor),
        DataType::Fp32 => view::<f32>(tensor),
        DataType::Fp64 => view::<f64>(tensor),
        DataType::Bf16 => view::<bf16>(tensor),
        DataType::Bytes => strings(tensor),
    }
}

fn view<T>(tensor: &Tensor) -> Result<SessionInputValue<'_>>
where
    T: Pod + PrimitiveTensorElementType + Debug,
{
    let shape = tensor.shape.as_slice();
    let value = if let Ok(elements) = bytemuck::try_cast_slice::<u8, T>(&tensor.data) {
        TensorRef::from_array_view((shape, elements)).map(Into::into)
    } else {
        // The bytes lie where a `T` may not.
        let elements = bytemuck::pod_collect_to_vec::<u8, T>(&tensor.data);
        OrtTensor::from_array((shape, elements)).map(Into::into)
    };
    value.map_err(|error| unusable(tensor, &error))
}

fn bools(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    let shape = tensor.shape.as_slice();
    let value = match bytemuck::checked::try_cast_slice::<u8, bool>(&tensor.data) {
        Ok(elements) => TensorRef::from_array_view((shape, elements)).map(Into::into),
        // Some client wrote another byte than 1 for true.
        Err(_) => OrtTensor::from_array((shape, tensor.to_bools()?)).map(Into::into),
    };
    value.map_err(|error| unusable(tensor, &error))
}

fn strings(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    let elements = tensor
        .to_strings()?
        .into_iter()
        .map(|element| match std::str::from_utf8(element) {
            // They are owned because the library takes no strings with a lifetime.
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            Ok(_) => Err(no_text(tensor, "a NUL character")),
            Err(_) => Err(no_text(tensor, "an element that is not UTF-8")),
        })
        .collect::<Result<Vec<_>>>()?;
    OrtTensor::from_string_array((tensor.shape.as_slice(), elements.as_slice()))
        .map(Into::into)
        .map_err(|error| unusable(tensor, &error))
}

fn no_text(tensor: &Tensor, what: &str) -> Error {
    Error::invalid(format!(
        "input `{}` has {what}, which the strings of an ONNX model cannot hold",
        tensor.name
    ))
}

fn unusable(tensor: &Tensor, error: &ort::Error) -> Error {
    Error::invalid(format!("input `{}`: {error}", tensor.name))
}

/// A tensor over the output's own memory, which lives as long as somebody reads it.
pub(crate) fn output(name: Arc<str>, value: DynValue) -> Result<Tensor> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(Error::unsupported(format!(
            "output `{name}` is a {}, not a tensor",
            value.dtype()
        )));
    };
    let (element, shape) = (*ty, shape.to_vec());
    let datatype = datatype(element).ok_or_else(|| {
        Error::unsupported(format!(
            "output `{name}` has elements of type {element}, which have no name in the protocol"
        ))
    })?;
    let data = match datatype {
        DataType::Bool => owned::<bool>(value),
        DataType::Uint8 => owned::<u8>(value),
        DataType::Uint16 => owned::<u16>(value),
        DataType::Uint32 => owned::<u32>(value),
        DataType::Uint64 => owned::<u64>(value),
        DataType::Int8 => owned::<i8>(value),
        DataType::Int16 => owned::<i16>(value),
        DataType::Int32 => owned::<i32>(value),
        DataType::Int64 => owned::<i64>(value),
        DataType::Fp16 => owned::<f16>(value),
        DataType::Fp32 => owned::<f32>(value),
        DataType::Fp64 => owned::<f64>(value),
        DataType::Bf16 => owned::<bf16>(value),
        DataType::Bytes => value
            .try_extract_strings()
            .map(|(_, elements)| consort_stage::encode_strings(&elements)),
    };
    let data = data.map_err(|error| Error::internal(format!("output `{name}`: {error}")))?;
    Ok(Tensor { name, datatype, shape, data })
}

/// An output that is read in place.
struct Output<T>(DynValue, PhantomData<T>);

impl<T: NoUninit + PrimitiveTensorElementType> AsRef<[u8]> for Output<T> {
    fn as_ref(&self) -> &[u8] {
        let elements = self.0.try_extract_tensor::<T>();
        let (_, elements) = elements.expect("it was read before it was wrapped");
        bytemuck::cast_slice(elements)
    }
}

fn owned<T>(value: DynValue) -> ort::Result<Bytes>
where
    T: NoUninit + PrimitiveTensorElementType + Send + 'static,
{
    value.try_extract_tensor::<T>()?;
    Ok(Bytes::from_owner(Output(value, PhantomData::<T>)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(value: &SessionInputValue<'_>) -> Vec<i64> {
        value.dtype().tensor_shape().unwrap().to_vec()
    }

    #[test]
    fn elements_are_used_in_place_when_they_are_aligned_and_copied_when_not() {
        crate::runtime::Runtime::get().expect("run `cargo xtask setup`");
        let bytes = Bytes::from_owner(vec![0_u8; 64]);
        for offset in 0..4 {
            let data = bytes.slice(offset..offset + 32);
            let tensor = Tensor::new("x", DataType::Fp64, vec![2, 2], data).unwrap();
            assert_eq!(shape_of(&input(&tensor).unwrap()), [2, 2]);
        }
    }

    #[test]
    fn any_byte_but_zero_is_true() {
        crate::runtime::Runtime::get().expect("run `cargo xtask setup`");
        let data = Bytes::from_static(&[0, 1, 255]);
        let tensor = Tensor::new("flag", DataType::Bool, vec![3], data).unwrap();
        let value = input(&tensor).unwrap();
        let value = value.view().downcast::<ort::value::DynTensorValueType>().unwrap();
        let (_, flags) = value.try_extract_tensor::<bool>().unwrap();
        assert_eq!(flags, [false, true, true]);
    }

    #[test]
    fn strings_that_onnx_cannot_hold_are_refused() {
        crate::runtime::Runtime::get().expect("run `cargo xtask setup`");
        for element in [b"a\0b".as_slice(), b"\xff"] {
            let tensor = Tensor::from_strings("text", &[1], &[element]);
            let error = input(&tensor).err().unwrap();
            assert!(error.message().contains("`text`"));
        }
    }

    #[test]
    fn a_tensor_comes_back_as_it_went_in() {
        crate::runtime::Runtime::get().expect("run `cargo xtask setup`");
        let value = OrtTensor::from_array(([2_i64, 1], vec![f16::ONE, f16::NEG_ONE])).unwrap();
        let tensor = output("y".into(), value.into_dyn()).unwrap();
        assert_eq!((tensor.datatype, &*tensor.shape), (DataType::Fp16, &[2, 1][..]));
        assert_eq!(&*tensor.to_slice::<f16>().unwrap(), [f16::ONE, f16::NEG_ONE]);
    }
}
