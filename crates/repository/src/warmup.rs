//! Runs the requests of `model_warmup` on an instance before its model is called ready.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use consort_config::{Filling, Model, Warmup};
use consort_scheduler::{batch_of_one, guarded};
use consort_stage::{
    Batch, Error, Job, Jobs, Reply, Request, Responses, Result, StreamingBackend, Tensor,
};
use futures::StreamExt;

use crate::checked::admit;
use crate::filling::fill;
use crate::kind::Backend;
use crate::sequences::beside_one;

/// The folder of a model where the files of its samples lie.
const FOLDER: &str = "warmup";

/// The responses of a streaming backend that may wait to be read.
const REPLY_CAPACITY: usize = 32;

/// What a model's instances run before the model is called ready.
pub(crate) struct WarmUp {
    model: Arc<str>,
    samples: Vec<Sample>,
}

/// One entry of `model_warmup` as a request.
struct Sample {
    name: String,
    count: usize,
    request: Request,
    /// The same as backends are given it that run batches.
    batch: Batch,
}

/// Whether the requests of `model_warmup` can be made of what lies in the model's `folder`.
///
/// Errors as the model's load would, before anything is run.
pub fn check_warm_up(model: &Model, folder: &Path) -> Result<()> {
    WarmUp::prepare(model, folder).map(drop)
}

/// Says which requests of `model_warmup` are passed over, for each version that is loaded.
pub(crate) fn warn_of_skipped(model: &Model) {
    for warmup in model.warmup.iter().filter(|warmup| warmup.batch_size.is_none()) {
        tracing::warn!(
            model = &*model.name,
            "warmup sample '{}' has no batch size and is skipped, as Triton does; say \
             `batch_size: 1`",
            warmup.name
        );
    }
}

impl WarmUp {
    /// Makes the requests of `model`, whose files lie in `folder`.
    ///
    /// Errors when a file is missing or too short, or when the model would refuse the request.
    pub(crate) fn prepare(model: &Model, folder: &Path) -> Result<Self> {
        let mut samples = Vec::new();
        for warmup in &model.warmup {
            let Some(batch_size) = warmup.batch_size else { continue };
            samples.push(sample(model, warmup, batch_size.get(), folder)?);
        }
        Ok(Self { model: model.name.clone(), samples })
    }

    /// Runs every request so many times as it asks for; the first failure ends it.
    ///
    /// Nothing is counted in the model's statistics.
    pub(crate) fn run(&self, backend: &mut Backend) -> Result<()> {
        for sample in &self.samples {
            for _ in 0..sample.count {
                self.run_once(backend, sample).map_err(|error| {
                    error.within(format!("failed to run warmup sample '{}': ", sample.name))
                })?;
            }
        }
        Ok(())
    }

    fn run_once(&self, backend: &mut Backend, sample: &Sample) -> Result<()> {
        guarded(&self.model, || match backend {
            Backend::Inline(backend) => backend.run(sample.request.clone().into()).map(drop),
            Backend::Batch(backend) => backend.run(sample.batch.clone()).map(drop),
            Backend::Streaming(backend) => run_streaming(&mut **backend, sample.request.clone()),
        })
    }
}

/// Gives the loop one request and no more, so that it ends once this one is answered.
fn run_streaming(backend: &mut dyn StreamingBackend, request: Request) -> Result<()> {
    let (jobs_sender, jobs) = Jobs::channel(1);
    let (reply, responses) = Reply::channel(REPLY_CAPACITY);
    jobs_sender
        .try_send(Job { request, reply })
        .map_err(|_| Error::internal("a new queue has no room"))?;
    drop(jobs_sender);
    thread::scope(|scope| {
        // A loop waits for callers that do not read, so somebody must.
        let reader = scope.spawn(|| read(responses));
        backend.run(jobs);
        reader.join().unwrap_or_else(|_| Err(Error::internal("the reader of responses broke down")))
    })
}

/// Reads the responses to their end on this thread, which is not one of a runtime.
fn read(mut responses: Responses) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime =
        runtime.map_err(|error| Error::internal("cannot start a runtime").with_source(error))?;
    runtime.block_on(async {
        while let Some(response) = responses.next().await {
            response?;
        }
        Ok(())
    })
}

