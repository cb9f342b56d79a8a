//! Reads what an ONNX model takes and gives, from its graph.

use std::path::Path;

use consort_repository::ModelFile;
use consort_stage::{Error, Result, Signature, TensorSpec, VARIABLE};
use ort::value::ValueType;

use crate::{session, values};

/// The largest batch of a model whose file allows any, as Triton assumes it.
const DEFAULT_MAX_BATCH_SIZE: i64 = 4;

/// The tensors of a model file; those of a batch when every one has a first dimension of any size.
pub(crate) fn read(file: &ModelFile<'_>) -> Result<Option<Signature>> {
    read_path(file.path).map(Some)
}

fn read_path(path: &Path) -> Result<Signature> {
    let session = session::open_unoptimised(path)?;
    let inputs = session
        .inputs()
        .iter()
        .map(|outlet| {
            spec(outlet.name(), outlet.dtype())
                .ok_or_else(|| no_tensor(path, outlet.name(), outlet.dtype()))
        })
        .collect::<Result<Vec<_>>>()?;
    // An output that is no tensor is left out: the others can be served without it.
    let outputs = session
        .outputs()
        .iter()
        .filter_map(|outlet| spec(outlet.name(), outlet.dtype()))
        .collect::<Vec<_>>();
    let constants = session.overridable_initializers();
    let optional = constants.iter().filter_map(|constant| {
        let spec = spec(constant.name(), constant.dtype())?;
        Some(TensorSpec { is_optional: true, ..spec })
    });
    Ok(batched(Signature {
        max_batch_size: 0,
        inputs: inputs.into_iter().chain(optional).collect(),
        outputs,
        is_decoupled: false,
    }))
}

fn spec(name: &str, dtype: &ValueType) -> Option<TensorSpec> {
    let datatype = values::datatype(dtype.tensor_type()?)?;
    let dims: Vec<i64> = dtype.tensor_shape()?.iter().map(|dim| (*dim).max(VARIABLE)).collect();
    Some(TensorSpec::new(name, datatype, &dims))
}

fn no_tensor(path: &Path, name: &str, dtype: &ValueType) -> Error {
    Error::unsupported(format!(
        "input `{name}` of `{}` is a {dtype}; only tensors of the protocol's types can be given",
        session::place(path)
    ))
}

/// The same with the batch dimension taken off, where every tensor has one: of a constant without
/// one there is no row for each request, so what has such constants tells its shapes whole.
fn batched(mut signature: Signature) -> Signature {
    let has_batch = |spec: &TensorSpec| spec.dims.first() == Some(&VARIABLE);
    let mut tensors = signature.inputs.iter().chain(&signature.outputs);
    if signature.outputs.is_empty() || !tensors.all(has_batch) {
        return signature;
    }
    for spec in signature.inputs.iter_mut().chain(&mut signature.outputs) {
        spec.dims.remove(0);
    }
    signature.max_batch_size = DEFAULT_MAX_BATCH_SIZE;
    signature
}
