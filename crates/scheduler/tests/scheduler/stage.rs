//! What the tests of every stage need: something to count with, requests and their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_scheduler::{Counting, Rules};
use consort_stage::{Request, Response, Result, Stage, Tensor};
use consort_telemetry::Meter;
use futures::StreamExt;

/// Counts for a model `m` that does not batch.
pub(crate) fn counting() -> (Counting, Arc<Meter>) {
    let meter = Arc::new(Meter::default());
    let counting =
        Counting { model: "m".into(), version: 1, meter: meter.clone(), is_batching: false };
    (counting, meter)
}

/// The rules of a model whose requests run one by one.
pub(crate) fn alone(queue_size: usize) -> Rules {
    Rules::alone(Arc::default(), queue_size)
}

/// A request with one number.
pub(crate) fn request(value: i32) -> Request {
    let inputs = vec![Tensor::from_vec("x", &[1], vec![value])];
    Request { inputs, ..Request::default() }
}

/// The number in a list of tensors.
pub(crate) fn number(tensors: &[Tensor]) -> i32 {
    tensors[0].to_slice::<i32>().unwrap()[0]
}

/// The one answer to a request.
pub(crate) async fn ask(stage: &dyn Stage, request: Request) -> Result<Response> {
    let mut answers: Vec<_> = stage.call(request).collect().await;
    assert_eq!(answers.len(), 1);
    answers.pop().unwrap()
}

/// Waits until something holds that another thread brings about.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun_at = Instant::now();
    while !holds() {
        assert!(begun_at.elapsed() < Duration::from_secs(20), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
