//! Sequences on the threads of a model that adds up, one batch after another.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consort_config::{
    Control, ControlKind, Flag, RaggedBatching, SequenceBatching, State, Strategy,
};
use consort_scheduler::{SequenceStage, Sequences};
use consort_stage::{
    Batch, BatchBackend, Code, DataType, Error, Parameter, Request, Response, Responses, Result,
    Signature, Stage, Tensor, TensorSpec,
};
use consort_telemetry::Meter;
use futures::{FutureExt, StreamExt};

use crate::stage::{counting, wait_until};

/// Adds each row to the sum of its sequence, once it is told to go on. A row of 13 panics, one of
/// 14 is an error.
struct Adder {
    begun: Sender<Vec<(i32, bool)>>,
    go: Arc<Mutex<Receiver<()>>>,
}

impl BatchBackend for Adder {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        let column =
            |name: &str| batch.input(name).unwrap().to_slice::<i32>().unwrap().into_owned();
        let (values, sums) = (column("x"), column("sum_in"));
        let ready = batch.input("ready").unwrap().to_bools().unwrap();
        self.begun.send(values.iter().copied().zip(ready).collect()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        assert!(!values.contains(&13), "thirteen");
        if values.contains(&14) {
            return Err(Error::internal("fourteen"));
        }
        let sums: Vec<_> = values.iter().zip(sums).map(|(value, sum)| value + sum).collect();
        let shape = [sums.len() as i64, 1];
        Ok(vec![
            Tensor::from_vec("y", &shape, sums.clone()),
            Tensor::from_vec("sum_out", &shape, sums),
        ])
    }
}

struct Works {
    stage: SequenceStage,
    begun: Receiver<Vec<(i32, bool)>>,
    go: Sender<()>,
    meter: Arc<Meter>,
}

/// A stage with one instance of so many rows.
fn works(rows: i64) -> Works {
    let spec = |name: &str| TensorSpec::new(name, DataType::Int32, &[1]);
    let signature = Signature {
        max_batch_size: rows,
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        is_decoupled: false,
    };
    let mut backend_signature = signature.clone();
    let ready = TensorSpec::new("ready", DataType::Bool, &[1]);
    backend_signature.inputs.extend([ready, spec("sum_in")]);
    backend_signature.outputs.push(spec("sum_out"));
    let state = State {
        input: "sum_in".into(),
        output: "sum_out".into(),
        datatype: DataType::Int32,
        dims: vec![1],
        initial: None,
    };
    let ready = ControlKind::Ready(Flag::Bool([false, true]));
    let batching = SequenceBatching {
        max_idle: Duration::from_hours(1),
        controls: vec![Control { input: "ready".into(), kind: ready }],
        strategy: Strategy::Direct {
            max_queue_delay: Duration::ZERO,
            minimum_slot_utilization: 0.0,
        },
        states: vec![state],
        is_iterative: false,
    };
    let sequences = Sequences {
        batching,
        signature: Arc::new(signature),
        backend_signature: Arc::new(backend_signature),
        ragged: RaggedBatching::default(),
        initial: vec![Tensor::from_vec("sum_in", &[1, 1], vec![0])],
        queue_size: 4,
    };
    let (counting, meter) = counting();
    let (begun_sender, begun) = channel();
    let (go, told) = channel();
    let adder = Adder { begun: begun_sender, go: Arc::new(Mutex::new(told)) };
    let stage = SequenceStage::start("m", vec![Box::new(adder)], sequences, counting).unwrap();
    Works { stage, begun, go, meter }
}

fn request(id: u64, flags: &str, value: i32) -> Request {
    let parameters = [
        ("sequence_id", Parameter::Uint(id)),
        ("sequence_start", Parameter::Bool(flags.contains('s'))),
        ("sequence_end", Parameter::Bool(flags.contains('e'))),
    ];
    Request {
        inputs: vec![Tensor::from_vec("x", &[1, 1], vec![value])],
        parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Request::default()
    }
}

async fn answer(mut responses: Responses) -> Result<Response> {
    responses.next().await.unwrap()
}

async fn sum(responses: Responses) -> i32 {
    let response = answer(responses).await.unwrap();
    assert_eq!(response.outputs.len(), 1, "the state is nobody's business");
    response.outputs[0].to_slice::<i32>().unwrap()[0]
}

impl Works {
    /// A request that has been sent on its way.
    fn send(&self, id: u64, flags: &str, value: i32) -> Responses {
        self.send_request(request(id, flags, value))
    }

    fn send_request(&self, request: Request) -> Responses {
        let mut responses = self.stage.call(request);
        assert!(responses.next().now_or_never().is_none());
        responses
    }