fn sample(model: &Model, warmup: &Warmup, batch_size: usize, folder: &Path) -> Result<Sample> {
    let place = |error: Error| error.within(format!("in warmup sample '{}': ", warmup.name));
    let rows = model.signature.is_batching().then_some(batch_size);
    let files = folder.join(FOLDER);
    let tensor = |(name, filling): (&Arc<str>, &Filling)| fill(name, filling, rows, &files);
    let tensors: Result<Vec<Tensor>> = warmup.inputs.iter().map(tensor).collect();
    // What the server itself gives to the model is none of a caller's inputs.
    let (inputs, made): (Vec<_>, Vec<_>) = tensors
        .map_err(place)?
        .into_iter()
        .partition(|tensor| model.signature.input(&tensor.name).is_some());
    let mut request = Request { inputs, ..Request::default() };
    admit(&model.name, &model.signature, &mut request).map_err(place)?;
    let beside = beside_one(model, folder, rows).map_err(place)?.into_iter();
    let is_given = |tensor: &Tensor| made.iter().any(|given| given.name == tensor.name);
    let beside: Vec<_> = beside.filter(|tensor| !is_given(tensor)).collect();
    request.inputs.extend(made.into_iter().chain(beside));
    let batch = batch_of_one(model, request.clone()).map_err(place)?;
    Ok(Sample { name: warmup.name.clone(), count: warmup.count.get(), request, batch })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroUsize;
    use std::sync::mpsc::{Sender, channel};

    use std::time::Duration;

    use consort_config::{
        Control, ControlKind, FillingData, Flag, Scheduling, SequenceBatching, State, Strategy,
    };
    use consort_stage::{
        Batch, BatchBackend, DataType, InlineBackend, Response, Signature, TensorSpec,
    };

    use super::*;

    fn filling(datatype: DataType, dims: &[i64]) -> Filling {
        Filling { datatype, dims: dims.to_vec(), data: FillingData::Zero }
    }

    fn model(inputs: &[(&str, Filling)]) -> Model {
        let signature = Signature {
            max_batch_size: 8,
            inputs: vec![TensorSpec::new("x", DataType::Int32, &[-1])],
            ..Signature::default()
        };
        let inputs = inputs.iter();
        let inputs = inputs.map(|(name, filling)| (Arc::from(*name), filling.clone()));
        Model {
            warmup: vec![Warmup {
                name: "first".into(),
                batch_size: NonZeroUsize::new(4),
                count: NonZeroUsize::new(3).unwrap(),
                inputs: inputs.collect::<BTreeMap<_, _>>(),
            }],
            ..Model::plain("fake", signature)
        }
    }

    fn of_x() -> Model {
        model(&[("x", filling(DataType::Int32, &[2]))])
    }

    fn prepare(model: &Model) -> Result<WarmUp> {
        WarmUp::prepare(model, Path::new("nowhere"))
    }

    type Verdict = fn() -> Result<()>;

    /// Tells the shape it is given, and fails or breaks down when it is told to.
    #[derive(Clone)]
    struct Fake {
        shapes: Sender<Vec<i64>>,
        verdict: Verdict,
    }

    impl Fake {
        fn see(&self, inputs: &[Tensor]) -> Result<()> {
            self.shapes.send(inputs[0].shape.clone()).unwrap();
            (self.verdict)()
        }
    }

    impl InlineBackend for Fake {
        fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
            self.see(&batch.inputs)?;
            Ok(Vec::new())
        }
    }

    impl BatchBackend for Fake {
        fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
            InlineBackend::run(self, batch)
        }
    }

    impl StreamingBackend for Fake {
        fn run(&mut self, mut jobs: Jobs) {
            while let Ok(Job { request, reply }) = jobs.wait() {
                match self.see(&request.inputs) {
                    Err(error) => reply.fail(error),
                    Ok(()) => {
                        // More than a caller may leave unread.
                        for _ in 0..3 * REPLY_CAPACITY {
                            let mut response = Response::default();
                            while let Err(refused) = reply.try_send(response) {
                                response = refused;
                                thread::yield_now();
                            }
                        }
                    }
                }
            }
        }
    }

    fn every_kind(fake: &Fake) -> [Backend; 3] {
        let boxed = || Box::new(fake.clone());
        [
            Backend::Inline(Arc::new(fake.clone())),
            Backend::Batch(boxed()),
            Backend::Streaming(boxed()),
        ]
    }

    #[test]
    fn every_kind_of_backend_runs_each_sample_as_often_as_it_says() {
        let (shapes, seen) = channel();
        let warm_up = prepare(&of_x()).unwrap();
        for mut backend in every_kind(&Fake { shapes, verdict: || Ok(()) }) {
            warm_up.run(&mut backend).unwrap();
            assert_eq!(seen.try_iter().collect::<Vec<_>>(), vec![vec![4, 2]; 3]);
        }
    }

    #[test]
    fn a_failure_ends_the_warm_up_and_names_the_sample() {
        let (shapes, seen) = channel();
        let warm_up = prepare(&of_x()).unwrap();
        let verdicts: [(Verdict, &str); 2] = [
            (|| Err(Error::internal("no such operator")), "no such operator"),
            (|| panic!("by chance"), "the backend broke down on this request"),
        ];
        for (verdict, reason) in verdicts {
            for mut backend in every_kind(&Fake { shapes: shapes.clone(), verdict }) {
                let error = warm_up.run(&mut backend).unwrap_err();
                let begin = format!("failed to run warmup sample 'first': {reason}");
                assert!(error.message().starts_with(&begin), "{error}");
                assert_eq!(seen.try_iter().count(), 1);
            }
        }
    }

    #[test]
    fn a_sample_that_the_model_would_refuse_is_an_error_before_it_runs() {
        let refused = |inputs: &[(&str, Filling)]| {
            prepare(&model(inputs)).err().map(|error| error.message().to_owned())
        };
        let wrong_type = refused(&[("x", filling(DataType::Fp32, &[2]))]).unwrap();
        assert!(wrong_type.contains("in warmup sample 'first': inference input 'x' data-type"));
        let missing = refused(&[]).unwrap();
        assert!(missing.contains("missing required input(s) ['x']"), "{missing}");
    }

    #[test]
    fn what_the_server_adds_to_a_request_may_be_part_of_a_sample() {
        let x = ("x", filling(DataType::Int32, &[2]));
        let warm_up = prepare(&model(&[x, ("START", filling(DataType::Int32, &[1]))])).unwrap();
        let inputs = &warm_up.samples[0].request.inputs;
        assert_eq!((&*inputs[1].name, &inputs[1].shape[..]), ("START", &[4, 1][..]));
    }

    #[test]
    fn a_model_with_sequences_is_told_of_one_and_given_the_state_it_begins_with() {
        let control = |input: &str, kind| Control { input: input.into(), kind };
        let flag = Flag::Int32([0, 1]);
        let batching = SequenceBatching {
            max_idle: Duration::ZERO,
            controls: vec![
                control("START", ControlKind::Start(flag)),
                control("END", ControlKind::End(flag)),
                control("ID", ControlKind::CorrelationId(DataType::Bytes)),
            ],
            strategy: Strategy::Direct {
                max_queue_delay: Duration::ZERO,
                minimum_slot_utilization: 0.0,
            },
            states: vec![State {
                input: "sum_in".into(),
                output: "sum_out".into(),
                datatype: DataType::Int32,
                dims: vec![2],
                initial: None,
            }],
            is_iterative: false,
        };
        // What the sample gives of it is left as it is.
        let x = ("x", filling(DataType::Int32, &[2]));
        let mut model = model(&[x, ("END", filling(DataType::Int32, &[1]))]);
        model.scheduling = Scheduling::Sequence(batching);
        let warm_up = prepare(&model).unwrap();
        let batch = &warm_up.samples[0].batch;
        let numbers = |name: &str| batch.input(name).unwrap().to_slice::<i32>().unwrap().to_vec();
        assert_eq!((numbers("START"), numbers("END")), (vec![1; 4], vec![0; 4]));
        assert_eq!(batch.input("ID").unwrap().to_strings().unwrap(), [b"1"; 4]);
        let state = batch.input("sum_in").unwrap();
        assert_eq!((&state.shape[..], &state.data[..]), (&[4, 2][..], &[0; 32][..]));
    }

    #[test]
    fn a_sample_without_a_batch_size_is_skipped() {
        let mut model = of_x();
        model.warmup[0].batch_size = None;
        assert!(prepare(&model).unwrap().samples.is_empty());
    }
}
