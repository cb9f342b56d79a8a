//! The tensors of one running request: each stays until the last step that needs it has it.

use std::collections::BTreeMap;

use consort_stage::Tensor;

use crate::plan::{OutputGroup, Plan, PlannedInput, TensorIndex};

/// Which response of each streaming step in a lineage, outermost first; empty for what is held.
pub(crate) type Iteration = Vec<u32>;

/// The tensors that have been made and are still needed.
pub(crate) struct Store {
    tensors: Vec<Made>,
}

#[derive(Default)]
struct Made {
    values: BTreeMap<Iteration, Value>,
    /// How many receivers of the same lineage take each value before it can go.
    takers: usize,
    /// Whether receivers of longer lineages need the values until the request ends.
    is_held: bool,
}

struct Value {
    /// `None` where a model left out an output or the caller an optional input.
    tensor: Option<Tensor>,
    takers_left: usize,
    is_last: bool,
}

impl Store {
    /// An empty store that knows who will take what; steps and groups outside `needed` take nothing.
    pub(crate) fn new(plan: &Plan, needed: &[bool], groups: &[OutputGroup]) -> Self {
        let mut tensors: Vec<Made> = plan.tensors.iter().map(|_| Made::default()).collect();
        let steps = plan.steps.iter().zip(needed).filter(|(_, needed)| **needed);
        let steps = steps.map(|(step, _)| (&step.inputs, step.lineage.len()));
        let groups = groups.iter().map(|group| (&group.outputs, group.lineage.len()));
        for (inputs, depth) in steps.chain(groups) {
            for input in inputs {
                let made = &mut tensors[input.tensor];
                if plan.tensors[input.tensor].lineage.len() == depth {
                    made.takers += 1;
                } else {
                    made.is_held = true;
                }
            }
        }
        Self { tensors }
    }

    /// Keeps a tensor, or its absence, for those who will take it.
    pub(crate) fn put(
        &mut self,
        index: TensorIndex,
        iteration: &Iteration,
        tensor: Option<Tensor>,
        is_last: bool,
    ) {
        let made = &mut self.tensors[index];
        if made.takers > 0 || made.is_held {
            let value = Value { tensor, takers_left: made.takers, is_last };
            made.values.insert(iteration.clone(), value);
        }
    }

    /// Whether every one of `inputs` is there for `iteration`.
    pub(crate) fn has_all(&self, plan: &Plan, inputs: &[PlannedInput], at: &[u32]) -> bool {
        inputs.iter().all(|input| {
            let depth = plan.tensors[input.tensor].lineage.len();
            self.tensors[input.tensor].values.contains_key(&at[..depth])
        })
    }

    /// The iterations for which one of `inputs` of this lineage's depth is there, in order.
    pub(crate) fn iterations(
        &self,
        plan: &Plan,
        inputs: &[PlannedInput],
        depth: usize,
    ) -> Vec<Iteration> {
        let of_depth = |input: &&PlannedInput| plan.tensors[input.tensor].lineage.len() == depth;
        let Some(input) = inputs.iter().find(of_depth) else {
            return vec![Vec::new()];
        };
        self.tensors[input.tensor].values.keys().cloned().collect()
    }

    /// Takes an input for `iteration`; the last taker gets the tensor itself.
    pub(crate) fn take(&mut self, plan: &Plan, input: &PlannedInput, at: &[u32]) -> Taken {
        let depth = plan.tensors[input.tensor].lineage.len();
        let made = &mut self.tensors[input.tensor];
        let key = &at[..depth];
        let Some(value) = made.values.get_mut(key) else {
            return Taken::default();
        };
        let is_last = value.is_last;
        if depth == at.len() {
            value.takers_left -= 1;
        }
        let tensor = if value.takers_left == 0 && !made.is_held {
            made.values.remove(key).and_then(|value| value.tensor)
        } else {
            value.tensor.clone()
        };
        Taken { tensor, is_last }
    }

    /// How many values of a tensor wait for a receiver of the same lineage.
    pub(crate) fn waiting(&self, index: TensorIndex) -> usize {
        self.tensors[index].values.values().filter(|value| value.takers_left > 0).count()
    }
}

/// A tensor on its way to a receiver.
#[derive(Default)]
pub(crate) struct Taken {
    /// The tensor, unless it was left out.
    pub(crate) tensor: Option<Tensor>,
    /// Whether no later iteration of it will come.
    pub(crate) is_last: bool,
}
