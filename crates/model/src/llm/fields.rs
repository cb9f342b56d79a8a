//! Reads single values out of a request's tensors; an error names the tensor.

use consort_stage::{DataType, Error, Request, Result, Tensor};

use super::decoder::Token;

/// The tensors of a request, by name.
pub(super) struct Fields<'a>(pub(super) &'a Request);

impl<'a> Fields<'a> {
    /// Refuses more than 1 of what there is one of.
    pub(super) fn check_one(&self, name: &str, remedy: &str) -> Result<()> {
        match self.integer(name, |value| value > 0, "positive")? {
            None | Some(1) => Ok(()),
            Some(count) => {
                let error = Error::unsupported(format!("`{name}` is {count}; {remedy}"));
                Err(error.of_input(Some(name)))
            }
        }
    }

    /// The one string of a tensor; `None` when the request does not have it.
    pub(super) fn string(&self, name: &str) -> Result<Option<&'a [u8]>> {
        let Some(tensor) = self.0.input(name) else {
            return Ok(None);
        };
        match tensor.to_strings()?.as_slice() {
            [value] => Ok(Some(*value)),
            values => Err(wrong(name, format!("must be one string, not {}", values.len()))),
        }
    }

    /// The numbers of a tensor, none when the request does not have it.
    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let Some(tensor) = self.0.input(name) else {
            return Ok(Vec::new());
        };
        let values = tensor.to_slice::<f32>()?.into_owned();
        // Minus infinity forbids a token.
        let is_usable = |value: &f32| !value.is_nan() && *value < f32::INFINITY;
        if values.iter().all(is_usable) {
            return Ok(values);
        }
        Err(wrong(name, "must have numbers below infinity"))
    }

    pub(super) fn integer(
        &self,
        name: &str,
        is_valid: impl Fn(i64) -> bool,
        wanted: &str,
    ) -> Result<Option<i64>> {
        self.valid(name, integers, is_valid, wanted)
    }

    pub(super) fn float(
        &self,
        name: &str,
        is_valid: impl Fn(f32) -> bool,
        wanted: &str,
    ) -> Result<Option<f32>> {
        let is_valid = |value: f32| value.is_finite() && is_valid(value);
        self.valid(name, |tensor| Ok(tensor.to_slice::<f32>()?.into_owned()), is_valid, wanted)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.scalar(name, Tensor::to_bools)
    }

    fn valid<T: Copy + std::fmt::Display>(
        &self,
        name: &str,
        read: impl Fn(&Tensor) -> Result<Vec<T>>,
        is_valid: impl Fn(T) -> bool,
        wanted: &str,
    ) -> Result<Option<T>> {
        match self.scalar(name, read)? {
            Some(value) if !is_valid(value) => {
                Err(wrong(name, format!("must be {wanted}, not {value}")))
            }
            value => Ok(value),
        }
    }

    /// The one element of a tensor of whatever shape; `None` when the request does not have it.
    pub(super) fn scalar<T: Copy>(
        &self,
        name: &str,
        read: impl Fn(&Tensor) -> Result<Vec<T>>,
    ) -> Result<Option<T>> {
        let Some(tensor) = self.0.input(name) else {
            return Ok(None);
        };
        match read(tensor)?.as_slice() {
            [value] => Ok(Some(*value)),
            values => Err(wrong(name, format!("must be one value, not {}", values.len()))),
        }
    }
}

/// The elements of a tensor of whole numbers, whichever their size.
pub(super) fn integers(tensor: &Tensor) -> Result<Vec<i64>> {
    fn widen<T: consort_stage::Element>(
        tensor: &Tensor,
        widen: impl Fn(T) -> i64,
    ) -> Result<Vec<i64>> {
        Ok(tensor.to_slice::<T>()?.iter().copied().map(widen).collect())
    }
    match tensor.datatype {
        DataType::Int32 => widen::<i32>(tensor, i64::from),
        DataType::Uint32 => widen::<u32>(tensor, i64::from),
        DataType::Int64 => widen::<i64>(tensor, |value| value),
        // A seed's bits are what counts; anything else this large is out of range below zero, too.
        DataType::Uint64 => widen::<u64>(tensor, |value| value as i64),
        other => Err(wrong(&tensor.name, format!("is {other}, not a whole number"))),
    }
}

/// The token with this number.
pub(super) fn token(field: &str, id: i64, vocabulary: usize) -> Result<Token> {
    Token::try_from(id).ok().filter(|id| (*id as usize) < vocabulary).ok_or_else(|| {
        let last = vocabulary - 1;
        wrong(field, format!("has token {id}; the model's tokens are 0 to {last}"))
    })
}

/// The error of a request whose `input` is wrong, and how.
pub(super) fn wrong(input: &str, how: impl std::fmt::Display) -> Error {
    Error::invalid(format!("`{input}` {how}")).of_input(Some(input))
}
