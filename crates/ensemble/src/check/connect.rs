//! Gives every name its index; what cannot be connected is a defect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_stage::{DataType, Signature, TensorSpec};

use super::Signatures;
use crate::defect::Defect;
use crate::plan::{PlannedInput, PlannedOutput, PlannedStep, PlannedTensor, Source, TensorIndex};
use crate::spec::{Edge, Spec, StepSpec};

/// The graph before its order is known: lineages are still empty.
///
/// After a mistake it holds what could be connected, so that the rest is checked all the same and
/// no mistake is reported twice.
#[derive(Default)]
pub(super) struct Graph {
    pub(super) tensors: Vec<PlannedTensor>,
    pub(super) steps: Vec<PlannedStep>,
    pub(super) by_name: BTreeMap<Arc<str>, TensorIndex>,
    /// The tensors that some step wants to read, whether or not it can.
    pub(super) mentioned: BTreeSet<TensorIndex>,
    /// The tensors of which nobody knows type and shape.
    pub(super) unknown: BTreeSet<TensorIndex>,
}

/// Connects names to indices; what cannot be connected is a defect.
pub(super) fn connect(spec: &Spec, signatures: &Signatures, defects: &mut Vec<Defect>) -> Graph {
    let mut connector = Connector { spec, signatures, graph: Graph::default(), defects };
    connector.find_unstated();
    connector.add_ensemble_inputs();
    for (index, step) in spec.steps.iter().enumerate() {
        connector.add_step_outputs(index, step);
    }
    for (index, step) in spec.steps.iter().enumerate() {
        connector.add_step_inputs(index, step);
        connector.find_unmapped(index, step);
    }
    connector.graph
}

struct Connector<'a> {
    spec: &'a Spec,
    signatures: &'a Signatures,
    graph: Graph,
    defects: &'a mut Vec<Defect>,
}

impl Connector<'_> {
    fn find_unstated(&mut self) {
        let ensemble = &self.spec.name;
        if self.spec.steps.is_empty() {
            let message = format!("must specify 'step' for ensemble '{ensemble}'");
            self.defects.push(Defect::of_ensemble(message));
        }
        for (index, step) in self.spec.steps.iter().enumerate() {
            for (map, edges) in [("input_map", &step.inputs), ("output_map", &step.outputs)] {
                if edges.is_empty() {
                    let message =
                        format!("must specify '{map}' in step {index} of ensemble '{ensemble}'");
                    self.defects.push(Defect::of_step(index, map, message));
                }
            }
        }
    }

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
        let signature = self.signatures[index].as_deref();
        let mut outputs = Vec::new();
        for edge in &step.outputs {
            let (name, ensemble) = (&edge.ensemble_tensor, &self.spec.name);
            if self.graph.by_name.contains_key(name) {
                let message = format!(
                    "ensemble tensor '{name}' can appear in an output map only once for ensemble \
                     '{ensemble}' step {index}{}",
                    self.remedy_for_written(name)
                );
                self.defects.push(Defect::of_edge(index, "output_map", edge, message));
                continue;
            }
            let known = signature.and_then(|signature| signature.output(&edge.model_tensor));
            if let (Some(signature), None) = (signature, known) {
                self.no_such_tensor(index, "output", edge, &signature.outputs);
            }
            let placeholder = || TensorSpec::new(&edge.model_tensor, DataType::Bytes, &[]);
            let spec = known.cloned().unwrap_or_else(placeholder);
            let is_batched = signature.is_some_and(Signature::is_batching);
            let tensor = self.add_tensor(name.clone(), Source::Step(index), spec, is_batched);
            if known.is_none() {
                self.graph.unknown.insert(tensor);
            }
            outputs.push(PlannedOutput { name: edge.model_tensor.clone(), tensor });
        }
        self.graph.steps.push(PlannedStep {
            model: step.model.clone(),
            version: step.version,
            inputs: Vec::new(),
            outputs,
            lineage: Vec::new(),
            is_decoupled: signature.is_some_and(|signature| signature.is_decoupled),
        });
    }

    fn remedy_for_written(&self, name: &str) -> &'static str {
        let is_input = self.spec.signature.input(name).is_some();
        if is_input { "; it is an input of the ensemble" } else { "" }
    }

    fn add_step_inputs(&mut self, index: usize, step: &StepSpec) {
        let signature = self.signatures[index].as_deref();
        for (place, edge) in step.inputs.iter().enumerate() {
            let tensor = self.graph.by_name.get(&edge.ensemble_tensor).copied();
            match tensor {
                Some(tensor) => drop(self.graph.mentioned.insert(tensor)),
                None => self.no_such_source(index, edge),
            }
            if step.inputs[..place].iter().any(|other| other.model_tensor == edge.model_tensor) {
                let message = format!(
                    "input '{}' in model '{}' is mapped to multiple ensemble tensors for ensemble \
                     '{}' step {index}",
                    edge.model_tensor, step.model, self.spec.name
                );
                self.defects.push(Defect::of_edge(index, "input_map", edge, message));
                continue;
            }
            let known = signature.and_then(|signature| signature.input(&edge.model_tensor));
            if let (Some(signature), None) = (signature, known) {
                self.no_such_tensor(index, "input", edge, &signature.inputs);
            }
            if let Some(tensor) = tensor {
                let from = &self.graph.tensors[tensor];
                let spec = known.unwrap_or(&from.spec).clone();
                let is_batched = signature.map_or(from.is_batched, Signature::is_batching);
                self.graph.steps[index].inputs.push(PlannedInput { tensor, spec, is_batched });
            }
        }
    }

    fn no_such_source(&mut self, index: usize, edge: &Edge) {
        let message = format!(
            "ensemble tensor '{}' that input '{}' of model '{}' reads is written by no step and is \
             no input of ensemble '{}'",
            edge.ensemble_tensor, edge.model_tensor, self.spec.steps[index].model, self.spec.name
        );
        self.defects.push(Defect::of_edge(index, "input_map", edge, message));
    }

    fn find_unmapped(&mut self, index: usize, step: &StepSpec) {
        let signature = self.signatures[index].as_deref();
        let inputs = signature.into_iter().flat_map(|signature| &signature.inputs);
        for input in inputs.filter(|input| !input.is_optional) {
            if step.inputs.iter().all(|edge| edge.model_tensor != input.name) {
                let message = format!(
                    "input {} in model {} is not mapped to any ensemble tensors in ensemble {}",
                    input.name, step.model, self.spec.name
                );
                self.defects.push(Defect::of_step(index, "input_map", message));
            }
        }
    }

    fn no_such_tensor(&mut self, step: usize, what: &str, edge: &Edge, known: &[TensorSpec]) {
        let known: Vec<&str> = known.iter().map(|spec| &*spec.name).collect();
        let message = format!(
            "ensemble tensor {} is mapping to non-existing {what} {} in model {} in ensemble {}; \
             the model's {what}s are: {}",
            edge.ensemble_tensor,
            edge.model_tensor,
            self.spec.steps[step].model,
            self.spec.name,
            known.join(", ")
        );
        self.defects.push(Defect::of_edge(step, &format!("{what}_map"), edge, message));
    }
}
