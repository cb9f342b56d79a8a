//! Whether the tensors at both ends of every edge, and the batch sizes, fit together.

use consort_stage::ShapeText;

use super::Signatures;
use super::connect::Graph;
use crate::defect::Defect;
use crate::edge::shapes_agree;
use crate::plan::{PlannedInput, Source};
use crate::spec::Spec;

/// Every edge whose ends disagree in type or shape, and every model whose batch is too small.
pub(super) fn check(
    spec: &Spec,
    signatures: &Signatures,
    graph: &Graph,
    defects: &mut Vec<Defect>,
) {
    batch_sizes(spec, signatures, defects);
    for (index, step) in graph.steps.iter().enumerate() {
        for input in &step.inputs {
            if let Some(message) = mismatch(spec, graph, &step.model, input) {
                let field = format!("input_map[\"{}\"]", input.spec.name);
                defects.push(Defect::of_step(index, &field, message));
            }
        }
    }
    for (index, output) in spec.signature.outputs.iter().enumerate() {
        let Some(tensor) = graph.by_name.get(&output.name) else {
            continue;
        };
        let is_batched = spec.signature.is_batching();
        let output = PlannedInput { tensor: *tensor, spec: output.clone(), is_batched };
        if let Some(message) = mismatch(spec, graph, &spec.name, &output) {
            defects.push(Defect::of_tensor("output", index, message));
        }
    }
}

fn mismatch(spec: &Spec, graph: &Graph, to: &str, wanted: &PlannedInput) -> Option<String> {
    if graph.unknown.contains(&wanted.tensor) {
        return None;
    }
    let from = &graph.tensors[wanted.tensor];
    let maker = match from.source {
        Source::Input => &spec.name,
        Source::Step(step) => &spec.steps[step].model,
    };
    let name = &from.name;
    if from.spec.datatype != wanted.spec.datatype {
        return Some(format!(
            "in ensemble {}, ensemble tensor {name}: inconsistent data type: {} is inferred from \
             model {maker} while {} is inferred from model {to}",
            spec.name,
            from.spec.datatype.config_name(),
            wanted.spec.datatype.config_name()
        ));
    }
    (!shapes_agree(from, wanted)).then(|| {
        format!(
            "in ensemble {}, ensemble tensor {name}: inconsistent shape: {} is inferred from model \
             {maker} while {} is inferred from model {to}",
            spec.name,
            ShapeText(&from.spec.dims),
            ShapeText(&wanted.spec.dims)
        )
    })
}

fn batch_sizes(spec: &Spec, signatures: &Signatures, defects: &mut Vec<Defect>) {
    let wanted = spec.signature.max_batch_size;
    for (index, signature) in signatures.iter().enumerate() {
        let largest = signature.as_ref().map_or(0, |signature| signature.max_batch_size);
        if largest > 0 && largest < wanted {
            let message = format!(
                "ensemble {} allows maximum batch size {wanted}, but it contains model {} which \
                 only allows maximum batch size to be {largest}",
                spec.name, spec.steps[index].model
            );
            defects.push(Defect::of_step(index, "model_name", message));
        }
    }
}
