//! What the model remembers of one sequence: its keys and values, bound to the session in place.

use consort_stage::{Error, Result};
use ort::memory::{Allocator, MemoryInfo};
use ort::session::{IoBinding, RunOptions, Session, SessionInputValue};
use ort::value::{DynTensor, DynValue, Tensor};

use super::graph::{Carrying, Graph, Integers};
use super::runs::Runs;
use crate::provider::Provider;

/// The keys and values of one sequence, and the bindings that the session reads them through.
pub(crate) struct Cache {
    binding: IoBinding,
    /// The last present, in the graph's order; empty when past and present are one buffer.
    past: Vec<DynValue>,
    /// How many tokens it holds.
    length: usize,
}

/// What a run is done with: where its tensors lie, and its options.
pub(crate) type With<'a> = (&'a Memory, &'a Runs);

/// The inputs of a run beside the cache, row after row.
pub(crate) struct Step {
    /// How many rows there are.
    pub(crate) rows: usize,
    /// The new tokens.
    pub(crate) tokens: Vec<i64>,
    /// Ones for the tokens to look at, those of the past and the new ones.
    pub(crate) mask: Vec<i64>,
    /// The places of the new tokens in their texts.
    pub(crate) positions: Vec<i64>,
    /// Whether there is a past.
    pub(crate) has_past: bool,
}

impl Step {
    /// The inputs that the graph has, by name.
    fn inputs(self, graph: &Graph) -> ort::Result<Vec<(&str, DynValue)>> {
        let numbers = |input: &Integers, values| integers(input, self.rows, values);
        let tokens = &graph.tokens;
        let mut inputs = vec![(tokens.name.as_str(), numbers(tokens, self.tokens)?)];
        if let Some(mask) = &graph.mask {
            inputs.push((&mask.name, numbers(mask, self.mask)?));
        }
        if let Some(positions) = &graph.positions {
            inputs.push((&positions.name, numbers(positions, self.positions)?));
        }
        if let Some(branch) = &graph.cache_branch {
            let has_past = Tensor::from_array(([1_i64], vec![self.has_past]))?;
            inputs.push((branch, has_past.into_dyn()));
        }
        Ok(inputs)
    }
}

/// Where the caches of a session lie, and how long they may get.
pub(crate) struct Memory {
    device: MemoryInfo<'static>,
    host: MemoryInfo<'static>,
    /// The length of a shared buffer, in tokens.
    context: usize,
}

impl Memory {
    /// The memory of the device that `provider` runs on.
    pub(crate) fn new(provider: Provider, context: usize) -> Result<Self> {
        let of = |provider: Provider| provider.memory().map_err(|error| failed(&error));
        Ok(Self { device: of(provider)?, host: of(Provider::Cpu)?, context })
    }
}

impl Cache {
    /// A cache that holds no token. A shared buffer is allocated now, in its full length.
    pub(crate) fn new(session: &Session, graph: &Graph, memory: &Memory) -> Result<Self> {
        let mut cache = Self {
            binding: session.create_binding().map_err(|error| failed(&error))?,
            past: Vec::new(),
            length: 0,
        };
        if graph.carrying == Carrying::SharedBuffer {
            cache.bind_buffers(session, graph, memory).map_err(|error| failed(&error))?;
        } else {
            cache.clear(graph)?;
        }
        Ok(cache)
    }

