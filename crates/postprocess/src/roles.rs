//! Which tensor of a model plays which part for its backend: by parameter, by name or by type.

use consort_config::Model;
use consort_stage::{DataType, Error, Result, Signature, TensorSpec};

/// The input that `parameter` names, or else the first whose name is one of `names` in any case.
pub(crate) fn input<'a>(
    model: &'a Model,
    parameter: &str,
    names: &[&str],
) -> Result<Option<&'a TensorSpec>> {
    let inputs = &model.signature.inputs;
    if let Some(name) = model.settings.get(parameter) {
        return match inputs.iter().find(|spec| &*spec.name == name) {
            Some(spec) => Ok(Some(spec)),
            None => Err(Error::invalid(format!(
                "parameter `{parameter}` of model `{}` names `{name}`, which is none of its inputs",
                model.name
            ))),
        };
    }
    let is_one = |spec: &&TensorSpec| names.iter().any(|name| spec.name.eq_ignore_ascii_case(name));
    Ok(inputs.iter().find(is_one))
}

/// The first input of one of these types.
pub(crate) fn input_of_type<'a>(model: &'a Model, types: &[DataType]) -> Option<&'a TensorSpec> {
    let inputs = &model.signature.inputs;
    inputs.iter().find(|spec| types.contains(&spec.datatype))
}

/// The first output of one of these types.
pub(crate) fn output<'a>(model: &'a Model, types: &[DataType]) -> Option<&'a TensorSpec> {
    let outputs = &model.signature.outputs;
    outputs.iter().find(|spec| types.contains(&spec.datatype))
}

/// Refuses tensors of `model` that play no part, `used` being those that do.
pub(crate) fn check_all_used(model: &Model, used: &[&str]) -> Result<()> {
    let Signature { inputs, outputs, .. } = &*model.signature;
    let Some(spare) = inputs.iter().chain(outputs).find(|spec| !used.contains(&&*spec.name)) else {
        return Ok(());
    };
    Err(Error::invalid(format!(
        "backend `{}` has no use for tensor `{}` of model `{}`; it uses {}",
        model.backend,
        spare.name,
        model.name,
        used.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    )))
}

/// What the backend of `model` cannot work without.
pub(crate) fn missing(model: &Model, what: &str) -> Error {
    Error::invalid(format!("backend `{}` of model `{}` needs {what}", model.backend, model.name))
}

/// The number of dimensions of `spec`, the batch dimension included, as the backend sees it.
pub(crate) fn rank(signature: &Signature, spec: &TensorSpec) -> usize {
    let dims = spec.reshape.as_ref().unwrap_or(&spec.dims);
    dims.len() + usize::from(signature.is_batching())
}
