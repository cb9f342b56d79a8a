//! Tokens that come in the place of a text, because their caller has tokenized it already.

use consort_config::Model;
use consort_stage::{DataType, Error, Result, Tensor};
use tokenizers::{Encoding, Token};

/// The input that holds them, named as in vLLM.
const INPUT: &str = "prompt_token_ids";

/// Its name, if the model has it.
pub(crate) fn input(model: &Model) -> Result<Option<&str>> {
    let Some(spec) = model.signature.input(INPUT) else { return Ok(None) };
    model.check_type(spec, &[DataType::Int32, DataType::Int64])?;
    Ok(Some(&spec.name))
}

/// A row of tokens for each text, which says nothing itself.
pub(crate) fn rows(tensor: &Tensor, (text, texts): (&str, &[&str])) -> Result<Vec<Encoding>> {
    let name = &tensor.name;
    let wrong = |how: String| Error::invalid(format!("`{name}` {how}")).of_input(Some(&**name));
    if texts.iter().any(|text| !text.is_empty()) {
        return Err(wrong(format!("stands in the place of `{text}`, and there may not be both")));
    }
    let ids: Vec<i64> = match tensor.datatype {
        DataType::Int32 => tensor.to_slice::<i32>()?.iter().copied().map(i64::from).collect(),
        _ => tensor.to_slice::<i64>()?.into_owned(),
    };
    let length = tensor.shape.last().map_or(0, |length| *length as usize);
    let count = ids.len().checked_div(length).unwrap_or(texts.len());
    if count != texts.len() {
        return Err(wrong(format!("has {count} rows for {} texts", texts.len())));
    }
    let id =
        |id: &i64| u32::try_from(*id).map_err(|_| wrong(format!("has {id}, which is no token")));
    let ids = ids.iter().map(id).collect::<Result<Vec<_>>>()?;
    Ok((0..count).map(|row| encoding(&ids[row * length..][..length])).collect())
}

fn encoding(ids: &[u32]) -> Encoding {
    let token = |id: &u32| Token::new(*id, String::new(), (0, 0));
    Encoding::from_tokens(ids.iter().map(token).collect(), 0)
}
