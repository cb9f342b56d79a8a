//! Requests that share a run: put together, taken apart, and each one's end its own.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use consort_config::{
    DynamicBatching, Model, Priorities, QueuePolicy, Scheduling, Settings, TimeoutAction,
};
use consort_scheduler::{PoolStage, Rules};
use consort_stage::{
    Batch, BatchBackend, Code, DataType, Error, Interrupt, Parameter, Request, Response, Responses,
    Result, Signature, Stage, Tensor, TensorSpec,
};
use consort_telemetry::Meter;
use futures::{FutureExt, StreamExt};

use crate::stage::{counting, wait_until};

/// Gives its input back, once the test lets it; 13 in a batch is bad luck for all of it.
struct Gated {
    begun: Sender<Vec<i32>>,
    go: Arc<Mutex<Receiver<()>>>,
    interrupts: Arc<AtomicUsize>,
}

impl BatchBackend for Gated {
    fn run(&mut self, mut batch: Batch) -> Result<Vec<Tensor>> {
        let values = batch.inputs[0].to_slice::<i32>()?.to_vec();
        self.begun.send(values.clone()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        assert!(!values.contains(&-1), "minus one");
        if values.contains(&13) {
            return Err(Error::invalid("thirteen"));
        }
        batch.inputs.truncate(1);
        Ok(batch.inputs.into_iter().map(|tensor| tensor.renamed("y".into())).collect())
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let interrupts = self.interrupts.clone();
        Some(Arc::new(move || {
            interrupts.fetch_add(1, SeqCst);
        }))
    }
}

/// A stage of such backends, and the test's ends of their channels.
struct Works {
    stage: PoolStage,
    begun: Receiver<Vec<i32>>,
    go: Sender<()>,
    meter: Arc<Meter>,
    interrupts: Arc<AtomicUsize>,
}

fn model(scheduling: Scheduling) -> Model {
    let signature = Signature {
        max_batch_size: 8,
        inputs: vec![
            TensorSpec::new("x", DataType::Int32, &[-1]),
            TensorSpec::new("attention_mask", DataType::Int32, &[-1]),
        ],
        outputs: vec![TensorSpec::new("y", DataType::Int32, &[-1])],
        ..Signature::default()
    };
    Model { scheduling, ..Model::plain("sample", signature) }
}

fn queued(default_policy: QueuePolicy) -> Model {
    let priorities = Priorities { default_policy, ..Priorities::default() };
    model(Scheduling::Dynamic(DynamicBatching { priorities, ..tuned_by_nobody() }))
}

fn tuned_by_nobody() -> DynamicBatching {
    DynamicBatching { preferred_batch_sizes: vec![8], ..DynamicBatching::default() }
}

fn works(instances: usize, model: &Model) -> Works {
    let (mut counting, meter) = counting();
    counting.is_batching = true;
    let (begun_sender, begun) = channel();
    let (go, told) = channel();
    let told = Arc::new(Mutex::new(told));
    let interrupts = Arc::<AtomicUsize>::default();
    let backend = |_| -> Box<dyn BatchBackend> {
        let (begun, go) = (begun_sender.clone(), told.clone());
        Box::new(Gated { begun, go, interrupts: interrupts.clone() })
    };
    let backends = (0..instances).map(backend).collect();
    let rules = Rules::of(model, false, true).unwrap();
    let stage = PoolStage::start("m", backends, rules, counting).unwrap();
    Works { stage, begun, go, meter, interrupts }
}

fn request(values: &[i32]) -> Request {
    let shape = [1, values.len() as i64];
    let tensor = |name: &str| Tensor::from_vec(name, &shape, values.to_vec());
    Request { inputs: vec![tensor("x"), tensor("attention_mask")], ..Request::default() }
}

impl Works {
    fn send(&self, request: Request) -> Responses {
        let mut responses = self.stage.call(request);
        assert!(responses.next().now_or_never().is_none());
        responses
    }

