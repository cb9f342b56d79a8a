//! A named tensor whose elements are raw little-endian bytes, shared and never copied on a clone.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::signature::ShapeText;
use crate::{DataType, Element, Error, Result, Strings, encode_strings};

/// A tensor as it travels: name, type, shape and row-major little-endian data.
///
/// `BYTES` elements lie one after another, each behind its `u32` length.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name that the model or the ensemble gives it.
    pub name: Arc<str>,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its full shape, batch dimension included; never negative.
    pub shape: Vec<i64>,
    /// Its elements.
    pub data: Bytes,
}

impl Tensor {
    /// A tensor over `data`, after checking that the shape and the bytes agree.
    pub fn new(
        name: impl Into<Arc<str>>,
        datatype: DataType,
        shape: Vec<i64>,
        data: Bytes,
    ) -> Result<Self> {
        let tensor = Self { name: name.into(), datatype, shape, data };
        tensor.check()?;
        Ok(tensor)
    }

    /// A tensor that takes over `values` without copying them.
    ///
    /// The caller vouches that `shape` has as many elements as `values`.
    pub fn from_vec<T: Element>(name: impl Into<Arc<str>>, shape: &[i64], values: Vec<T>) -> Self {
        struct Owner<T>(Vec<T>);
        impl<T: Element> AsRef<[u8]> for Owner<T> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        debug_assert_eq!(shape.iter().product::<i64>(), values.len() as i64);
        let data = Bytes::from_owner(Owner(values));
        Self { name: name.into(), datatype: T::DATATYPE, shape: shape.to_vec(), data }
    }

    /// A `BYTES` tensor with these elements.
    pub fn from_strings<S: AsRef<[u8]>>(
        name: impl Into<Arc<str>>,
        shape: &[i64],
        elements: &[S],
    ) -> Self {
        debug_assert_eq!(shape.iter().product::<i64>(), elements.len() as i64);
        Self {
            name: name.into(),
            datatype: DataType::Bytes,
            shape: shape.to_vec(),
            data: encode_strings(elements),
        }
    }

    /// A `BOOL` tensor with these elements.
    pub fn from_bools(name: impl Into<Arc<str>>, shape: &[i64], values: &[bool]) -> Self {
        let data = values.iter().map(|value| u8::from(*value)).collect::<Vec<_>>().into();
        Self { name: name.into(), datatype: DataType::Bool, shape: shape.to_vec(), data }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The elements, borrowed when the bytes are aligned for `T` and copied when they are not.
    pub fn to_slice<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        if self.datatype != T::DATATYPE {
            return Err(self.wrong_type(T::DATATYPE));
        }
        Ok(match bytemuck::try_cast_slice(&self.data) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(&self.data)),
        })
    }

    /// The elements of a `BOOL` tensor.
    pub fn to_bools(&self) -> Result<Vec<bool>> {
        if self.datatype != DataType::Bool {
            return Err(self.wrong_type(DataType::Bool));
        }
        Ok(self.data.iter().map(|byte| *byte != 0).collect())
    }

    /// The elements of a `BYTES` tensor.
    pub fn to_strings(&self) -> Result<Vec<&[u8]>> {
        if self.datatype != DataType::Bytes {
            return Err(self.wrong_type(DataType::Bytes));
        }
        Strings::new(&self.data).collect()
    }

    /// The same elements under another name.
    #[must_use]
    pub fn renamed(mut self, name: Arc<str>) -> Self {
        self.name = name;
        self
    }

    /// Checks that the shape and the bytes agree; the messages are those Triton's clients know.
    pub fn check(&self) -> Result<()> {
        let count = self.checked_len()?;
        match self.datatype.size() {
            Some(size) => self.check_size(count, size),
            None => self.check_strings(count),
        }
    }

    fn checked_len(&self) -> Result<usize> {
        let mut count = 1_usize;
        for dim in &self.shape {
            let dim = usize::try_from(*dim).map_err(|_| {
                Error::invalid(format!(
                    "input `{}` has a negative dimension in shape {}",
                    self.name,
                    ShapeText(&self.shape)
                ))
            })?;
            count = count.checked_mul(dim).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(
                || {
                    Error::invalid(format!(
                        "shape {} of input '{}' causes total element count to exceed maximum size of {}",
                        ShapeText(&self.shape),
                        self.name,
                        i64::MAX
                    ))
                },
            )?;
        }
        Ok(count)
    }

    fn check_size(&self, count: usize, size: usize) -> Result<()> {
        let expected = count.checked_mul(size).ok_or_else(|| {
            Error::invalid(format!("byte size overflow for input '{}'", self.name))
        })?;
        if expected == self.data.len() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "input byte size mismatch for input '{}'. Expected {expected}, got {}",
            self.name,
            self.data.len()
        )))
    }

    fn check_strings(&self, count: usize) -> Result<()> {
        let mut found = 0_usize;
        for element in Strings::new(&self.data) {
            element.map_err(|error| {
                Error::invalid(format!("{} for inference input '{}'", error.message(), self.name))
            })?;
            found += 1;
        }
        if found == count {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "unexpected number of string elements {found} for inference input '{}', expecting {count}",
            self.name
        )))
    }

    fn wrong_type(&self, wanted: DataType) -> Error {
        Error::invalid(format!("tensor `{}` is {}, not {wanted}", self.name, self.datatype))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_as_they_went_in() {
        let tensor = Tensor::from_vec("x", &[2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]);
        assert_eq!(&*tensor.to_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert!(tensor.to_slice::<i32>().is_err());
    }

    #[test]
    fn unaligned_data_is_copied_instead_of_refused() {
        let bytes = Bytes::from(vec![0, 1, 0, 0, 0, 2, 0, 0, 0]).slice(1..);
        let tensor = Tensor::new("x", DataType::Int32, vec![2], bytes).unwrap();
        assert_eq!(&*tensor.to_slice::<i32>().unwrap(), [1, 2]);
    }

    #[test]
    fn a_shape_that_does_not_fit_its_bytes_is_refused() {
        let refused = |shape: &[i64], datatype| {
            Tensor::new("x", datatype, shape.to_vec(), Bytes::from_static(&[0; 8])).unwrap_err()
        };
        assert!(refused(&[3], DataType::Int32).message().contains("Expected 12, got 8"));
        assert!(refused(&[-1], DataType::Int32).message().contains("negative dimension"));
        assert!(refused(&[1 << 40, 1 << 40], DataType::Int8).message().contains("element count"));
        assert!(refused(&[1 << 62], DataType::Int64).message().contains("byte size overflow"));
        assert!(refused(&[3], DataType::Bytes).message().contains("expecting 3"));
    }
}
