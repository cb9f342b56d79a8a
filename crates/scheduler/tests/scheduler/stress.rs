//! Callers that come and go at random: nothing is lost, nothing is done twice, nobody else is hit.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use consort_scheduler::PoolStage;
use consort_stage::{Batch, BatchBackend, Code, Error, Interrupt, Result, Stage, Tensor};
use futures::StreamExt;

use crate::stage::{alone, counting, number, request, wait_until};

const FOR: Duration = Duration::from_millis(1500);

/// Works a little, counts its runs, and can be interrupted while it works.
struct Busy {
    runs: Arc<Mutex<Vec<i32>>>,
    state: Arc<(Mutex<Option<bool>>, Condvar)>,
    random: Random,
}

impl BatchBackend for Busy {
    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.runs.lock().unwrap().push(number(&batch.inputs));
        let (state, told) = &*self.state;
        let pause = Duration::from_micros(self.random.below(300));
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
    come_and_go(false);
}

#[test]
fn nor_are_they_where_instances_leave_them_to_a_wide_one_and_back() {
    come_and_go(true);
}

fn come_and_go(has_wide: bool) {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let busy = |_| -> Box<dyn BatchBackend> {
        Box::new(Busy { runs: runs.clone(), state: Arc::default(), random: Random::seeded() })
    };
    let (counting, meter) = counting();
    let stage = PoolStage::start("m", (0..3).map(busy).collect(), alone(6), counting).unwrap();
    if has_wide {
        stage.add_wide(busy(3)).unwrap();
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
}

/// Sends requests for a while, leaving every other one at a random moment; the numbers of those
/// that were answered.
async fn call_until_tired(stage: Arc<PoolStage>, next: Arc<AtomicI32>) -> Vec<i32> {
    let mut random = Random::seeded();
    let begun_at = Instant::now();
    let mut answered = Vec::new();
    while begun_at.elapsed() < FOR {
        let value = next.fetch_add(1, SeqCst);
        let mut responses = stage.call(request(value));
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
