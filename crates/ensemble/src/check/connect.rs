//! Gives every name its index and finds what is connected to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_stage::{Signature, TensorSpec};

use crate::defect::Defect;
use crate::plan::{PlannedInput, PlannedOutput, PlannedStep, PlannedTensor, Source, TensorIndex};
use crate::spec::{Spec, StepSpec};

/// The graph before its order is known: lineages are still empty.
pub(super) struct Graph {
    pub(super) tensors: Vec<PlannedTensor>,
    pub(super) steps: Vec<PlannedStep>,
    pub(super) by_name: BTreeMap<Arc<str>, TensorIndex>,
}

/// Connects names to indices; what cannot be connected is a defect and left out of the graph.
pub(super) fn connect(spec: &Spec, signatures: &[Arc<Signature>]) -> (Graph, Vec<Defect>) {
    let mut connector = Connector { spec, signatures, graph: Graph::new(), defects: Vec::new() };
    connector.add_ensemble_inputs();
    for (index, step) in spec.steps.iter().enumerate() {
        connector.add_step_outputs(index, step);
    }
    for (index, step) in spec.steps.iter().enumerate() {
        connector.add_step_inputs(index, step);
    }
    connector.find_unused();
    connector.find_unwritten();
    (connector.graph, connector.defects)
}

impl Graph {
    fn new() -> Self {
        Self { tensors: Vec::new(), steps: Vec::new(), by_name: BTreeMap::new() }
    }
}

struct Connector<'a> {
    spec: &'a Spec,
    signatures: &'a [Arc<Signature>],
    graph: Graph,
    defects: Vec<Defect>,
}

impl Connector<'_> {
    fn add_ensemble_inputs(&mut self) {
        for input in &self.spec.signature.inputs {
            let is_batched = self.spec.signature.is_batching();
            self.add_tensor(input.name.clone(), Source::Input, input.clone(), is_batched);
        }
    }

    fn add_tensor(
        &mut self,
        name: Arc<str>,
        source: Source,
        spec: TensorSpec,
        is_batched: bool,
    ) -> TensorIndex {
        let index = self.graph.tensors.len();
        self.graph.by_name.insert(name.clone(), index);
        let lineage = Vec::new();
        self.graph.tensors.push(PlannedTensor { name, source, lineage, spec, is_batched });
        index
    }

    fn add_step_outputs(&mut self, index: usize, step: &StepSpec) {
        let signature = &self.signatures[index];
        let mut outputs = Vec::new();
        for edge in &step.outputs {
            let Some(spec) = signature.output(&edge.model_tensor) else {
                let known = signature.outputs.iter().map(|spec| &*spec.name);
                self.no_such_tensor(index, "output", &edge.model_tensor, known);
                continue;
            };
            let name = edge.ensemble_tensor.clone();
            if self.graph.by_name.contains_key(&name) {
                self.defects.push(Defect::of_step(
                    index,
                    "output_map",
                    format!(
                        "ensemble tensor '{name}' can appear in an output map only once for \
                         ensemble '{}' step {index}",
                        self.spec.name
                    ),
                ));
                continue;
            }
            let spec = spec.clone();
            let tensor = self.add_tensor(name, Source::Step(index), spec, signature.is_batching());
            outputs.push(PlannedOutput { name: edge.model_tensor.clone(), tensor });
        }
        self.graph.steps.push(PlannedStep {
            model: step.model.clone(),
            version: step.version,
            inputs: Vec::new(),
            wanted: outputs.iter().map(|output| output.name.clone()).collect(),
            outputs,
            lineage: Vec::new(),
            is_decoupled: signature.is_decoupled,
        });
    }

    fn add_step_inputs(&mut self, index: usize, step: &StepSpec) {
        let signature = &self.signatures[index];
        for edge in &step.inputs {
            let Some(spec) = signature.input(&edge.model_tensor) else {
                let known = signature.inputs.iter().map(|spec| &*spec.name);
                self.no_such_tensor(index, "input", &edge.model_tensor, known);
                continue;
            };
            let Some(tensor) = self.graph.by_name.get(&edge.ensemble_tensor) else {
                self.defects.push(Defect::of_step(
                    index,
                    "input_map",
                    format!(
                        "ensemble tensor '{}' that input '{}' of model '{}' reads is written by no \
                         step and is no input of ensemble '{}'",
                        edge.ensemble_tensor, edge.model_tensor, step.model, self.spec.name
                    ),
                ));
                continue;
            };
            self.graph.steps[index].inputs.push(PlannedInput {
                tensor: *tensor,
                spec: spec.clone(),
                is_batched: signature.is_batching(),
            });
        }
        self.find_unmapped(index, step);
    }

    fn find_unmapped(&mut self, index: usize, step: &StepSpec) {
        for input in self.signatures[index].inputs.iter().filter(|input| !input.is_optional) {
            if step.inputs.iter().all(|edge| edge.model_tensor != input.name) {
                self.defects.push(Defect::of_step(
                    index,
                    "input_map",
                    format!(
                        "input {} in model {} is not mapped to any ensemble tensors in ensemble {}",
                        input.name, step.model, self.spec.name
                    ),
                ));
            }
        }
    }

    fn find_unused(&mut self) {
        let used = |tensor: TensorIndex| {
            let steps = self.graph.steps.iter().flat_map(|step| &step.inputs);
            steps.map(|input| input.tensor).any(|read| read == tensor)
        };
        for (index, tensor) in self.graph.tensors.iter().enumerate() {
            let (name, ensemble) = (&tensor.name, &self.spec.name);
            let defect = match tensor.source {
                _ if used(index) => continue,
                Source::Input => Defect::of_tensor(
                    "input",
                    index,
                    format!("ensemble input '{name}' for ensemble '{ensemble}' is not used"),
                ),
                Source::Step(_) if self.spec.signature.output(name).is_some() => continue,
                Source::Step(step) => Defect::of_step(
                    step,
                    "output_map",
                    format!("ensemble tensor '{name}' is unused in ensemble '{ensemble}'"),
                ),
            };
            self.defects.push(defect);
        }
    }

    fn find_unwritten(&mut self) {
        for (index, output) in self.spec.signature.outputs.iter().enumerate() {
            if !self.graph.by_name.contains_key(&output.name) {
                let message = format!(
                    "ensemble output '{}' for ensemble '{}' is not used",
                    output.name, self.spec.name
                );
                self.defects.push(Defect::of_tensor("output", index, message));
            }
        }
    }

    fn no_such_tensor<'n>(
        &mut self,
        step: usize,
        direction: &str,
        name: &str,
        known: impl Iterator<Item = &'n str>,
    ) {
        let known: Vec<&str> = known.collect();
        let spec = &self.spec.steps[step];
        let edges = if direction == "input" { &spec.inputs } else { &spec.outputs };
        let edge = edges.iter().find(|edge| &*edge.model_tensor == name);
        let tensor = edge.map_or("", |edge| &*edge.ensemble_tensor);
        let message = format!(
            "ensemble tensor {tensor} is mapping to non-existing {direction} {name} in model {} in \
             ensemble {}; the model's {direction}s are: {}",
            spec.model,
            self.spec.name,
            known.join(", ")
        );
        self.defects.push(Defect::of_step(step, &format!("{direction}_map"), message));
    }
}
