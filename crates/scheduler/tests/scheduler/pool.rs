//! Instances on their threads and the queue they pull from.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use consort_scheduler::PoolStage;
use consort_stage::{
    Batch, BatchBackend, Brief, Code, Error, InlineBackend, Interrupt, Responses, Result, Stage,
    Tensor,
};
use consort_telemetry::Meter;
use futures::{FutureExt, StreamExt};

use crate::stage::{alone, ask, counting, number, request, wait_until};

/// A backend that says which number it works on and goes on when it is told to.
struct Worker {
    begun: Sender<i32>,
    go: Arc<Mutex<Receiver<()>>>,
}

impl BatchBackend for Worker {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        let value = number(&batch.inputs);
        self.begun.send(value).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        assert_ne!(value, 13, "thirteen");
        Ok(batch.inputs)
    }
}

/// A stage of such workers, and the test's ends of their channels.
struct Works {
    stage: PoolStage,
    begun: Receiver<i32>,
    go: Sender<()>,
    meter: Arc<Meter>,
}

fn works(instances: usize, queue_size: usize) -> Works {
    let (counting, meter) = counting();
    let (begun_sender, begun) = channel();
    let (go, told) = channel();
    let told = Arc::new(Mutex::new(told));
    let worker = |_| -> Box<dyn BatchBackend> {
        Box::new(Worker { begun: begun_sender.clone(), go: told.clone() })
    };
    let backends = (0..instances).map(worker).collect();
    let stage = PoolStage::start("m", backends, alone(queue_size), counting).unwrap();
    Works { stage, begun, go, meter }
}

impl Works {
    /// A request that has been sent on its way.
    fn send(&self, value: i32) -> Responses {
        let mut responses = self.stage.call(request(value));
        assert!(responses.next().now_or_never().is_none());
        responses
    }

    fn begun(&self) -> i32 {
        self.begun.recv_timeout(Duration::from_secs(20)).unwrap()
    }
}

async fn answer(mut responses: Responses) -> Result<i32> {
    let response = responses.next().await.unwrap()?;
    assert!(responses.next().await.is_none());
    Ok(number(&response.outputs))
}

#[tokio::test]
async fn requests_are_taken_in_the_order_of_their_coming() {
    let works = works(1, 8);
    let calls: Vec<_> = (0..5).map(|value| works.send(value)).collect();
    for (value, call) in (0..).zip(calls) {
        assert_eq!(works.begun(), value);
        works.go.send(()).unwrap();
        assert_eq!(answer(call).await.unwrap(), value);
    }
    assert_eq!(works.meter.snapshot().execution_count, 5);
    assert_eq!(works.meter.snapshot().pending, 0);
}

