//! Checks that a model's configuration asks for tensors that its ONNX graph has.

use consort_stage::{Error, Result, ShapeText, Signature, TensorSpec, VARIABLE};
use ort::session::Session;
use ort::value::ValueType;

use crate::values;

/// A tensor of the graph.
struct Tensor<'a> {
    name: String,
    dtype: &'a ValueType,
}

/// Refuses a signature with a name, a type or a shape that the graph does not have.
pub(crate) fn check(signature: &Signature, session: &Session) -> Result<()> {
    let constants = session.overridable_initializers();
    let required = session
        .inputs()
        .iter()
        .map(|outlet| Tensor { name: outlet.name().to_owned(), dtype: outlet.dtype() });
    let optional = constants
        .iter()
        .map(|constant| Tensor { name: constant.name().to_owned(), dtype: constant.dtype() });
    let required: Vec<_> = required.collect();
    if let Some(missing) = required.iter().find(|tensor| signature.input(&tensor.name).is_none()) {
        return Err(Error::invalid(format!(
            "the ONNX graph needs input `{}`, which the configuration lacks; add it, or leave all \
             inputs out to have them completed from the file",
            missing.name
        )));
    }
    let inputs: Vec<_> = required.into_iter().chain(optional).collect();
    let outputs = session
        .outputs()
        .iter()
        .map(|outlet| Tensor { name: outlet.name().to_owned(), dtype: outlet.dtype() });
    let outputs: Vec<_> = outputs.collect();
    let batch = signature.is_batching().then_some(VARIABLE);
    for spec in &signature.inputs {
        check_tensor("input", spec, &inputs, batch)?;
    }
    for spec in &signature.outputs {
        check_tensor("output", spec, &outputs, batch)?;
    }
    Ok(())
}

fn check_tensor(
    kind: &str,
    spec: &TensorSpec,
    graph: &[Tensor<'_>],
    batch: Option<i64>,
) -> Result<()> {
    let name = &spec.name;
    let Some(tensor) = graph.iter().find(|tensor| tensor.name == **name) else {
        let known: Vec<_> = graph.iter().map(|tensor| format!("`{}`", tensor.name)).collect();
        return Err(Error::invalid(format!(
            "the ONNX graph has no {kind} `{name}`; its {kind}s are {}",
            known.join(", ")
        )));
    };
    let ValueType::Tensor { ty, shape, .. } = tensor.dtype else {
        return Err(Error::unsupported(format!(
            "{kind} `{name}` of the ONNX graph is a {}; only tensors are served",
            tensor.dtype
        )));
    };
    if values::datatype(*ty) != Some(spec.datatype) {
        let found =
            values::datatype(*ty).map_or_else(|| ty.to_string(), |ty| ty.config_name().into());
        return Err(Error::invalid(format!(
            "{kind} `{name}` is {} in the configuration and {found} in the ONNX graph",
            spec.datatype.config_name()
        )));
    }
    if spec.is_ragged && batch.is_some() {
        return check_ragged(kind, spec, shape);
    }
    let dims = spec.reshape.as_ref().unwrap_or(&spec.dims);
    let asked: Vec<i64> = batch.into_iter().chain(dims.iter().copied()).collect();
    check_shape(kind, name, &asked, shape, batch.is_some())
}

/// A ragged input has one dimension, of any size; a ragged output is cut whatever its shape.
fn check_ragged(kind: &str, spec: &TensorSpec, graph: &[i64]) -> Result<()> {
    if kind == "output" {
        return Ok(());
    }
    check_shape(kind, &spec.name, &[VARIABLE], graph, true)
}

fn check_shape(
    kind: &str,
    name: &str,
    asked: &[i64],
    graph: &[i64],
    has_batch: bool,
) -> Result<()> {
    if has_batch && graph.first().is_none_or(|dim| *dim >= 0) {
        return Err(Error::invalid(format!(
            "{kind} `{name}` has shape {} in the ONNX graph, whose first dimension must be of any \
             size for a `max_batch_size` above 0; set `max_batch_size: 0`",
            ShapeText(graph)
        )));
    }
    let fits = |(asked, graph): (&i64, &i64)| *asked < 0 || *graph < 0 || asked == graph;
    if asked.len() == graph.len() && asked.iter().zip(graph).all(fits) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{kind} `{name}` has shape {} in the configuration{} and {} in the ONNX graph",
        ShapeText(asked),
        if has_batch { ", batch dimension included," } else { "" },
        ShapeText(graph)
    )))
}