    /// Keeps the only instance busy with a request of its own.
    fn occupy(&self) -> Responses {
        let responses = self.send(request(&[0]));
        assert_eq!(self.begun(), [0]);
        responses
    }

    fn begun(&self) -> Vec<i32> {
        self.begun.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn go(&self) {
        self.go.send(()).unwrap();
    }
}

async fn answer(mut responses: Responses) -> Result<Response> {
    responses.next().await.unwrap()
}

async fn values(responses: Responses) -> Vec<i32> {
    answer(responses).await.unwrap().outputs[0].to_slice::<i32>().unwrap().to_vec()
}

#[tokio::test]
async fn what_waits_shares_the_next_run_and_each_is_given_its_own() {
    let works = works(1, &model(Scheduling::Direct));
    let running = works.occupy();
    let calls = [vec![1], vec![2, 3], vec![4]].map(|values| works.send(request(&values)));
    works.go();
    assert_eq!(values(running).await, [0]);
    assert_eq!(works.begun(), [1, 0, 2, 3, 4, 0]);
    works.go();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(values(call).await);
    }
    assert_eq!(answers, [vec![1], vec![2, 3], vec![4]]);
    let counted = works.meter.snapshot();
    assert_eq!((counted.inference_count, counted.execution_count), (4, 2));
    let sizes: Vec<_> =
        counted.batches.iter().map(|size| (size.batch_size, size.compute_infer.count)).collect();
    assert_eq!(sizes, [(1, 1), (3, 1)]);
    assert_eq!(counted.queue.count, 4);
}

#[tokio::test]
async fn a_model_whose_batching_is_off_runs_one_by_one() {
    let mut model = model(Scheduling::Direct);
    model.settings = Settings::new([("batching".to_owned(), "false".to_owned())]);
    let works = works(1, &model);
    let calls = [1, 2, 3].map(|value| works.send(request(&[value])));
    for (value, call) in (1..).zip(calls) {
        assert_eq!(works.begun(), [value]);
        works.go();
        assert_eq!(values(call).await, [value]);
    }
}

#[tokio::test]
async fn requests_that_tell_the_backend_different_things_never_share_a_run() {
    let works = works(1, &model(Scheduling::Direct));
    let running = works.occupy();
    let mut other = request(&[2]);
    other.parameters.insert("mode".into(), Parameter::Uint(1));
    let calls = [works.send(request(&[1])), works.send(other), works.send(request(&[3]))];
    (0..3).for_each(|_| works.go());
    assert_eq!(values(running).await, [0]);
    assert_eq!([works.begun(), works.begun()], [vec![1, 3], vec![2]]);
    for (value, call) in (1..).zip(calls) {
        assert_eq!(values(call).await, [value]);
    }
}

#[tokio::test]
async fn an_error_or_a_panic_fails_the_requests_of_its_batch_alone() {
    for (bad, code) in [(13, Code::InvalidInput), (-1, Code::Internal)] {
        let works = works(1, &model(Scheduling::Direct));
        let running = works.occupy();
        let calls = [bad, 5].map(|value| works.send(request(&[value])));
        works.go();
        assert_eq!(values(running).await, [0]);
        assert_eq!(works.begun(), [bad, 5]);
        works.go();
        for call in calls {
            assert_eq!(answer(call).await.unwrap_err().code(), code);
        }
        let after = works.send(request(&[6]));
        works.go();
        assert_eq!(values(after).await, [6]);
        assert_eq!(works.meter.snapshot().execution_count, 2);
    }
}

#[tokio::test]
async fn a_run_is_told_to_stop_only_when_all_its_callers_have_left() {
    let works = works(1, &model(Scheduling::Direct));
    let running = works.occupy();
    let [one, other] = [1, 2].map(|value| works.send(request(&[value])));
    works.go();
    assert_eq!(values(running).await, [0]);
    assert_eq!(works.begun(), [1, 2]);
    drop(one);
    assert_eq!(works.interrupts.load(SeqCst), 0);
    drop(other);
    assert!(works.interrupts.load(SeqCst) > 0);
    works.go();
    let next = works.send(request(&[3]));
    assert_eq!(works.begun(), [3]);
    works.go();
    assert_eq!(values(next).await, [3]);
}

#[tokio::test]
async fn ten_thousand_who_leave_the_queue_cost_nothing_but_their_leaving() {
    let roomy = QueuePolicy { max_queue_size: 20_000.try_into().ok(), ..QueuePolicy::default() };
    let works = works(1, &queued(roomy));
    let running = works.occupy();
    let calls: Vec<_> = (1..=10_000).map(|value| works.send(request(&[value]))).collect();
    assert_eq!(works.meter.snapshot().pending, 10_000);
    let last = works.send(request(&[-2]));
    drop(calls);
    assert_eq!(works.meter.snapshot().pending, 1);
    works.go();
    assert_eq!(values(running).await, [0]);
    assert_eq!(works.begun(), [-2], "nobody who left is run");
    works.go();
    assert_eq!(values(last).await, [-2]);
}

#[tokio::test]
async fn one_that_has_waited_too_long_is_refused_while_every_instance_is_busy() {
    let timeout = Duration::from_millis(20);
    let policy = QueuePolicy {
        timeout_action: TimeoutAction::Reject,
        default_timeout: Some(timeout),
        ..QueuePolicy::default()
    };
    let works = works(1, &queued(policy));
    let running = works.occupy();
    let error = answer(works.send(request(&[1]))).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Overloaded, "Request timeout expired"));
    assert_eq!(works.meter.snapshot().pending, 0);
    let mut hurried = request(&[2]);
    hurried.context.deadline = Some(Instant::now() + timeout / 2);
    let error = answer(works.send(hurried)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    works.go();
    assert_eq!(values(running).await, [0]);
}

