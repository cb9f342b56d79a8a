//! Finds the tensors that nobody reads and the outputs that nobody writes.

use super::connect::Graph;
use crate::defect::Defect;
use crate::plan::Source;
use crate::spec::Spec;

/// Every tensor that is made for nothing, and every output of the ensemble that is not made.
pub(super) fn find(spec: &Spec, graph: &Graph, defects: &mut Vec<Defect>) {
    let ensemble = &spec.name;
    for (index, tensor) in graph.tensors.iter().enumerate() {
        let name = &tensor.name;
        let defect = match tensor.source {
            _ if graph.mentioned.contains(&index) => continue,
            // The ensemble's inputs are its first tensors, in the configuration's order.
            Source::Input => Defect::of_tensor(
                "input",
                index,
                format!("ensemble input '{name}' for ensemble '{ensemble}' is not used"),
            ),
            Source::Step(_) if spec.signature.output(name).is_some() => continue,
            Source::Step(step) => Defect::of_step(
                step,
                "output_map",
                format!("ensemble tensor '{name}' is unused in ensemble '{ensemble}'"),
            ),
        };
        defects.push(defect);
    }
    for (index, output) in spec.signature.outputs.iter().enumerate() {
        if !graph.by_name.contains_key(&output.name) {
            let message =
                format!("ensemble output '{}' for ensemble '{ensemble}' is not used", output.name);
            defects.push(Defect::of_tensor("output", index, message));
        }
    }
}