    /// Forgets every token; a shared buffer stays allocated for the next sequence.
    pub(crate) fn clear(&mut self, graph: &Graph) -> Result<()> {
        self.length = 0;
        if graph.carrying == Carrying::PresentToPast {
            self.past = empty_past(graph).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Feeds tokens behind those it holds and gives the logits of all of them.
    pub(crate) fn feed(
        &mut self,
        session: &mut Session,
        graph: &Graph,
        with: With<'_>,
        tokens: &[u32],
    ) -> ort::Result<DynValue> {
        let total = self.length + tokens.len();
        let step = Step {
            rows: 1,
            tokens: tokens.iter().map(|token| i64::from(*token)).collect(),
            mask: vec![1; total],
            positions: (self.length as i64..total as i64).collect(),
            has_past: self.length > 0,
        };
        let logits = self.run(session, graph, with, step)?;
        self.length = total;
        Ok(logits)
    }

    /// Runs a step over the past it holds, and gives its logits.
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        graph: &Graph,
        (memory, runs): With<'_>,
        step: Step,
    ) -> ort::Result<DynValue> {
        let (options, has_adapter) = runs.options()?;
        if has_adapter {
            return self.run_unbound(session, graph, &options, step);
        }
        self.bind_step(graph, memory, step)?;
        let outputs = session.run_binding_with_options(&self.binding, &options)?;
        let mut logits = None;
        let mut past = Vec::with_capacity(self.past.len());
        // The outputs come in the order they were first bound in: the cache's, then the logits.
        for (name, value) in outputs {
            if name == graph.logits.name {
                logits = Some(value);
            } else if graph.carrying == Carrying::PresentToPast {
                past.push(value);
            }
        }
        self.past = past;
        logits.ok_or_else(|| ort::Error::new("the run gave no logits"))
    }

    /// The same without bindings, through which ONNX Runtime gives a run no adapter's weights, and
    /// says nothing of it. Only on the processor, where it costs no copy more.
    fn run_unbound(
        &mut self,
        session: &mut Session,
        graph: &Graph,
        options: &RunOptions,
        step: Step,
    ) -> ort::Result<DynValue> {
        let names = graph.cache.iter().map(|tensor| tensor.past.as_str());
        let past = names.zip(&self.past).map(|(name, value)| (name, value.into()));
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = past.collect();
        let others = step.inputs(graph)?.into_iter();
        inputs.extend(others.map(|(name, value)| (name, value.into())));
        let mut outputs = session.run_with_options(inputs, options)?;
        let mut take = |name: &str| {
            outputs.remove(name).ok_or_else(|| ort::Error::new(format!("the run gave no `{name}`")))
        };
        let past = graph.cache.iter().map(|tensor| take(&tensor.present));
        let past = past.collect::<ort::Result<Vec<_>>>()?;
        let logits = take(&graph.logits.name)?;
        self.past = past;
        Ok(logits)
    }

    /// The keys and values it holds, in the graph's order, where they are no shared buffer.
    pub(crate) fn past(&self) -> &[DynValue] {
        &self.past
    }

    /// Puts others in the place of the keys and values it holds, those of so many tokens.
    pub(crate) fn set_past(&mut self, past: Vec<DynValue>, length: usize) {
        (self.past, self.length) = (past, length);
    }

    /// The keys and values it holds, for another.
    pub(crate) fn into_past(self) -> Vec<DynValue> {
        self.past
    }

    /// How many tokens it was fed.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Binds one buffer for each of the graph's cache tensors as both its past and its present.
    fn bind_buffers(
        &mut self,
        session: &Session,
        graph: &Graph,
        memory: &Memory,
    ) -> ort::Result<()> {
        let allocator = Allocator::new(session, memory.device.clone())?;
        for tensor in &graph.cache {
            let shape = tensor.shape(1, memory.context);
            let mut buffer = DynTensor::new(&allocator, tensor.element, shape)?;
            self.binding.bind_input(tensor.past.as_str(), &buffer)?;
            self.binding.bind_output(tensor.present.as_str(), &mut buffer)?;
        }
        Ok(())
    }

    /// Binds what changes from step to step.
    fn bind_step(&mut self, graph: &Graph, memory: &Memory, step: Step) -> ort::Result<()> {
        let binding = &mut self.binding;
        if graph.carrying == Carrying::PresentToPast {
            for (tensor, past) in graph.cache.iter().zip(&self.past) {
                binding.bind_input(tensor.past.as_str(), past)?;
                binding.bind_output_to_device(tensor.present.as_str(), &memory.device)?;
            }
        }
        for (name, value) in step.inputs(graph)? {
            binding.bind_input(name, &value)?;
        }
        binding.bind_output_to_device(graph.logits.name.as_str(), &memory.host)
    }
}

/// The past of a sequence that has none: tensors without elements.
fn empty_past(graph: &Graph) -> ort::Result<Vec<DynValue>> {
    let allocator = Allocator::default();
    let empty = |tensor: &super::graph::CacheTensor| {
        DynTensor::new(&allocator, tensor.element, tensor.shape(1, 0)).map(DynTensor::into_dyn)
    };
    graph.cache.iter().map(empty).collect()
}

/// So many rows of whole numbers, of the input's type.
fn integers(input: &Integers, rows: usize, values: Vec<i64>) -> ort::Result<DynValue> {
    let shape = [rows as i64, (values.len() / rows) as i64];
    if input.is_wide {
        return Ok(Tensor::from_array((shape, values))?.into_dyn());
    }
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    Ok(Tensor::from_array((shape, values))?.into_dyn())
}

fn failed(error: &ort::Error) -> Error {
    Error::internal(format!("the decoder's cache cannot be made: {error}"))
}
