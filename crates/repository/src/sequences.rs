//! Starts the stage of a model whose requests belong to sequences.

use std::path::Path;
use std::sync::Arc;

use consort_config::{Filling, FillingData, Model, Scheduling, SequenceBatching, State};
use consort_scheduler::{Counting, SequenceStage, Sequences, Threads, controls_of_one};
use consort_stage::{Batch, BatchBackend, Error, InlineBackend, Result, Stage, Tensor, VARIABLE};

use crate::filling::fill;
use crate::instances::{Pool, no_thread};
use crate::kind::Backend;

/// The folder beside the versions that holds the states sequences begin with.
const INITIAL_STATE: &str = "initial_state";

/// Starts the instances of a model with `sequence_batching`.
pub(crate) fn start(
    model: &Model,
    batching: &SequenceBatching,
    folder: &Path,
    (instances, threads): (Vec<Backend>, Threads),
    counting: Counting,
) -> Result<(Arc<dyn Stage>, Pool)> {
    let is_one_for_all = instances.iter().any(|one| matches!(one, Backend::Inline(_)));
    let instances = instances.into_iter().map(|instance| batch_backend(model, instance));
    let instances = instances.collect::<Result<Vec<_>>>()?;
    let initial = batching.states.iter().map(|state| initial(model, state, folder));
    let sequences = Sequences {
        batching: batching.clone(),
        signature: model.signature.clone(),
        backend_signature: model.backend_signature(),
        ragged: model.ragged.clone(),
        initial: initial.collect::<Result<_>>()?,
        queue_size: consort_scheduler::DEFAULT_QUEUE_SIZE,
    };
    let stage = SequenceStage::start(threads, instances, sequences, counting);
    let stage = Arc::new(stage.map_err(no_thread)?);
    let pool = if is_one_for_all { Pool::Inline } else { Pool::Sequence(Arc::downgrade(&stage)) };
    Ok((stage, pool))
}

fn batch_backend(model: &Model, instance: Backend) -> Result<Box<dyn BatchBackend>> {
    match instance {
        Backend::Batch(backend) => Ok(backend),
        Backend::Inline(backend) => Ok(Box::new(OnThread(backend))),
        Backend::Streaming(_) => Err(Error::unsupported(format!(
            "backend `{}` of model `{}` owns its loop and takes no sequences; leave out \
             `sequence_batching`",
            model.backend, model.name
        ))),
    }
}

/// An inline backend on the thread of an instance, where the requests of a sequence have an order.
struct OnThread(Arc<dyn InlineBackend>);

impl BatchBackend for OnThread {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.0.run(batch)
    }
}

/// What a model with sequences is given beside its callers' inputs by a sequence of one request, in
/// a batch of so many; nothing for other models.
pub(crate) fn beside_one(model: &Model, folder: &Path, rows: Option<usize>) -> Result<Vec<Tensor>> {
    let Scheduling::Sequence(batching) = &model.scheduling else { return Ok(Vec::new()) };
    let controls = controls_of_one(batching, rows.is_some());
    let states = batching.states.iter().map(|state| initial(model, state, folder));
    let one_row = controls.into_iter().map(Ok).chain(states);
    one_row.map(|tensor| Ok(repeated(tensor?, rows))).collect()
}

/// A tensor of one row as one of `rows` that are like it.
fn repeated(mut tensor: Tensor, rows: Option<usize>) -> Tensor {
    if let (Some(rows), Some(size)) = (rows, tensor.shape.first_mut()) {
        *size = rows as i64;
        tensor.data = tensor.data.repeat(rows).into();
    }
    tensor
}

/// One row of the state that a sequence begins with.
fn initial(model: &Model, state: &State, folder: &Path) -> Result<Tensor> {
    let stated = state.initial.as_ref();
    let dims = stated.map_or(&state.dims, |filling| &filling.dims).iter();
    let filling = Filling {
        datatype: state.datatype,
        dims: dims.map(|dim| if *dim == VARIABLE { 1 } else { *dim }).collect(),
        data: stated.map_or(FillingData::Zero, |filling| filling.data.clone()),
    };
    let rows = model.signature.is_batching().then_some(1);
    fill(&state.input, &filling, rows, &folder.join(INITIAL_STATE)).map_err(|error| {
        error.within(format!("the state that model '{}' begins with, ", model.name))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use consort_stage::{DataType, Signature};

    use super::*;

    fn state(dims: &[i64], initial: Option<Filling>) -> State {
        State {
            input: "in".into(),
            output: "out".into(),
            datatype: DataType::Int32,
            dims: dims.to_vec(),
            initial,
        }
    }

    fn model() -> Model {
        Model::plain("identity", Signature { max_batch_size: 2, ..Signature::default() })
    }

    #[test]
    fn a_sequence_begins_with_zeros_when_nothing_is_said() {
        let tensor = initial(&model(), &state(&[-1, 2], None), Path::new("")).unwrap();
        assert_eq!((&*tensor.shape, &*tensor.data), (&[1, 1, 2][..], &[0; 8][..]));
    }

    #[test]
    fn a_sequence_begins_with_the_file_of_the_size_that_was_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(INITIAL_STATE)).unwrap();
        fs::write(folder.path().join(INITIAL_STATE).join("seven"), 7_i32.to_le_bytes()).unwrap();
        let filling = |file: &str, dims: &[i64]| {
            let data = FillingData::File(file.into());
            Some(Filling { datatype: DataType::Int32, dims: dims.to_vec(), data })
        };
        let read =
            |file, dims| initial(&model(), &state(&[-1], filling(file, dims)), folder.path());
        assert_eq!(&*read("seven", &[1]).unwrap().to_slice::<i32>().unwrap(), [7]);
        let short = read("seven", &[2]).unwrap_err();
        assert!(
            short.message().starts_with("the state that model 'sample' begins with, input 'in'")
        );
        assert!(read("eight", &[1]).unwrap_err().message().contains("`initial_state/eight`"));
    }
}
