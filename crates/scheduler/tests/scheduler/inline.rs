//! A backend that runs where it is called.

use std::sync::Arc;

use consort_scheduler::{Counting, InlineStage};
use consort_stage::{Batch, Code, Error, InlineBackend, Result, Stage, Tensor};

use crate::stage::{ask, counting, number, request};

/// Panics at 13, refuses negative numbers and gives all others back.
struct Superstitious;

impl InlineBackend for Superstitious {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        match number(&batch.inputs) {
            13 => panic!("thirteen"),
            negative if negative < 0 => Err(Error::invalid("too little")),
            _ => Ok(batch.inputs),
        }
    }
}

#[tokio::test]
async fn an_answer_and_an_error_come_back_and_only_the_answer_is_counted() {
    let (counting, meter) = counting();
    let stage = InlineStage::new(Arc::new(Superstitious), counting);
    let response = ask(&stage, request(5)).await.unwrap();
    assert_eq!(number(&response.outputs), 5);
    assert!(response.is_last);
    assert_eq!(ask(&stage, request(-1)).await.unwrap_err().message(), "too little");
    assert_eq!(meter.snapshot().execution_count, 1);
}

#[tokio::test]
async fn a_panic_fails_its_request_alone() {
    let (counting, _) = counting();
    let stage = InlineStage::new(Arc::new(Superstitious), counting);
    let error = ask(&stage, request(13)).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("broke down"), "{error}");
    assert!(ask(&stage, request(1)).await.is_ok());
}

#[tokio::test]
async fn a_batch_counts_for_as_many_inferences_as_it_has_rows() {
    let (counting, meter) = counting();
    let stage =
        InlineStage::new(Arc::new(Superstitious), Counting { is_batching: true, ..counting });
    let mut batch = request(0);
    batch.inputs = vec![Tensor::from_vec("x", &[3, 1], vec![1, 2, 3])];
    ask(&stage, batch).await.unwrap();
    assert_eq!(meter.snapshot().inference_count, 3);
    assert_eq!(meter.snapshot().execution_count, 1);
}

#[tokio::test]
async fn nothing_runs_before_the_first_poll() {
    let (counting, meter) = counting();
    let stage = InlineStage::new(Arc::new(Superstitious), counting);
    drop(stage.call(request(1)));
    assert_eq!(meter.snapshot().execution_count, 0);
}
