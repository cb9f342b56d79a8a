//! Whether the tensors at both ends of every edge, and the batch sizes, fit together.

use std::sync::Arc;

use consort_stage::{ShapeText, Signature, TensorSpec};

use super::connect::Graph;
use crate::defect::Defect;
use crate::edge::shapes_agree;
use crate::plan::{PlannedTensor, Source};
use crate::spec::Spec;

/// Every edge whose ends disagree in type or shape, and every model whose batch is too small.
pub(super) fn check(spec: &Spec, signatures: &[Arc<Signature>], graph: &Graph) -> Vec<Defect> {
    let mut defects = batch_sizes(spec, signatures);
    for (index, step) in graph.steps.iter().enumerate() {
        for input in &step.inputs {
            let from = &graph.tensors[input.tensor];
            if let Some(message) = mismatch(spec, from, &step.model, &input.spec) {
                defects.push(Defect::of_step(index, "input_map", message));
            }
        }
    }
    for (index, output) in spec.signature.outputs.iter().enumerate() {
        let Some(tensor) = graph.by_name.get(&output.name) else {
            continue;
        };
        if let Some(message) = mismatch(spec, &graph.tensors[*tensor], &spec.name, output) {
            defects.push(Defect::of_tensor("output", index, message));
        }
    }
    defects
}

fn mismatch(spec: &Spec, from: &PlannedTensor, to: &str, wanted: &TensorSpec) -> Option<String> {
    let maker = match from.source {
        Source::Input => &spec.name,
        Source::Step(step) => &spec.steps[step].model,
    };
    let (made, name) = (&from.spec, &from.name);
    if made.datatype != wanted.datatype {
        return Some(format!(
            "in ensemble {}, ensemble tensor {name}: inconsistent data type: {} is inferred from \
             model {maker} while {} is inferred from model {to}",
            spec.name,
            made.datatype.config_name(),
            wanted.datatype.config_name()
        ));
    }
    (!shapes_agree(made, wanted)).then(|| {
        format!(
            "in ensemble {}, ensemble tensor {name}: inconsistent shape: {} is inferred from model \
             {maker} while {} is inferred from model {to}",
            spec.name,
            ShapeText(&made.dims),
            ShapeText(&wanted.dims)
        )
    })
}

fn batch_sizes(spec: &Spec, signatures: &[Arc<Signature>]) -> Vec<Defect> {
    let wanted = spec.signature.max_batch_size;
    let too_small = |(index, signature): (usize, &Arc<Signature>)| {
        let largest = signature.max_batch_size;
        (largest > 0 && largest < wanted).then(|| {
            let message = format!(
                "ensemble {} allows maximum batch size {wanted}, but it contains model {} which \
                 only allows maximum batch size to be {largest}",
                spec.name, spec.steps[index].model
            );
            Defect::of_step(index, "model_name", message)
        })
    };
    signatures.iter().enumerate().filter_map(too_small).collect()
}
