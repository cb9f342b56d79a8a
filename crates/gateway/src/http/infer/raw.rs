//! A body without any JSON: the whole of it is the model's one input, its shape deduced.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use consort_repository::Served;
use consort_stage::{DataType, Error, Request, Result, Tensor, TensorSpec, VARIABLE};

use super::request::Call;
use super::response::Form;

/// The request that `body` stands for; all outputs are wanted in binary.
pub(super) fn request(served: &Served, body: &Bytes) -> Result<Call> {
    let [spec] = &*served.signature.inputs else {
        return Err(Error::invalid(format!(
            "Raw request must only have 1 input (found 1) to be deduced but got {} inputs in '{}' \
             model configuration",
            served.signature.inputs.len(),
            served.name
        )));
    };
    let dims = match spec.datatype.size() {
        Some(size) => deduce(spec, body.len() / size)?,
        None => one_string(spec)?,
    };
    let batch = served.signature.is_batching().then_some(1);
    let input = Tensor {
        name: Arc::clone(&spec.name),
        datatype: spec.datatype,
        shape: batch.into_iter().chain(dims).collect(),
        data: data(spec, body),
    };
    let request = Request { inputs: vec![input], ..Request::default() };
    let form = Form { is_binary: true, ..Form::default() };
    Ok(Call { request, form })
}

/// The dimensions for `count` elements, of which the variable one takes what the others leave.
///
/// A count that does not come out even shows as a wrong byte size when the request is checked.
fn deduce(spec: &TensorSpec, count: usize) -> Result<Vec<i64>> {
    let is_variable = |dim: &&i64| **dim == VARIABLE;
    if spec.dims.iter().filter(is_variable).count() > 1 {
        return Err(Error::invalid(format!(
            "The shape of the raw input '{}' can not be deduced because there are more than one \
             variable-sized dimension",
            spec.name
        )));
    }
    let fixed = spec.dims.iter().filter(|dim| **dim != VARIABLE);
    let fixed = fixed.fold(1_usize, |product, dim| product.saturating_mul(*dim as usize));
    let rest = count.checked_div(fixed).unwrap_or(0) as i64;
    let dims = spec.dims.iter();
    Ok(dims.map(|dim| if *dim == VARIABLE { rest } else { *dim }).collect())
}

fn one_string(spec: &TensorSpec) -> Result<Vec<i64>> {
    if spec.dims == [1] {
        return Ok(spec.dims.clone());
    }
    Err(Error::invalid(format!(
        "For BYTE datatype raw input '{}', the model must have input shape [1]",
        spec.name
    )))
}

/// The body as a tensor's data: one string needs its length before it.
fn data(spec: &TensorSpec, body: &Bytes) -> Bytes {
    if spec.datatype != DataType::Bytes {
        return body.clone();
    }
    let mut data = BytesMut::with_capacity(size_of::<u32>() + body.len());
    data.put_u32_le(body.len() as u32);
    data.put_slice(body);
    data.freeze()
}