    /// Lets the next batch begin and end; gives the value of each row and whether it was ready.
    fn pass(&self) -> Vec<(i32, bool)> {
        let rows = self.begun.recv().unwrap();
        self.go.send(()).unwrap();
        rows
    }
}

#[tokio::test]
async fn sequences_share_batches_and_keep_their_sums_apart() {
    let works = works(4);
    let held = works.send(9, "s", 0);
    works.begun.recv().unwrap();
    let first = [works.send(1, "s", 10), works.send(2, "s", 20)];
    works.go.send(()).unwrap();
    sum(held).await;
    assert_eq!(works.pass(), [(0, false), (10, true), (20, true)]);
    for (answer, expected) in first.into_iter().zip([10, 20]) {
        assert_eq!(sum(answer).await, expected);
    }
    let next = works.send(2, "e", 5);
    assert_eq!(works.pass(), [(0, false), (0, false), (5, true)]);
    let response = answer(next).await.unwrap();
    assert_eq!(&*response.outputs[0].to_slice::<i32>().unwrap(), [25]);
    assert_eq!(response.parameters["sequence_id"], Parameter::Uint(2));
    assert_eq!(response.parameters["sequence_end"], Parameter::Bool(true));
    let counts = works.meter.snapshot();
    assert_eq!((counts.execution_count, counts.inference_count), (3, 4));
}

#[tokio::test]
async fn a_run_that_fails_leaves_the_state_as_it_was() {
    let works = works(1);
    let first = works.send(1, "s", 10);
    works.pass();
    assert_eq!(sum(first).await, 10);
    for (value, text) in [(13, "broke down"), (14, "fourteen")] {
        let failing = works.send(1, "", value);
        works.pass();
        let error = answer(failing).await.unwrap_err();
        assert!(error.message().contains(text), "{error}");
    }
    let last = works.send(1, "", 1);
    works.pass();
    assert_eq!(sum(last).await, 11);
}

#[tokio::test]
async fn a_caller_that_leaves_the_line_frees_its_place() {
    let works = works(1);
    let first = works.send(1, "s", 1);
    works.begun.recv().unwrap();
    let mut waiting: Vec<_> = (2..6).map(|value| works.send(1, "", value)).collect();
    let refused = answer(works.stage.call(request(1, "", 6))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Overloaded);
    drop(waiting.remove(1));
    let last = works.send(1, "e", 6);
    works.go.send(()).unwrap();
    assert_eq!(sum(first).await, 1);
    for _ in 0..4 {
        works.pass();
    }
    assert_eq!(sum(last).await, 1 + 2 + 4 + 5 + 6);
}

#[tokio::test]
async fn a_sequence_without_a_slot_gives_up_when_its_time_is_over() {
    let works = works(1);
    let _running = works.send(1, "s", 1);
    works.begun.recv().unwrap();
    let mut impatient = request(2, "s", 2);
    impatient.parameters.insert("timeout".into(), Parameter::Uint(1));
    let error = answer(works.stage.call(impatient)).await.unwrap_err();
    assert_eq!(error.code(), Code::Overloaded);
    assert_eq!(error.message(), "timeout of the corresponding sequence has been expired");
    works.go.send(()).unwrap();
}

#[tokio::test]
async fn what_waits_is_answered_after_the_stage_has_gone() {
    let Works { stage, begun, go, meter } = works(1);
    let send = |request| {
        let mut responses = stage.call(request);
        assert!(responses.next().now_or_never().is_none());
        responses
    };
    let first = send(request(1, "s", 1));
    begun.recv().unwrap();
    let others = [send(request(1, "", 2)), send(request(2, "s", 3))];
    drop(stage);
    (0..3).for_each(|_| go.send(()).unwrap());
    assert_eq!(sum(first).await, 1);
    let [second, third] = others;
    assert_eq!((sum(second).await, sum(third).await), (3, 3));
    wait_until("the thread ends", || Arc::strong_count(&meter) == 1);
}

#[tokio::test]
async fn a_request_outside_a_sequence_is_told_what_is_missing() {
    let works = works(2);
    let refused = |request| {
        let responses = works.stage.call(request);
        async { answer(responses).await.unwrap_err().message().to_owned() }
    };
    assert_eq!(
        refused(request(7, "", 1)).await,
        "inference request for sequence 7 to model 'm' must specify the START flag on the first \
         request of the sequence"
    );
    assert_eq!(
        refused(request(0, "s", 1)).await,
        "inference request to model 'm' must specify a non-zero or non-empty correlation ID"
    );
    let mut two = request(7, "s", 1);
    two.inputs = vec![Tensor::from_vec("x", &[2, 1], vec![1, 2])];
    assert_eq!(
        refused(two).await,
        "inference request to model 'm' must specify batch-size 1 due to requirements of sequence \
         batcher"
    );
}
