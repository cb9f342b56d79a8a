//! Backends that own their loop.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use consort_scheduler::StreamingStage;
use consort_stage::{Code, Interrupt, Job, Jobs, Response, Stage, StreamingBackend};
use futures::{FutureExt, StreamExt};

use crate::stage::{ask, counting, number, request, wait_until};

/// Hands its jobs to the test, one at a time, and panics at 13 with the job in hand.
struct HandsOver {
    admitted: Sender<Job>,
    go: Receiver<()>,
    ended: Arc<AtomicUsize>,
}

impl StreamingBackend for HandsOver {
    fn run(&mut self, mut jobs: Jobs) {
        while self.go.recv().is_ok() {
            let Ok(job) = jobs.wait() else {
                break;
            };
            assert_ne!(number(&job.request.inputs), 13, "thirteen");
            self.admitted.send(job).unwrap();
        }
        self.ended.fetch_add(1, SeqCst);
    }
}

struct Loops {
    stage: StreamingStage,
    admitted: Vec<Receiver<Job>>,
    go: Vec<Sender<()>>,
    ended: Arc<AtomicUsize>,
    meter: Arc<consort_telemetry::Meter>,
}

fn loops(instances: usize, queue_size: usize) -> Loops {
    let (counting, meter) = counting();
    let ended = Arc::new(AtomicUsize::new(0));
    let (mut admitted, mut go, mut backends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..instances {
        let (admitted_sender, admitted_receiver) = channel();
        let (go_sender, go_receiver) = channel();
        admitted.push(admitted_receiver);
        go.push(go_sender);
        let backend =
            HandsOver { admitted: admitted_sender, go: go_receiver, ended: ended.clone() };
        backends.push(Box::new(backend) as Box<dyn StreamingBackend>);
    }
    let stage = StreamingStage::start("m", backends, queue_size, counting).unwrap();
    Loops { stage, admitted, go, ended, meter }
}

impl Loops {
    fn admit(&self, instance: usize) -> Job {
        self.go[instance].send(()).unwrap();
        self.admitted[instance].recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn send(&self, value: i32) -> consort_stage::Responses {
        let mut responses = self.stage.call(request(value));
        assert!(responses.next().now_or_never().is_none());
        responses
    }
}

fn response(job: &Job, is_last: bool) -> Response {
    Response { outputs: job.request.inputs.clone(), is_last, ..Response::default() }
}

#[tokio::test]
async fn a_request_is_answered_many_times_and_counted_once() {
    let loops = loops(1, 4);
    let responses = loops.send(5);
    assert_eq!(loops.meter.snapshot().pending, 1);
    let job = loops.admit(0);
    for index in 0..3 {
        job.reply.try_send(response(&job, index == 2)).unwrap();
    }
    drop(job);
    let said: Vec<_> = responses.map(|response| response.unwrap().is_last).collect().await;
    assert_eq!(said, [false, false, true]);
    assert_eq!(loops.meter.snapshot().execution_count, 1);
    assert_eq!(loops.meter.snapshot().pending, 0);
}

#[tokio::test]
async fn a_request_waits_until_the_backend_admits_it() {
    const PAUSE: Duration = Duration::from_millis(100);
    let loops = loops(1, 4);
    let responses = loops.send(5);
    std::thread::sleep(PAUSE);
    let job = loops.admit(0);
    assert_eq!(loops.meter.snapshot().pending, 1);
    job.reply.admit();
    assert_eq!(loops.meter.snapshot().pending, 0);
    std::thread::sleep(5 * PAUSE);
    job.reply.admit();
    job.reply.try_send(response(&job, true)).unwrap();
    drop(job);
    assert!(responses.collect::<Vec<_>>().await[0].is_ok());
    let counted = loops.meter.snapshot();
    let ns = |tally: consort_telemetry::Tally| Duration::from_nanos(tally.ns);
    assert!(ns(counted.queue) >= PAUSE && ns(counted.queue) < 4 * PAUSE, "{:?}", counted.queue);
    assert!(ns(counted.compute_infer) >= 5 * PAUSE, "{:?}", counted.compute_infer);
}

#[tokio::test]
async fn an_answer_is_counted_though_its_reader_stops_at_the_last_response() {
    let loops = loops(1, 4);
    let mut responses = loops.send(5);
    let job = loops.admit(0);
    job.reply.try_send(response(&job, true)).unwrap();
    assert!(responses.next().await.unwrap().unwrap().is_last);
    drop(responses);
    assert_eq!(loops.meter.snapshot().execution_count, 1);
}

#[tokio::test]
async fn a_failed_and_an_abandoned_request_are_not_counted() {
    let loops = loops(1, 4);
    let failed = loops.send(1);
    loops.admit(0).reply.fail(consort_stage::Error::invalid("no"));
    let said: Vec<_> = failed.collect().await;
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].as_ref().unwrap_err().message(), "no");
    drop(loops.send(2));
    assert_eq!(loops.meter.snapshot().execution_count, 0);
    assert_eq!(loops.meter.snapshot().pending, 0);
}

