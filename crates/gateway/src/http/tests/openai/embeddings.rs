//! `/v1/embeddings`.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use expect_test::expect;
use serde_json::json;
use tokio::task::yield_now;

use super::*;

const PATH: &str = "/v1/embeddings";

/// A front over a model `embed` that gives for each text its length and its place in the batch.
fn embedder() -> Router {
    let vectors = signature("2: text BYTES[1] -> embedding FP32[2], attention_mask INT64[-1]");
    let revealed = model("embed", vectors, |request| {
        let text = request.input("text").unwrap();
        let texts = text.to_strings().unwrap();
        let vector = |(place, text): (usize, &&[u8])| [text.len() as f32, place as f32 + 0.1];
        let values: Vec<f32> = texts.iter().enumerate().flat_map(vector).collect();
        let count = texts.len() as i64;
        let outputs = vec![
            Tensor::from_vec("embedding", &[count, 2], values),
            Tensor::from_vec("attention_mask", &[count, 2], [1_i64, 0].repeat(texts.len())),
        ];
        one(async { Ok(Response::only(outputs)) })
    });
    let plain = signature("2: text BYTES[1] -> embedding FP32[2]");
    let mut plain = Arc::into_inner(model("embed", plain, echo_back)).unwrap();
    plain.revealed = Some(revealed);
    front(vec![Arc::new(plain), echo()])
}

/// A front over a model `one` that takes one text at a time, and how often it was called in all and
/// at the most at once.
fn one_by_one() -> (Router, Arc<[AtomicUsize; 3]>) {
    let calls: Arc<[AtomicUsize; 3]> = Arc::default();
    let counted = calls.clone();
    let answer = move |request: Request| {
        let calls = counted.clone();
        one(async move {
            let [all, now, most] = &*calls;
            all.fetch_add(1, SeqCst);
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            // Later texts are done earlier.
            for _ in 0..8 - all.load(SeqCst) % 8 {
                yield_now().await;
            }
            now.fetch_sub(1, SeqCst);
            let text = request.input("text").unwrap().to_strings().unwrap()[0].len();
            Ok(Response::only(vec![Tensor::from_vec("embedding", &[1], vec![text as f32])]))
        })
    };
    let signature = signature("text BYTES[1] -> embedding FP32[1]");
    (front(vec![model("one", signature, answer)]), calls)
}

#[test]
fn a_model_gets_few_of_many_texts_at_once_and_their_vectors_stay_in_order() {
    let (front, calls) = one_by_one();
    let texts: Vec<String> = (0..2048).map(|length| "a".repeat(length % 2)).collect();
    let body = json!({"model": "one", "input": texts}).to_string();
    let reply = block_on(post(front, PATH, body)).json();
    let vectors = reply["data"].as_array().unwrap().iter().map(|item| &item["embedding"][0]);
    let lengths: Vec<f64> = vectors.map(|number| number.as_f64().unwrap()).collect();
    assert_eq!(lengths, texts.iter().map(|text| text.len() as f64).collect::<Vec<_>>());
    let [all, _, most] = &*calls;
    assert_eq!((all.load(SeqCst), most.load(SeqCst)), (2048, 64));
}

#[test]
fn a_length_that_the_model_does_not_have_is_refused_before_it_works() {
    let (front, calls) = one_by_one();
    let reply = block_on(post(front, PATH, r#"{"model":"one","input":"a","dimensions":2}"#));
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(reply.json()["error"]["param"], "dimensions");
    assert_eq!(calls[0].load(SeqCst), 0);
}

fn check_embed(fields: &str, expected: &Expect) {
    check(embedder(), PATH, &format!(r#"{{"model":"embed",{fields}}}"#), expected);
}

#[test]
fn each_text_has_a_vector_in_its_place_and_padding_counts_for_nothing() {
    check_embed(
        r#""input":["one","three","seventh"]"#,
        &expect![[
            r#"200 {"object":"list","data":[{"object":"embedding","index":0,"embedding":[3.0,0.1]},{"object":"embedding","index":1,"embedding":[5.0,1.1]},{"object":"embedding","index":2,"embedding":[7.0,0.1]}],"model":"embed","usage":{"prompt_tokens":3,"total_tokens":3}}"#
        ]],
    );
    check_embed(
        r#""input":"one","encoding_format":"base64","dimensions":2"#,
        &expect![[
            r#"200 {"object":"list","data":[{"object":"embedding","index":0,"embedding":"AABAQM3MzD0="}],"model":"embed","usage":{"prompt_tokens":1,"total_tokens":1}}"#
        ]],
    );
}

#[test]
fn what_is_wrong_is_refused_by_the_name_of_its_field() {
    check_embed(
        r#""n":1"#,
        &expect![[
            r#"400 {"error":{"message":"`input` is missing","type":"invalid_request_error","param":"input","code":null}}"#
        ]],
    );
    check_embed(
        r#""input":[]"#,
        &expect![[
            r#"400 {"error":{"message":"`input` has 0 texts; there must be 1 to 2048","type":"invalid_request_error","param":"input","code":null}}"#
        ]],
    );
    check_embed(
        r#""input":[1,2]"#,
        &expect![[
            r#"400 {"error":{"message":"`input` has token ids; the ensembles of this server tokenize by themselves, so send text","type":"invalid_request_error","param":"input","code":null}}"#
        ]],
    );
    check_embed(
        r#""input":{"a":1}"#,
        &expect![[
            r#"400 {"error":{"message":"`input` must be a string or a list of strings, not an object","type":"invalid_request_error","param":"input","code":null}}"#
        ]],
    );
    check_embed(
        r#""input":"a","encoding_format":"hex""#,
        &expect![[
            r#"400 {"error":{"message":"`encoding_format` must be `float` or `base64`","type":"invalid_request_error","param":"encoding_format","code":null}}"#
        ]],
    );
    check_embed(
        r#""input":"a","dimensions":1"#,
        &expect![[
            r#"400 {"error":{"message":"`dimensions` must be 2: the model gives no shorter vectors","type":"invalid_request_error","param":"dimensions","code":null}}"#
        ]],
    );
    check_embed(
        r#""input":"a","pooling":"mean""#,
        &expect![[
            r#"400 {"error":{"message":"Unrecognized request argument supplied: pooling","type":"invalid_request_error","param":"pooling","code":null}}"#
        ]],
    );
    check(
        embedder(),
        PATH,
        r#"{"model":"echo","input":"a"}"#,
        &expect![[
            r#"400 {"error":{"message":"model `echo` does not embed text: it does not take one TYPE_STRING tensor and give one of TYPE_FP32","type":"invalid_request_error","param":"model","code":null}}"#
        ]],
    );
}
