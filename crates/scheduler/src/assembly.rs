//! Puts requests together into one batch and takes the outputs of its run apart again.

mod axis;
mod gather;
mod ragged;
mod scatter;

use std::sync::Arc;

use consort_config::RaggedBatching;
use consort_stage::{Request, Signature, TensorSpec, VARIABLE};

pub use gather::batch_of_one;
pub(crate) use gather::gather;
pub(crate) use scatter::scatter;

/// The number of dimensions before those of a [`TensorSpec`]: the batch.
const BATCH: usize = 1;

/// What a model's signature says about putting requests together.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    signature: Arc<Signature>,
    /// Whether the model can tell padding from content, so that shorter inputs may be padded.
    pads: bool,
    /// What the model is told about inputs of different shapes.
    ragged: Arc<RaggedBatching>,
    /// Whether any input or output is treated so.
    is_ragged: bool,
}

/// The place of one request in a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rider {
    /// How many rows of the batch are its own.
    pub(crate) rows: usize,
    /// The size of its variable axis before it was padded; `None` when it has none.
    pub(crate) length: Option<i64>,
    /// The outputs it wants; empty means all.
    pub(crate) outputs: Vec<Arc<str>>,
    /// For each batch output, the shape of the input that says how it is cut.
    sources: Vec<Vec<i64>>,
}

impl Layout {
    /// The layout of a model; `pads` says that its inputs may be padded along their variable axis.
    pub(crate) fn new(signature: Arc<Signature>, pads: bool) -> Self {
        let is_ragged =
            signature.is_batching() && signature.inputs.iter().any(|spec| spec.is_ragged);
        Self { signature, pads, ragged: Arc::default(), is_ragged }
    }

    /// The same for a model that is told so about its batches; nothing without batches.
    pub(crate) fn told_of(self, ragged: &RaggedBatching) -> Self {
        if !self.signature.is_batching() || *ragged == RaggedBatching::default() {
            return self;
        }
        Self { ragged: Arc::new(ragged.clone()), is_ragged: true, ..self }
    }

    /// Whether inputs with this specification lie behind one another whatever their shapes.
    pub(crate) fn joins_flat(&self, spec: &TensorSpec) -> bool {
        self.is_ragged && spec.is_ragged
    }

    /// The place in the configuration of the batch output that has this output as a target.
    fn batch_output(&self, name: &str) -> Option<usize> {
        let has_target = |target: &Arc<str>| **target == *name;
        self.ragged.outputs.iter().position(|output| output.targets.iter().any(has_target))
    }

    /// Whether inputs of different lengths are padded to one.
    pub(crate) fn pads(&self) -> bool {
        self.pads
    }

    /// The model's signature.
    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// How many rows of a batch a request takes.
    pub(crate) fn rows(&self, request: &Request) -> usize {
        let first = request.inputs.first().and_then(|tensor| tensor.shape.first());
        let rows = first.filter(|_| self.signature.is_batching()).copied().unwrap_or(1);
        usize::try_from(rows).unwrap_or(0).max(1)
    }

    /// The size that all inputs with a variable axis have along it; `None` when no input has one,
    /// when one has several, or when they differ. Ragged inputs do not count.
    pub(crate) fn length(&self, request: &Request) -> Option<i64> {
        let mut length = None;
        for tensor in &request.inputs {
            let spec = self.signature.input(&tensor.name)?;
            if self.joins_flat(spec) {
                continue;
            }
            let mut axes = variable_axes(spec);
            let Some(axis) = axes.next() else { continue };
            let size = *tensor.shape.get(axis)?;
            if axes.next().is_some() || *length.get_or_insert(size) != size {
                return None;
            }
        }
        length
    }

    /// How much of a padded batch is content and how much padding, in elements along the variable
    /// axis; nothing of either where nothing is padded.
    pub(crate) fn tokens(&self, riders: &[Rider]) -> (u64, u64) {
        let lengths = riders.iter().filter_map(|rider| Some((rider.rows, rider.length?)));
        let (mut rows, mut longest, mut useful) = (0, 0, 0);
        for (own, length) in lengths.filter(|_| self.pads) {
            rows += own as u64;
            longest = longest.max(length as u64);
            useful += own as u64 * length as u64;
        }
        (useful, rows * longest - useful)
    }

    /// The place in a batch that a request will have.
    fn rider(&self, request: &Request) -> Rider {
        let length = self.length(request);
        let batch_outputs = self.ragged.outputs.iter();
        let sources =
            batch_outputs.map(|output| ragged::source_shape(self, request, &output.source));
        Rider {
            rows: self.rows(request),
            length,
            outputs: request.outputs.clone(),
            sources: sources.collect(),
        }
    }
}

/// The axes of a whole tensor, batch dimension included, that may have any size.
pub(crate) fn variable_axes(spec: &TensorSpec) -> impl Iterator<Item = usize> {
    let dims = spec.reshape.as_ref().unwrap_or(&spec.dims).iter();
    dims.enumerate().filter(|(_, dim)| **dim == VARIABLE).map(|(axis, _)| axis + BATCH)
}

#[cfg(test)]
mod tests {
    use consort_stage::{DataType, Tensor};

    use super::*;

    pub(super) fn layout(inputs: &[(&str, DataType, &[i64])], pads: bool) -> Layout {
        let specs =
            inputs.iter().map(|(name, datatype, dims)| TensorSpec::new(name, *datatype, dims));
        let inputs: Vec<_> = specs.collect();
        let signature = Signature { max_batch_size: 64, inputs, ..Signature::default() };
        Layout::new(Arc::new(signature), pads)
    }

    fn asks(tensors: &[(&str, &[i64])]) -> Request {
        let tensor = |(name, shape): &(&str, &[i64])| {
            let count = shape.iter().product::<i64>() as usize;
            Tensor::from_vec(*name, shape, vec![1_i64; count])
        };
        Request { inputs: tensors.iter().map(tensor).collect(), ..Request::default() }
    }

    #[test]
    fn a_request_has_a_length_when_all_its_variable_inputs_agree() {
        let inputs: &[(&str, DataType, &[i64])] =
            &[("ids", DataType::Int64, &[-1]), ("mask", DataType::Int64, &[-1])];
        let layout = layout(inputs, true);
        assert_eq!(layout.length(&asks(&[("ids", &[2, 7]), ("mask", &[2, 7])])), Some(7));
        assert_eq!(layout.length(&asks(&[("ids", &[2, 7]), ("mask", &[2, 8])])), None);
        assert_eq!(layout.rows(&asks(&[("ids", &[2, 7]), ("mask", &[2, 7])])), 2);
    }

    #[test]
    fn what_is_added_to_the_shorter_rows_is_padding() {
        let rider = |rows, length| Rider { rows, length: Some(length), ..Rider::default() };
        let riders = [rider(2, 3), rider(1, 5)];
        assert_eq!(layout(&[], true).tokens(&riders), (11, 4));
        assert_eq!(layout(&[], false).tokens(&riders), (0, 0));
    }

    #[test]
    fn a_request_with_fixed_or_many_variable_axes_has_no_length() {
        let fixed = layout(&[("x", DataType::Int64, &[3])], true);
        assert_eq!(fixed.length(&asks(&[("x", &[1, 3])])), None);
        let image = layout(&[("x", DataType::Int64, &[-1, -1])], true);
        assert_eq!(image.length(&asks(&[("x", &[1, 3, 3])])), None);
    }
}
