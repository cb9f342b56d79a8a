//! An ensemble once it is checked: names become indices, and every edge is known to fit.

use std::sync::Arc;

use consort_stage::{Signature, TensorSpec};

/// The index of a tensor in [`Plan::tensors`].
pub type TensorIndex = usize;

/// The index of a step in [`Plan::steps`], which is also its place in the configuration.
pub type StepIndex = usize;

/// A checked ensemble: a graph whose steps can be run as soon as their inputs are there.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The ensemble's name.
    pub name: Arc<str>,
    /// What the ensemble takes and gives; decoupled when any step is.
    pub signature: Signature,
    /// Every tensor of the ensemble.
    pub tensors: Vec<PlannedTensor>,
    /// Every step, in the configuration's order.
    pub steps: Vec<PlannedStep>,
    /// The responses the ensemble gives: one group unless outputs come from different streams.
    pub outputs: Arc<[OutputGroup]>,
    /// How many iterations of a streaming step may wait for the steps behind it.
    pub max_inflight: usize,
}

/// One tensor of the ensemble.
#[derive(Clone, Debug)]
pub struct PlannedTensor {
    /// Its name in the ensemble.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: Source,
    /// The streaming steps it descends from, outermost first. A tensor exists once for every
    /// combination of their responses; one without any exists once and is held.
    pub lineage: Vec<StepIndex>,
    /// Type and dimensions where it is made.
    pub spec: TensorSpec,
    /// Whether it has a batch dimension where it is made.
    pub is_batched: bool,
}

/// Where a tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The request.
    Input,
    /// A response of this step.
    Step(StepIndex),
}

/// One step of the ensemble.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// The model it calls.
    pub model: Arc<str>,
    /// The version it calls; `None` for the latest.
    pub version: Option<u64>,
    /// What it is given.
    pub inputs: Vec<PlannedInput>,
    /// Which of its outputs become which tensors.
    pub outputs: Vec<PlannedOutput>,
    /// The streaming steps its inputs descend from, outermost first: it runs once for each
    /// combination of their responses.
    pub lineage: Vec<StepIndex>,
    /// Whether it may answer any number of times.
    pub is_decoupled: bool,
}

/// A tensor on its way into a step or out of the ensemble.
#[derive(Clone, Debug)]
pub struct PlannedInput {
    /// The tensor.
    pub tensor: TensorIndex,
    /// The name, type and dimensions on the receiving side.
    pub spec: TensorSpec,
    /// Whether the receiving side has a batch dimension.
    pub is_batched: bool,
}

/// An output of a step's model and the tensor it becomes.
#[derive(Clone, Debug)]
pub struct PlannedOutput {
    /// The output's name in the model.
    pub name: Arc<str>,
    /// The tensor.
    pub tensor: TensorIndex,
}

/// Outputs of the ensemble that are sent together.
#[derive(Clone, Debug)]
pub struct OutputGroup {
    /// The tensors, as the ensemble's caller sees them.
    pub outputs: Vec<PlannedInput>,
    /// The streaming steps they descend from: one response for each combination of theirs.
    pub lineage: Vec<StepIndex>,
}

impl Plan {
    /// The responses that carry the `wanted` outputs; an empty list wants every output.
    pub fn wanted_groups(&self, wanted: &[Arc<str>]) -> Arc<[OutputGroup]> {
        if wanted.is_empty() {
            return self.outputs.clone();
        }
        let find = |spec: &TensorSpec| {
            let mut outputs = self.outputs.iter().flat_map(|group| &group.outputs);
            outputs.find(|output| output.spec.name == spec.name).cloned()
        };
        let specs = self.signature.outputs.iter();
        let outputs: Vec<_> =
            specs.filter(|spec| wanted.contains(&spec.name)).filter_map(find).collect();
        group_outputs(&outputs, &self.tensors).into()
    }

    /// The input of the ensemble that a step is given as its `input`, or that another step made
    /// this of alone; `None` where that made it of several of those that were `given`.
    pub fn sent_as(
        &self,
        step: StepIndex,
        input: &str,
        given: impl Fn(TensorIndex) -> bool,
    ) -> Option<&Arc<str>> {
        let mut taken = self.steps[step].inputs.iter();
        let mut tensor = taken.find(|taken| &*taken.spec.name == input)?.tensor;
        // Ends, for a plan has no cycle.
        while let Source::Step(maker) = self.tensors[tensor].source {
            let is_there = |taken: &&PlannedInput| {
                self.tensors[taken.tensor].source != Source::Input || given(taken.tensor)
            };
            let mut taken = self.steps[maker].inputs.iter().filter(is_there);
            tensor = taken.next().filter(|_| taken.next().is_none())?.tensor;
        }
        Some(&self.tensors[tensor].name)
    }

    /// For each step, whether it is needed to make the outputs of `groups`.
    pub fn needed_steps(&self, groups: &[OutputGroup]) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        let outputs = groups.iter().flat_map(|group| &group.outputs);
        let mut open: Vec<TensorIndex> = outputs.map(|output| output.tensor).collect();
        while let Some(tensor) = open.pop() {
            let Source::Step(step) = self.tensors[tensor].source else {
                continue;
            };
            if !std::mem::replace(&mut needed[step], true) {
                open.extend(self.steps[step].inputs.iter().map(|input| input.tensor));
            }
        }
        needed
    }
}

/// Groups outputs into the responses that carry them.
///
/// Outputs whose lineages continue one another go together, the shorter ones held and repeated;
/// outputs of unrelated streams go in responses of their own.
pub(crate) fn group_outputs(
    outputs: &[PlannedInput],
    tensors: &[PlannedTensor],
) -> Vec<OutputGroup> {
    let lineage_of = |output: &PlannedInput| tensors[output.tensor].lineage.as_slice();
    let is_longest = |lineage: &[StepIndex]| {
        outputs.iter().map(lineage_of).all(|other| other == lineage || !other.starts_with(lineage))
    };
    let mut lineages: Vec<&[StepIndex]> =
        outputs.iter().map(lineage_of).filter(|lineage| is_longest(lineage)).collect();
    lineages.sort_unstable();
    lineages.dedup();
    let group = |lineage: &[StepIndex]| OutputGroup {
        outputs: outputs.iter().filter(|o| lineage.starts_with(lineage_of(o))).cloned().collect(),
        lineage: lineage.to_vec(),
    };
    lineages.into_iter().map(group).collect()
}
