//! Instances that come and go while requests wait for them.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consort_scheduler::PoolStage;
use consort_stage::{Batch, BatchBackend, Responses, Result, Stage, Tensor};
use futures::{FutureExt, StreamExt};

use crate::stage::{alone, counting, number, request, wait_until};

/// Says which number it works on and goes on when the test lets it; counts how many there are.
struct Counted {
    begun: Sender<i32>,
    go: Arc<Mutex<Receiver<()>>>,
    living: Arc<AtomicUsize>,
}

impl BatchBackend for Counted {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.begun.send(number(&batch.inputs)).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        Ok(batch.inputs)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.living.fetch_sub(1, SeqCst);
    }
}

struct Works {
    stage: PoolStage,
    begun: Receiver<i32>,
    begun_sender: Sender<i32>,
    go: Sender<()>,
    told: Arc<Mutex<Receiver<()>>>,
    living: Arc<AtomicUsize>,
}

impl Works {
    fn new() -> Self {
        let (begun_sender, begun) = channel();
        let (go, told) = channel();
        let stage = PoolStage::start("m", Vec::new(), alone(16), counting().0).unwrap();
        let told = Arc::new(Mutex::new(told));
        Self { stage, begun, begun_sender, go, told, living: Arc::default() }
    }

    fn backends(&self, count: usize) -> Vec<Box<dyn BatchBackend>> {
        self.living.fetch_add(count, SeqCst);
        let backend = |_| -> Box<dyn BatchBackend> {
            let (begun, go) = (self.begun_sender.clone(), self.told.clone());
            Box::new(Counted { begun, go, living: self.living.clone() })
        };
        (0..count).map(backend).collect()
    }

    fn start(count: usize) -> Self {
        let mut works = Self::new();
        let backends = works.backends(count);
        works.stage = PoolStage::start("m", backends, alone(16), counting().0).unwrap();
        works
    }

    fn send(&self, value: i32) -> Responses {
        let mut responses = self.stage.call(request(value));
        assert!(responses.next().now_or_never().is_none());
        responses
    }

    fn begun(&self) -> i32 {
        self.begun.recv_timeout(Duration::from_secs(20)).unwrap()
    }
}

async fn value(mut responses: Responses) -> i32 {
    number(&responses.next().await.unwrap().unwrap().outputs)
}

#[tokio::test]
async fn what_waits_is_taken_by_the_instances_that_are_added() {
    let works = Works::start(1);
    let calls = [1, 2, 3].map(|value| works.send(value));
    assert_eq!(works.begun(), 1);
    let added = works.stage.change(works.backends(2), &[]).unwrap();
    assert_eq!(added, [1, 2]);
    let mut begun = [works.begun(), works.begun()];
    begun.sort_unstable();
    assert_eq!(begun, [2, 3], "they do not wait for the first");
    (0..3).for_each(|_| works.go.send(()).unwrap());
    for (call, expected) in calls.into_iter().zip([1, 2, 3]) {
        assert_eq!(value(call).await, expected);
    }
}

#[tokio::test]
async fn an_instance_that_retires_finishes_its_run_and_leaves_what_waits_to_others() {
    let works = Works::start(2);
    let running = [1, 2].map(|value| works.send(value));
    let mut begun = [works.begun(), works.begun()];
    begun.sort_unstable();
    assert_eq!(begun, [1, 2]);
    let waiting = works.send(3);
    works.stage.change(Vec::new(), &[0]).unwrap();
    assert_eq!(works.living.load(SeqCst), 2, "it is not interrupted");
    (0..3).for_each(|_| works.go.send(()).unwrap());
    for (call, expected) in running.into_iter().chain([waiting]).zip([1, 2, 3]) {
        assert_eq!(value(call).await, expected);
    }
    wait_until("the end of the one", || works.living.load(SeqCst) == 1);
    let call = works.send(4);
    works.go.send(()).unwrap();
    assert_eq!(value(call).await, 4);
}

#[tokio::test]
async fn an_idle_instance_goes_at_once_and_its_number_is_free_again() {
    let works = Works::start(1);
    let added = works.stage.change(works.backends(1), &[0]).unwrap();
    assert_eq!(added, [1], "the one that goes has its number until then");
    wait_until("the end of the first", || works.living.load(SeqCst) == 1);
    assert_eq!(works.stage.change(works.backends(1), &[]).unwrap(), [0]);
}

/// Answers with what it is given.
struct Echo;

impl BatchBackend for Echo {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        Ok(batch.inputs)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_the_instance_for_those_that_come_alone_comes_and_goes() {
    let echoes: Vec<Box<dyn BatchBackend>> = vec![Box::new(Echo), Box::new(Echo)];
    let stage = Arc::new(PoolStage::start("m", echoes, alone(1024), counting().0).unwrap());
    let asked = stage.clone();
    let caller = tokio::spawn(async move {
        for number in 0..2000 {
            assert_eq!(value(asked.call(request(number))).await, number);
        }
    });
    while !caller.is_finished() {
        stage.add_wide(Box::new(Echo)).unwrap();
        stage.add_wide(Box::new(Echo)).unwrap();
        assert!(stage.has_wide());
        stage.retire_wide();
        assert!(!stage.has_wide());
        tokio::task::yield_now().await;
    }
    caller.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_instances_come_and_go() {
    let echoes =
        |count| (0..count).map(|_| -> Box<dyn BatchBackend> { Box::new(Echo) }).collect::<Vec<_>>();
    let stage = PoolStage::start("m", echoes(1), alone(1024), counting().0).unwrap();
    let stage = Arc::new(stage);
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let stage = stage.clone();
            tokio::spawn(async move {
                for round in 0..500 {
                    let asked = caller * 1000 + round;
                    assert_eq!(value(stage.call(request(asked))).await, asked);
                }
            })
        })
        .collect();
    let mut numbers = vec![0];
    while callers.iter().any(|caller| !caller.is_finished()) {
        let added = stage.change(echoes(2), &numbers).unwrap();
        numbers = added;
        tokio::task::yield_now().await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
}
