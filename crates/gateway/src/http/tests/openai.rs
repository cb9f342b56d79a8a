//! OpenAI's routes over models that answer in the test itself.

mod adapters;
mod chat;
mod completions;
mod embeddings;
mod log_probs;

use std::sync::Mutex;

use consort_stage::Tensor;
use consort_testkit::signature;
use expect_test::Expect;

use super::*;

/// What an ensemble that continues text takes and gives, its steps' tensors revealed.
const TALKER: &str = "1: text_input BYTES[1], max_tokens INT32[1]?, temperature FP32[1]?, \
     top_k INT32[1]?, top_p FP32[1]?, random_seed UINT64[1]?, stream BOOL[1]?, \
     min_length INT32[1]? ->> text_output BYTES[1], input_ids INT32[-1], output_ids INT32[-1], \
     finish_reason BYTES[1]";

/// A response of one token and its text, for a prompt of three tokens.
#[expect(clippy::unnecessary_wraps, reason = "it stands in lists beside errors")]
fn said(text: &str, finish: &str) -> Result<Response> {
    let outputs = vec![
        Tensor::from_strings("text_output", &[1, 1], &[text]),
        Tensor::from_vec("input_ids", &[1, 3], vec![7_i32, 8, 9]),
        Tensor::from_vec("output_ids", &[1, 1], vec![1_i32]),
        Tensor::from_strings("finish_reason", &[1, 1], &[finish]),
    ];
    Ok(Response { outputs, is_last: !finish.is_empty(), ..Response::default() })
}

/// A model called `generate` that says these pieces, the last of them for this reason.
fn talker(pieces: &'static [&'static str], finish: &'static str) -> Arc<Served> {
    model("generate", signature(TALKER), move |_| {
        let last = pieces.len() - 1;
        let reason = move |index| if index == last { finish } else { "" };
        let responses = pieces.iter().enumerate();
        all(responses.map(|(index, piece)| said(piece, reason(index))).collect())
    })
}

/// Posts `body` and compares what comes back, its name and its time left out.
fn check(router: Router, path: &str, body: &str, expected: &Expect) {
    let reply = block_on(post(layered(router), path, body.to_owned()));
    expected.assert_eq(&format!("{} {}", reply.status.as_u16(), normal(reply.text())));
}

/// `text` without what is different each time.
fn normal(text: &str) -> String {
    let without_names = text.split("cmpl-").enumerate().map(|(index, part)| match index {
        0 => part.to_owned(),
        _ => format!("cmpl-{}", part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit())),
    });
    let text = without_names.collect::<String>();
    let parts = text.split(r#""created":"#).enumerate().map(|(index, part)| match index {
        0 => part.to_owned(),
        _ => part.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == ',').into(),
    });
    parts.collect()
}