#[tokio::test]
async fn instances_work_side_by_side() {
    let works = works(3, 8);
    let calls: Vec<_> = (0..3).map(|value| works.send(value)).collect();
    let mut begun = [works.begun(), works.begun(), works.begun()];
    begun.sort_unstable();
    assert_eq!(begun, [0, 1, 2]);
    for _ in 0..3 {
        works.go.send(()).unwrap();
    }
    for (value, call) in (0..).zip(calls) {
        assert_eq!(answer(call).await.unwrap(), value);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_takes_again_when_it_has_room() {
    let works = works(1, 2);
    let running = works.send(0);
    assert_eq!(works.begun(), 0);
    let waiting = [works.send(1), works.send(2)];
    assert_eq!(works.meter.snapshot().pending, 2);
    let error = ask(&works.stage, request(3)).await.unwrap_err();
    assert_eq!(error.code(), Code::Overloaded);
    assert_eq!(error.message(), "Exceeds maximum queue size");
    assert_eq!(works.meter.snapshot().pending, 2);

    drop(waiting);
    assert_eq!(works.meter.snapshot().pending, 0, "who leaves the queue makes room at once");
    let later = [works.send(4), works.send(5)];
    for _ in 0..3 {
        works.go.send(()).unwrap();
    }
    assert_eq!(answer(running).await.unwrap(), 0);
    for (value, call) in (4..).zip(later) {
        assert_eq!(answer(call).await.unwrap(), value);
    }
    assert_eq!((works.begun(), works.begun()), (4, 5));
}

#[tokio::test]
async fn what_idle_instances_are_about_to_take_does_not_fill_the_queue() {
    for _ in 0..5 {
        let works = works(4, 1);
        // Once all four wait, which takes them a moment, four requests are taken and the fifth waits.
        for value in 0..4 {
            let call = works.send(value);
            works.begun();
            works.go.send(()).unwrap();
            answer(call).await.unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        let calls: Vec<_> = (0..5).map(|value| works.stage.call(request(value))).collect();
        let mut calls: Vec<_> = calls.into_iter().map(futures::StreamExt::into_future).collect();
        for call in &mut calls {
            if let Some((Some(Err(error)), _)) = call.now_or_never() {
                panic!("refused: {error}");
            }
        }
        for _ in 0..5 {
            works.go.send(()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_request_cancelled_in_the_queue_is_never_run() {
    let works = works(1, 8);
    let running = works.send(0);
    assert_eq!(works.begun(), 0);
    drop(works.send(1));
    let last = works.send(2);
    works.go.send(()).unwrap();
    works.go.send(()).unwrap();
    assert_eq!(answer(running).await.unwrap(), 0);
    assert_eq!(works.begun(), 2);
    assert_eq!(answer(last).await.unwrap(), 2);
}

#[tokio::test]
async fn a_request_whose_deadline_has_passed_is_not_run() {
    let works = works(1, 8);
    let running = works.send(0);
    assert_eq!(works.begun(), 0);
    let mut late = request(1);
    late.context.deadline = Some(Instant::now() + Duration::from_millis(10));
    let mut late = works.stage.call(late);
    assert!(late.next().now_or_never().is_none());
    std::thread::sleep(Duration::from_millis(15));
    works.go.send(()).unwrap();
    assert_eq!(answer(running).await.unwrap(), 0);
    assert_eq!(answer(late).await.unwrap_err().code(), Code::DeadlineExceeded);
    let next = works.send(2);
    assert_eq!(works.begun(), 2);
    works.go.send(()).unwrap();
    assert_eq!(answer(next).await.unwrap(), 2);
}

#[tokio::test]
async fn a_panic_fails_its_request_alone() {
    let works = works(1, 8);
    let calls = [works.send(1), works.send(13), works.send(2)];
    for _ in 0..3 {
        works.go.send(()).unwrap();
    }
    let [before, broken, after] = calls;
    assert_eq!(answer(before).await.unwrap(), 1);
    let error = answer(broken).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("broke down"), "{error}");
    assert_eq!(answer(after).await.unwrap(), 2);
    assert_eq!(works.meter.snapshot().execution_count, 2);
}

#[tokio::test]
async fn a_stage_that_is_dropped_answers_what_it_took_and_then_ends_its_threads() {
    let works = works(2, 8);
    let calls: Vec<_> = (0..5).map(|value| works.send(value)).collect();
    let lazy = works.stage.call(request(9));
    let Works { stage, begun, go, meter } = works;
    drop(stage);
    assert_eq!(answer(lazy).await.unwrap_err().code(), Code::Unavailable);
    for _ in 0..5 {
        go.send(()).unwrap();
    }
    for (value, call) in (0..).zip(calls) {
        assert_eq!(answer(call).await.unwrap(), value);
    }
    assert_eq!(meter.snapshot().execution_count, 5);
    // The backends, and with them their ends of the channel, go with the threads.
    let begun: Vec<_> = begun.iter().collect();
    assert_eq!(begun.len(), 5);
}

#[tokio::test]
async fn a_model_without_instances_says_so() {
    let stage = PoolStage::start("m", Vec::new(), alone(8), counting().0).unwrap();
    assert_eq!(ask(&stage, request(1)).await.unwrap_err().code(), Code::Unavailable);
}

/// Works for ever unless it is interrupted; an interrupt that comes too early is lost on it.
#[derive(Default)]
struct Stubborn {
    state: Arc<(Mutex<Option<bool>>, Condvar)>,
    /// How long it takes before it can be interrupted.
    preparation: Duration,
    runs: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
}

impl BatchBackend for Stubborn {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.runs.fetch_add(1, SeqCst);
        std::thread::sleep(self.preparation);
        let value = number(&batch.inputs);
        let (state, told) = &*self.state;
        let mut state = state.lock().unwrap();
        *state = Some(false);
        if value == 0 {
            state = told.wait_while(state, |told| *told == Some(false)).unwrap();
        }
        match state.take() {
            Some(true) => Err(Error::cancelled()),
            _ => Ok(batch.inputs),
        }
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let (state, late) = (self.state.clone(), self.late.clone());
        Some(Arc::new(move || {
            let mut running = state.0.lock().unwrap();
            match running.as_mut() {
                Some(told) => *told = true,
                None => drop(late.fetch_add(1, SeqCst)),
            }
            state.1.notify_all();
        }))
    }
}

#[tokio::test]
async fn a_running_request_is_interrupted_however_early_its_caller_leaves() {
    for preparation in [Duration::ZERO, Duration::from_millis(20)] {
        let backend = Stubborn { preparation, ..Stubborn::default() };
        let (runs, late) = (backend.runs.clone(), backend.late.clone());
        let stage = PoolStage::start("m", vec![Box::new(backend)], alone(8), counting().0).unwrap();
        let mut responses = stage.call(request(0));
        assert!(responses.next().now_or_never().is_none());
        wait_until("the request runs", || runs.load(SeqCst) == 1);
        drop(responses);
        let response = ask(&stage, request(1)).await.unwrap();
        assert_eq!(number(&response.outputs), 1);
        if preparation > Duration::ZERO {
            assert!(late.load(SeqCst) > 0, "the first interrupt came too early");
        }
    }
}

#[tokio::test]
async fn a_request_that_comes_alone_runs_on_the_wide_instance_and_others_do_not() {
    let works = works(2, 8);
    let (begun_wide, wide_begun) = channel();
    let (go_wide, told) = channel();
    let wide = Worker { begun: begun_wide, go: Arc::new(Mutex::new(told)) };
    works.stage.add_wide(Box::new(wide)).unwrap();
    // Its thread is at the queue once it has taken a request.
    let mut on_wide = 0;
    for value in 0..100 {
        let alone = works.send(value);
        if wide_begun.recv_timeout(Duration::from_millis(100)).is_ok() {
            on_wide += 1;
            let beside = works.send(1000);
            assert_eq!(works.begun(), 1000, "the wide instance is busy");
            works.go.send(()).unwrap();
            assert_eq!(answer(beside).await.unwrap(), 1000);
            go_wide.send(()).unwrap();
            assert_eq!(answer(alone).await.unwrap(), value);
            break;
        }
        assert_eq!(works.begun(), value);
        works.go.send(()).unwrap();
        assert_eq!(answer(alone).await.unwrap(), value);
    }
    assert_eq!(on_wide, 1);
}

/// A backend that has something for small requests and says on which thread it runs.
#[derive(Clone)]
struct Noting(Arc<Mutex<Vec<std::thread::ThreadId>>>);

impl BatchBackend for Noting {
    fn brief(&self) -> Option<Brief> {
        Some(Brief { bytes: 4, backend: Arc::new(self.clone()) })
    }

    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        InlineBackend::run(self, batch)
    }
}

impl InlineBackend for Noting {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        self.0.lock().unwrap().push(std::thread::current().id());
        assert_ne!(number(&batch.inputs), 13, "thirteen");
        Ok(batch.inputs)
    }
}

#[tokio::test]
async fn a_brief_request_runs_where_it_is_called_and_a_longer_one_does_not() {
    let threads = Arc::default();
    let (counting, meter) = counting();
    let backend: Box<dyn BatchBackend> = Box::new(Noting(Arc::clone(&threads)));
    let stage = PoolStage::start("m", vec![backend], alone(8), counting).unwrap();
    let own = std::thread::current().id();
    let response = ask(&stage, request(1)).await.unwrap();
    assert_eq!(number(&response.outputs), 1);
    let error = ask(&stage, request(13)).await.unwrap_err();
    assert!(error.message().contains("broke down"), "{error}");
    let mut long = request(2);
    long.inputs.push(Tensor::from_vec("more", &[1], vec![3_i32]));
    ask(&stage, long).await.unwrap();
    let threads = threads.lock().unwrap().clone();
    assert_eq!(
        threads.iter().map(|thread| *thread == own).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(meter.snapshot().execution_count, 2, "all but the one that failed");
}

#[tokio::test]
async fn a_brief_request_runs_while_instances_come_and_go_and_keeps_none_of_them() {
    let threads = Arc::default();
    let backend = || -> Box<dyn BatchBackend> { Box::new(Noting(Arc::clone(&threads))) };
    let stage = PoolStage::start("m", vec![backend()], alone(8), counting().0).unwrap();
    for turn in 0..20 {
        stage.change(vec![backend()], &[turn % 2]).unwrap();
        let response = ask(&stage, request(100)).await.unwrap();
        assert_eq!(number(&response.outputs), 100);
    }
    drop(stage);
    wait_until("the backends are gone", || Arc::strong_count(&threads) == 1);
    let own = std::thread::current().id();
    assert!(threads.lock().unwrap().iter().all(|thread| *thread == own), "all were brief");
}
