//! The tensors that the backend `tokenizer` can fill, and how they are found by name.

use std::sync::Arc;

use consort_config::Model;
use consort_stage::{DataType, Error, Result, ShapeText, Tensor, TensorSpec};
use tokenizers::Encoding;

use crate::padding::Padding;

/// What an output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The ids of the tokens.
    InputIds,
    /// 1 for a token, 0 for padding.
    AttentionMask,
    /// Which of two texts a token belongs to.
    TokenTypeIds,
    /// How many tokens a row has without padding.
    InputLengths,
}

impl Role {
    const ALL: [Self; 4] =
        [Self::InputIds, Self::AttentionMask, Self::TokenTypeIds, Self::InputLengths];

    /// The name that parameters call it by, and after it the other names that outputs have.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::InputIds => &["input_ids", "input_id"],
            Self::AttentionMask => &["attention_mask", "input_mask"],
            Self::TokenTypeIds => &["token_type_ids", "segment_ids"],
            Self::InputLengths => &["input_lengths", "input_length", "request_input_len", "length"],
        }
    }

    /// The parameter that names the output with this role.
    pub(crate) fn parameter(self) -> String {
        format!("output.{}", self.names()[0])
    }

    fn of(model: &Model, spec: &TensorSpec) -> Option<Self> {
        let is_named = |role: &Self| model.settings.get(&role.parameter()) == Some(&*spec.name);
        let is_called = |role: &Self| {
            let mut names = role.names().iter();
            names.any(|name| spec.name.eq_ignore_ascii_case(name))
        };
        let named = Self::ALL.into_iter().find(is_named);
        named.or_else(|| Self::ALL.into_iter().find(is_called))
    }
}

/// The parameters that give outputs their roles.
pub(crate) fn parameters() -> impl Iterator<Item = String> {
    Role::ALL.into_iter().map(Role::parameter)
}

/// One output of token rows.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: Arc<str>,
    role: Role,
    datatype: DataType,
    rank: usize,
}

impl Column {
    /// The column that `spec` asks for.
    pub(crate) fn new(model: &Model, spec: &TensorSpec) -> Result<Self> {
        let Some(role) = Role::of(model, spec) else {
            return Err(Error::invalid(format!(
                "output `{}` of model `{}` is nothing that backend `tokenizer` gives; it gives {} \
                 (parameter `output.<one of these>` names an output that is called otherwise)",
                spec.name,
                model.name,
                Role::ALL.map(|role| format!("`{}`", role.names()[0])).join(", ")
            )));
        };
        model.check_type(spec, &[DataType::Int32, DataType::Int64])?;
        let dims = spec.reshape.as_ref().unwrap_or(&spec.dims);
        Ok(Self {
            name: spec.name.clone(),
            role,
            datatype: spec.datatype,
            rank: dims.len() + usize::from(model.signature.is_batching()),
        })
    }

    /// This column of `rows`, which have the shape `texts` and are padded to `length`.
    pub(crate) fn fill(
        &self,
        rows: &[Encoding],
        texts: &[i64],
        (padding, length): (&Padding, usize),
    ) -> Result<Tensor> {
        if self.role == Role::InputLengths {
            let mut shape = texts.to_vec();
            shape.resize(shape.len().max(self.rank), 1);
            let lengths = rows.iter().map(|row| row.len() as i64);
            return Ok(integers(&self.name, self.datatype, &shape, lengths));
        }
        let mut shape = self.leading(texts)?.to_vec();
        shape.push(length as i64);
        let pad = match self.role {
            Role::InputIds => padding.id,
            Role::TokenTypeIds => padding.type_id,
            Role::AttentionMask | Role::InputLengths => 0,
        };
        let values = rows.iter().flat_map(|row| {
            let pads = std::iter::repeat_n(pad, length - row.len());
            let (before, after) =
                if padding.is_left { (Some(pads), None) } else { (None, Some(pads)) };
            let tokens = self.of_row(row).iter().copied();
            before.into_iter().flatten().chain(tokens).chain(after.into_iter().flatten())
        });
        Ok(integers(&self.name, self.datatype, &shape, values.map(i64::from)))
    }

    fn of_row<'a>(&self, row: &'a Encoding) -> &'a [u32] {
        match self.role {
            Role::InputIds | Role::InputLengths => row.get_ids(),
            Role::AttentionMask => row.get_attention_mask(),
            Role::TokenTypeIds => row.get_type_ids(),
        }
    }

    /// The dimensions of the texts that stay, when this output has fewer than they and a row.
    fn leading<'a>(&self, texts: &'a [i64]) -> Result<&'a [i64]> {
        let kept = self.rank.saturating_sub(1).min(texts.len());
        let (leading, rest) = texts.split_at(kept);
        if rest.iter().product::<i64>() == 1 {
            return Ok(leading);
        }
        Err(Error::invalid(format!(
            "texts of shape {} do not fit output `{}`, which has {} dimensions",
            ShapeText(texts),
            self.name,
            self.rank
        )))
    }
}

/// `values` as `INT32`, or else `INT64`; token ids fit either.
pub(crate) fn integers(
    name: &Arc<str>,
    datatype: DataType,
    shape: &[i64],
    values: impl Iterator<Item = i64>,
) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    if datatype == DataType::Int32 {
        let mut narrow = Vec::with_capacity(count);
        narrow.extend(values.map(|value| value as i32));
        return Tensor::from_vec(name.clone(), shape, narrow);
    }
    let mut wide = Vec::with_capacity(count);
    wide.extend(values);
    Tensor::from_vec(name.clone(), shape, wide)
}
