//! Finds which streaming steps each tensor descends from, and so the cycles and impossible joins.

use consort_stage::TensorSpec;

use super::connect::Graph;
use crate::defect::Defect;
use crate::plan::{PlannedInput, Source, StepIndex, TensorIndex};
use crate::spec::Spec;

/// Fills in every lineage, step by step in the order of the data; what stays without is a cycle.
pub(super) fn settle_lineages(spec: &Spec, graph: &mut Graph, defects: &mut Vec<Defect>) {
    let mut written: Vec<bool> =
        graph.tensors.iter().map(|tensor| tensor.source == Source::Input).collect();
    let mut open: Vec<StepIndex> = (0..graph.steps.len()).collect();
    loop {
        let is_ready =
            |step: &StepIndex| graph.steps[*step].inputs.iter().all(|input| written[input.tensor]);
        let (ready, waiting): (Vec<_>, Vec<_>) = open.iter().copied().partition(is_ready);
        if ready.is_empty() {
            break;
        }
        for step in ready {
            defects.extend(settle_step(spec, graph, step));
            for output in &graph.steps[step].outputs {
                written[output.tensor] = true;
            }
        }
        open = waiting;
    }
    unreachable(spec, graph, &open, defects);
}

fn settle_step(spec: &Spec, graph: &mut Graph, step: StepIndex) -> Option<Defect> {
    let inputs = graph.steps[step].inputs.iter().map(|input| input.tensor);
    let lineage = longest_lineage(graph, inputs);
    let defect = lineage.is_none().then(|| {
        let message = format!(
            "in ensemble {}, step of model '{}' receives inputs originated from different \
             decoupled models",
            spec.name, spec.steps[step].model
        );
        Defect::of_step(step, "input_map", message)
    });
    let lineage = lineage.unwrap_or_default();
    let mut of_outputs = lineage.clone();
    if graph.steps[step].is_decoupled {
        of_outputs.push(step);
    }
    for output in &graph.steps[step].outputs {
        graph.tensors[output.tensor].lineage.clone_from(&of_outputs);
    }
    graph.steps[step].lineage = lineage;
    defect
}

/// The longest lineage among `tensors`, when all others are a beginning of it.
fn longest_lineage(
    graph: &Graph,
    tensors: impl Iterator<Item = TensorIndex>,
) -> Option<Vec<StepIndex>> {
    let mut longest: &[StepIndex] = &[];
    for tensor in tensors {
        let lineage = &graph.tensors[tensor].lineage;
        if lineage.starts_with(longest) {
            longest = lineage;
        } else if !longest.starts_with(lineage) {
            return None;
        }
    }
    Some(longest.to_vec())
}

/// Reports the outputs that wait for a cycle, or the cycle itself when no output does.
fn unreachable(spec: &Spec, graph: &Graph, stuck: &[StepIndex], defects: &mut Vec<Defect>) {
    let cycle = in_cycles(graph, stuck);
    let Some(first) = cycle.first() else {
        return;
    };
    let is_stuck = |tensor: TensorIndex| match graph.tensors[tensor].source {
        Source::Input => false,
        Source::Step(step) => stuck.contains(&step),
    };
    let waits_for = graph.steps[*first].inputs.iter().find(|input| is_stuck(input.tensor));
    let tensor = waits_for.map_or("", |input| &*graph.tensors[input.tensor].name);
    let models: Vec<&str> = cycle.iter().map(|step| &*spec.steps[*step].model).collect();
    let cycle = format!("the steps of {} wait for one another", models.join(", "));
    let known = defects.len();
    for (index, output) in spec.signature.outputs.iter().enumerate() {
        if graph.by_name.get(&output.name).is_some_and(|tensor| is_stuck(*tensor)) {
            let message = format!(
                "output '{}' for ensemble '{}' is not written: at least one of its depending \
                 tensors, '{tensor}', is not connected ({cycle})",
                output.name, spec.name
            );
            defects.push(Defect::of_tensor("output", index, message));
        }
    }
    if defects.len() == known {
        let message = format!("in ensemble '{}' {cycle}", spec.name);
        defects.push(Defect::of_ensemble(message));
    }
}

/// The `stuck` steps without those that only wait behind a cycle.
fn in_cycles(graph: &Graph, stuck: &[StepIndex]) -> Vec<StepIndex> {
    let mut cycle = stuck.to_vec();
    loop {
        let is_awaited = |step: &StepIndex| {
            let readers = cycle.iter().flat_map(|reader| &graph.steps[*reader].inputs);
            readers
                .map(|input| graph.tensors[input.tensor].source)
                .any(|from| from == Source::Step(*step))
        };
        let awaited: Vec<_> = cycle.iter().copied().filter(is_awaited).collect();
        if awaited.len() == cycle.len() {
            return cycle;
        }
        cycle = awaited;
    }
}

/// The ensemble's outputs, each with the tensor it is.
pub(super) fn outputs(spec: &Spec, graph: &Graph) -> Vec<PlannedInput> {
    let planned = |output: &TensorSpec| {
        let tensor = *graph.by_name.get(&output.name)?;
        let is_batched = spec.signature.is_batching();
        Some(PlannedInput { tensor, spec: output.clone(), is_batched })
    };
    spec.signature.outputs.iter().filter_map(planned).collect()
}