#[tokio::test]
async fn nothing_is_queued_before_the_first_poll() {
    let loops = loops(1, 4);
    let unpolled = loops.stage.call(request(1));
    let polled = loops.send(2);
    assert_eq!(number(&loops.admit(0).request.inputs), 2);
    drop((unpolled, polled));
}

#[tokio::test]
async fn a_backend_sees_that_its_caller_has_gone() {
    let loops = loops(1, 4);
    let responses = loops.send(1);
    let job = loops.admit(0);
    assert!(!job.reply.is_gone());
    drop(responses);
    assert!(job.reply.is_gone());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let loops = loops(1, 2);
    let waiting = [loops.send(1), loops.send(2)];
    let error = ask(&loops.stage, request(3)).await.unwrap_err();
    assert_eq!(error.code(), Code::Overloaded);
    assert_eq!(error.message(), "Exceeds maximum queue size");
    drop(loops.admit(0));
    let third = loops.send(4);
    drop((waiting, third));
}

#[tokio::test]
async fn a_request_whose_deadline_has_passed_is_not_queued() {
    let loops = loops(1, 2);
    let mut late = request(1);
    late.context.deadline = Some(Instant::now());
    assert_eq!(ask(&loops.stage, late).await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn requests_go_to_the_loop_that_has_the_fewest() {
    let loops = loops(2, 8);
    let mut calls = Vec::new();
    // Both take what comes to them at once, so that no queue tells them apart.
    for value in 0..6 {
        calls.push(loops.send(value));
    }
    let jobs: Vec<_> = (0..3).flat_map(|_| [loops.admit(0), loops.admit(1)]).collect();
    drop((jobs, calls));
    let again = [loops.send(7), loops.send(8)];
    drop((loops.admit(0), loops.admit(1), again));
}

#[tokio::test]
async fn a_loop_that_panics_tells_its_callers_and_begins_again() {
    let loops = loops(1, 8);
    let broken = loops.send(13);
    let behind = loops.send(1);
    loops.go[0].send(()).unwrap();
    for call in [broken, behind] {
        let said: Vec<_> = call.collect().await;
        assert_eq!(said.len(), 1, "an end without a word would look like an answer");
        let error = said[0].as_ref().unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains("broke down"), "{error}");
    }
    let is_back = || {
        let mut responses = loops.stage.call(request(2));
        responses.next().now_or_never().is_none()
    };
    wait_until("the loop takes requests again", is_back);
    let after = loops.send(3);
    let mut job = loops.admit(0);
    while number(&job.request.inputs) != 3 {
        assert!(job.reply.is_gone());
        job = loops.admit(0);
    }
    job.reply.try_send(response(&job, true)).unwrap();
    drop(job);
    assert_eq!(after.count().await, 1);
}

#[tokio::test]
async fn loops_end_with_their_stage_once_they_have_answered() {
    let loops = loops(2, 8);
    let waiting = loops.send(1);
    let lazy = loops.stage.call(request(2));
    let Loops { stage, admitted, go, ended, .. } = loops;
    drop(stage);
    let said: Vec<_> = lazy.collect().await;
    assert_eq!(said[0].as_ref().unwrap_err().code(), Code::Unavailable);
    // What was queued is still handed out, then both see that nothing more will come.
    for one in &go {
        // The loop without a job ends at its first turn and hears of no second one.
        let _ = one.send(());
        let _ = one.send(());
    }
    wait_until("both loops have ended", || ended.load(SeqCst) == 2);
    let jobs: Vec<Job> = admitted.iter().flat_map(|queue| queue.try_iter()).collect();
    assert_eq!(jobs.len(), 1);
    jobs[0].reply.try_send(response(&jobs[0], true)).unwrap();
    drop(jobs);
    assert_eq!(waiting.count().await, 1);
}

#[tokio::test]
async fn a_model_without_instances_says_so() {
    let stage = StreamingStage::start("m", Vec::new(), 8, counting().0).unwrap();
    assert_eq!(ask(&stage, request(1)).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_queue_of_no_size_still_takes_one() {
    let loops = loops(1, 0);
    drop(loops.send(1));
}

/// Panics whenever it runs.
struct Hopeless(Arc<Mutex<usize>>);

impl StreamingBackend for Hopeless {
    fn run(&mut self, _: Jobs) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += 1;
        panic!("as always");
    }
}

#[tokio::test]
async fn a_loop_that_always_panics_neither_spins_nor_outlives_its_stage() {
    let runs = Arc::new(Mutex::new(0));
    let backend = Box::new(Hopeless(runs.clone()));
    let stage = StreamingStage::start("m", vec![backend], 8, counting().0).unwrap();
    std::thread::sleep(Duration::from_millis(250));
    drop(stage);
    wait_until("the thread has ended", || Arc::strong_count(&runs) == 1);
    assert!(*runs.lock().unwrap() <= 5);
}

#[tokio::test]
async fn a_loop_that_retires_answers_what_it_was_given_and_takes_nothing_more() {
    let loops = loops(2, 4);
    let first = loops.send(1);
    let second = loops.send(2);
    loops.stage.change(Vec::new(), &[0]).unwrap();
    let third = loops.send(3);
    for (instance, expected) in [(0, 1), (1, 2), (1, 3)] {
        let job = loops.admit(instance);
        assert_eq!(number(&job.request.inputs), expected);
        job.reply.try_send(response(&job, true)).unwrap();
    }
    for call in [first, second, third] {
        assert!(call.collect::<Vec<_>>().await[0].is_ok());
    }
    loops.go[0].send(()).unwrap();
    wait_until("the end of the loop", || loops.ended.load(SeqCst) == 1);
}

/// Holds its one job, and notes at each interrupt whether the caller has gone.
struct Holds {
    job: Arc<Mutex<Option<Job>>>,
    gone: Arc<Mutex<Vec<bool>>>,
}

impl StreamingBackend for Holds {
    fn run(&mut self, mut jobs: Jobs) {
        while let Ok(job) = jobs.wait() {
            *self.job.lock().unwrap() = Some(job);
        }
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let (job, gone) = (self.job.clone(), self.gone.clone());
        Some(Arc::new(move || {
            let is_gone = job.lock().unwrap().as_ref().is_some_and(|job| job.reply.is_gone());
            gone.lock().unwrap().push(is_gone);
        }))
    }
}

#[tokio::test]
async fn a_backend_is_told_of_a_caller_that_leaves_when_it_can_see_it() {
    let job: Arc<Mutex<Option<Job>>> = Arc::default();
    let gone: Arc<Mutex<Vec<bool>>> = Arc::default();
    let backend = Box::new(Holds { job: Arc::clone(&job), gone: Arc::clone(&gone) });
    let stage = StreamingStage::start("m", vec![backend], 8, counting().0).unwrap();
    let mut responses = stage.call(request(1));
    assert!(responses.next().now_or_never().is_none());
    wait_until("the job is held", || job.lock().unwrap().is_some());
    assert_eq!(*gone.lock().unwrap(), [] as [bool; 0]);
    drop(responses);
    assert_eq!(*gone.lock().unwrap(), [true]);
}
