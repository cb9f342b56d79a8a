//! The tensors of one running request: each stays until nothing can need it any more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use consort_stage::Tensor;

use crate::plan::{OutputGroup, Plan, PlannedInput, StepIndex, TensorIndex};

/// Which response of each streaming step in a lineage, outermost first; empty for what is held.
pub(crate) type Iteration = Vec<u32>;

/// The tensors that have been made and are still needed.
pub(crate) struct Store {
    plan: Arc<Plan>,
    tensors: Vec<Made>,
    /// For each streaming step, its responses that are not used up: by each, how many receivers
    /// wait for what came of it and how many calls work on it.
    live: Vec<BTreeMap<Iteration, usize>>,
    /// For each streaming step, the tensors that are kept until a response of it is used up.
    held: Vec<Vec<TensorIndex>>,
}

#[derive(Default)]
struct Made {
    values: BTreeMap<Iteration, Value>,
    /// How many receivers of the same lineage take each value before it can go.
    takers: usize,
    /// Whether receivers of longer lineages take the values again and again.
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
    pub(crate) fn new(plan: Arc<Plan>, needed: &[bool], groups: &[OutputGroup]) -> Self {
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
        let mut held = vec![Vec::new(); plan.steps.len()];
        let held_tensors = tensors.iter().enumerate().filter(|(_, made)| made.is_held);
        for (index, _) in held_tensors {
            if let Some(step) = plan.tensors[index].lineage.last() {
                held[*step].push(index);
            }
        }
        Self { live: vec![BTreeMap::new(); plan.steps.len()], held, tensors, plan }
    }

    /// Whether anybody will take this tensor.
    pub(crate) fn is_wanted(&self, index: TensorIndex) -> bool {
        let made = &self.tensors[index];
        made.takers > 0 || made.is_held
    }

    /// Keeps a tensor, or its absence, for those who will take it.
    pub(crate) fn put(
        &mut self,
        index: TensorIndex,
        iteration: &Iteration,
        tensor: Option<Tensor>,
        is_last: bool,
    ) {
        let is_wanted = self.is_wanted(index);
        let made = &mut self.tensors[index];
        let takers = made.takers;
        if is_wanted {
            let value = Value { tensor, takers_left: takers, is_last };
            made.values.insert(iteration.clone(), value);
        }
        if takers > 0 {
            let plan = self.plan.clone();
            self.hold(&plan.tensors[index].lineage, iteration, takers);
        }
    }

    /// The iteration after `last` for which every one of `inputs` is there.
    ///
    /// Tensors of one lineage are made in order, so what lacks an input now is only waited for.
    pub(crate) fn next(
        &self,
        inputs: &[PlannedInput],
        depth: usize,
        last: Option<&Iteration>,
    ) -> Option<Iteration> {
        let of_depth = |input: &&PlannedInput| self.depth(input.tensor) == depth;
        let Some(driving) = inputs.iter().find(of_depth) else {
            // Only what takes no tensor at all is driven by none: it happens once.
            return last.is_none().then(Vec::new);
        };
        let values = &self.tensors[driving.tensor].values;
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let (iteration, _) = values.range::<Iteration, _>((after, Bound::Unbounded)).next()?;
        let is_there = |input: &PlannedInput| {
            let key = &iteration[..self.depth(input.tensor)];
            self.tensors[input.tensor].values.contains_key(key)
        };
        inputs.iter().all(is_there).then(|| iteration.clone())
    }

    /// Takes an input for `iteration`; the last taker gets the tensor itself.
    pub(crate) fn take(&mut self, input: &PlannedInput, at: &Iteration) -> Taken {
        let depth = self.depth(input.tensor);
        let made = &mut self.tensors[input.tensor];
        let key = &at[..depth];
        let Some(value) = made.values.get_mut(key) else {
            return Taken::default();
        };
        let is_last = value.is_last;
        if depth < at.len() {
            return Taken { tensor: value.tensor.clone(), is_last };
        }
        value.takers_left -= 1;
        let tensor = if value.takers_left == 0 && !made.is_held {
            made.values.remove(key).and_then(|value| value.tensor)
        } else {
            value.tensor.clone()
        };
        if depth > 0 {
            let plan = self.plan.clone();
            self.end(&plan.tensors[input.tensor].lineage, at);
        }
        Taken { tensor, is_last }
    }

    /// Notes that something of this lineage works on `iteration`; to be said before it takes its
    /// inputs.
    pub(crate) fn begin(&mut self, lineage: &[StepIndex], iteration: &Iteration) {
        self.hold(lineage, iteration, 1);
    }

    /// Notes that it is through with `iteration`; to be said after its outputs were put.
    pub(crate) fn end(&mut self, lineage: &[StepIndex], iteration: &Iteration) {
        for (depth, step) in (1..).zip(lineage) {
            let response = &iteration[..depth];
            let Some(holds) = self.live[*step].get_mut(response) else {
                continue;
            };
            *holds -= 1;
            if *holds == 0 {
                self.live[*step].remove(response);
                for tensor in &self.held[*step] {
                    self.tensors[*tensor].values.remove(response);
                }
            }
        }
    }

    fn hold(&mut self, lineage: &[StepIndex], iteration: &Iteration, holds: usize) {
        for (depth, step) in (1..).zip(lineage) {
            *self.live[*step].entry(iteration[..depth].to_vec()).or_default() += holds;
        }
    }

    /// How many responses of a streaming step the steps behind it have not used up.
    pub(crate) fn in_flight(&self, step: StepIndex) -> usize {
        self.live[step].len()
    }

    fn depth(&self, tensor: TensorIndex) -> usize {
        self.plan.tensors[tensor].lineage.len()
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