#[tokio::test]
async fn each_level_of_priority_has_its_own_bound() {
    let one = QueuePolicy { max_queue_size: 1.try_into().ok(), ..QueuePolicy::default() };
    let priorities = Priorities {
        levels: 2.try_into().ok(),
        default_level: 2,
        policies: [(1, one)].into(),
        ..Priorities::default()
    };
    let batching = DynamicBatching { priorities, ..tuned_by_nobody() };
    let works = works(1, &model(Scheduling::Dynamic(batching)));
    let running = works.occupy();
    let with_priority = |value, priority| {
        let mut request = request(&[value]);
        request.parameters.insert("priority".into(), Parameter::Uint(priority));
        request
    };
    let calls = [works.send(request(&[1])), works.send(with_priority(2, 1))];
    let refused = answer(works.stage.call(with_priority(3, 1))).await.unwrap_err();
    assert_eq!(refused.message(), "Exceeds maximum queue size");
    works.go();
    assert_eq!(values(running).await, [0]);
    assert_eq!(works.begun(), [2, 1], "the first level first");
    works.go();
    for (value, call) in (1..).zip(calls) {
        assert_eq!(values(call).await, [value]);
    }
}

#[tokio::test]
async fn answers_keep_the_order_of_their_requests_where_that_is_promised() {
    let batching = DynamicBatching { preserve_ordering: true, ..tuned_by_nobody() };
    let works = works(2, &model(Scheduling::Dynamic(batching)));
    let mut first = works.send(request(&[1]));
    assert_eq!(works.begun(), [1]);
    let mut second = works.send(request(&[2]));
    assert_eq!(works.begun(), [2]);
    works.go();
    wait_until("one of the two has run", || works.meter.snapshot().execution_count == 1);
    // Whichever ran, the second is never answered before the first.
    if first.next().now_or_never().is_none() {
        assert!(second.next().now_or_never().is_none());
        works.go();
        assert!(second.next().await.unwrap().is_ok());
        assert!(first.next().now_or_never().is_some());
    } else {
        works.go();
        assert!(second.next().await.unwrap().is_ok());
    }
}
