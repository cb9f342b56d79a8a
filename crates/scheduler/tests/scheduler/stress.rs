//! Callers that come and go at random: nothing is lost, nothing is done twice, nobody else is hit.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use consort_config::Model;
use consort_scheduler::{PoolStage, Rules};
use consort_stage::{
    Batch, BatchBackend, Code, DataType, Error, Interrupt, Request, Result, Signature, Stage,
    Tensor, TensorSpec,
};
use futures::StreamExt;

use crate::stage::{alone, counting, number, wait_until};

const FOR: Duration = Duration::from_millis(1500);

/// Works a little, counts its runs, and can be interrupted while it works.
struct Busy {
    runs: Arc<Mutex<Vec<i32>>>,
    state: Arc<(Mutex<Option<bool>>, Condvar)>,
    random: Random,
    /// No run takes longer, in microseconds.
    longest: u64,
    /// How many of its runs were for several requests.
    shared: Arc<AtomicU64>,
}

impl BatchBackend for Busy {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        let numbers = batch.inputs[0].to_slice::<i32>()?;
        self.shared.fetch_add(u64::from(numbers.len() > 1), SeqCst);
        self.runs.lock().unwrap().extend(numbers.iter());
        let (state, told) = &*self.state;
        let pause = Duration::from_micros(self.random.below(self.longest));
        let mut state = state.lock().unwrap();
        *state = Some(false);
        let (mut state, _) =
            told.wait_timeout_while(state, pause, |told| *told == Some(false)).unwrap();
        match state.take() {
            Some(true) => Err(Error::cancelled()),
            _ => Ok(batch.inputs),
        }
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let state = self.state.clone();
        Some(Arc::new(move || {
            if let Some(told) = state.0.lock().unwrap().as_mut() {
                *told = true;
                state.1.notify_all();
            }
        }))
    }
}

/// Numbers without a pattern that matters (xorshift).
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        static SEED: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
        Self(SEED.fetch_add(0x1234_5678_9abc_def1, SeqCst) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn requests_are_neither_lost_nor_doubled_while_callers_come_and_go() {
    come_and_go(alone(6), 300, false);
}

#[test]
fn nor_are_they_where_one_that_comes_alone_has_an_instance_of_its_own() {
    come_and_go(alone(6), 300, true);
}

#[test]
fn nor_are_they_where_instances_wait_for_their_callers_and_begin_together() {
    come_and_go(gathering(4), 3000, false);
    come_and_go(gathering(4), 3000, true);
}

#[test]
fn nor_are_they_where_all_that_are_gathered_may_be_one_run() {
    assert!(come_and_go(gathering(16), 3000, true) > 0, "the wide instance ran some together");
}

/// Rules for instances that share two cores, with so many rows in a run.
fn gathering(max_batch_size: i64) -> Rules {
    let x = vec![TensorSpec::new("x", DataType::Int32, &[1])];
    let signature = Signature { max_batch_size, inputs: x, ..Signature::default() };
    let rules = Rules::of(&Model::plain("m", signature), false, true).unwrap();
    rules.on_cores(NonZeroUsize::new(2).unwrap())
}

/// Callers of three instances whose runs take no longer than so many microseconds; how many runs of
/// a wide one beside them were for several requests.
fn come_and_go(rules: Rules, longest: u64, has_wide: bool) -> u64 {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let busy = |shared: &Arc<AtomicU64>| -> Box<dyn BatchBackend> {
        let (runs, state, random) = (runs.clone(), Arc::default(), Random::seeded());
        Box::new(Busy { runs, state, random, longest, shared: shared.clone() })
    };
    let (counting, meter) = counting();
    let narrow = (0..3).map(|_| busy(&Arc::default())).collect();
    let stage = PoolStage::start("m", narrow, rules, counting).unwrap();
    let shared = Arc::default();
    if has_wide {
        stage.add_wide(busy(&shared)).unwrap();
    }
    let stage = Arc::new(stage);
    let next = Arc::new(AtomicI32::new(0));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let answered = runtime.block_on(async {
        let callers: Vec<_> =
            (0..12).map(|_| runtime.spawn(call_until_tired(stage.clone(), next.clone()))).collect();
        let mut answered = Vec::new();
        for caller in callers {
            answered.extend(caller.await.unwrap());
        }
        answered
    });
    wait_until("nothing waits any more", || meter.snapshot().pending == 0);
    drop(stage);
    wait_until("the threads have ended", || Arc::strong_count(&runs) == 1);

    let mut runs = runs.lock().unwrap().clone();
    let total = runs.len();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), total, "a request was run twice");
    assert!(answered.iter().all(|value| runs.binary_search(value).is_ok()));
    assert!(answered.len() > 100, "{} of {total} runs were answered", answered.len());
    shared.load(SeqCst)
}

/// Sends requests for a while, leaving every other one at a random moment; the numbers of those
/// that were answered.
async fn call_until_tired(stage: Arc<PoolStage>, next: Arc<AtomicI32>) -> Vec<i32> {
    let mut random = Random::seeded();
    let begun_at = Instant::now();
    let mut answered = Vec::new();
    while begun_at.elapsed() < FOR {
        let value = next.fetch_add(1, SeqCst);
        let inputs = vec![Tensor::from_vec("x", &[1, 1], vec![value])];
        let mut responses = stage.call(Request { inputs, ..Request::default() });
        if random.below(2) == 0 {
            let patience = Duration::from_micros(random.below(600));
            let _ = tokio::time::timeout(patience, responses.next()).await;
            continue;
        }
        match responses.next().await.expect("every request is answered") {
            Ok(response) => {
                assert_eq!(number(&response.outputs), value);
                answered.push(value);
            }
            // One that stays is refused by a full queue and by nothing else: an interrupt meant
            // for another would show as a cancellation.
            Err(error) => {
                assert_eq!(error.code(), Code::Overloaded, "{error}");
                tokio::task::yield_now().await;
            }
        }
    }
    answered
}
