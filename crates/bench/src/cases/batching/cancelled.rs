//! How soon a long queue is empty when everybody leaves it at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_scheduler::{Counting, PoolStage, Rules};
use consort_stage::{Batch, BatchBackend, Request, Responses, Stage, Tensor};
use consort_telemetry::Meter;
use futures::{FutureExt, StreamExt};

const QUEUED: usize = 10_000;

/// Works on its first request until it is told to stop.
struct Stuck {
    begun: Sender<()>,
    go: Receiver<()>,
}

impl BatchBackend for Stuck {
    fn run(&mut self, batch: Batch) -> consort_stage::Result<Vec<Tensor>> {
        // Once the test has gone nobody listens, and nothing needs to be waited for.
        let _ = self.begun.send(());
        let _ = self.go.recv();
        Ok(batch.inputs)
    }
}

/// How long 10,000 requests take to leave the queue of a busy instance.
pub(super) fn measure() -> Result<Duration> {
    let meter = Arc::new(Meter::default());
    let counting =
        Counting { model: "stuck".into(), version: 1, meter: meter.clone(), is_batching: false };
    let (begun, has_begun) = channel();
    let (go, stop) = channel();
    let rules = Rules::alone(Arc::default(), 2 * QUEUED);
    let backend = Box::new(Stuck { begun, go: stop });
    let stage = PoolStage::start("stuck", vec![backend], rules, counting)?;
    let running = send(&stage);
    has_begun.recv().context("the instance begins")?;
    let queued: Vec<_> = (0..QUEUED).map(|_| send(&stage)).collect();
    ensure!(meter.snapshot().pending == QUEUED as u64, "they all wait");
    let begun_at = Instant::now();
    drop(queued);
    let took = begun_at.elapsed();
    ensure!(meter.snapshot().pending == 0, "they have all left");
    drop((running, go));
    Ok(took)
}

fn send(stage: &PoolStage) -> Responses {
    let inputs = vec![Tensor::from_vec("x", &[1, 16], vec![0_f32; 16])];
    let mut responses = stage.call(Request { inputs, ..Request::default() });
    // Nothing happens to a request before its answer is asked for.
    drop(responses.next().now_or_never());
    responses
}
