//! `/v1/completions` and `/v1/models`.

use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;
use futures::StreamExt;

use super::*;

const PATH: &str = "/v1/completions";

#[test]
fn a_completion_has_its_text_why_it_ended_and_its_tokens() {
    check(
        front(vec![talker(&["a ", "crab"], "stop")]),
        PATH,
        r#"{"model":"generate","prompt":"what walks sideways? "}"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"a crab","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#
        ]],
    );
}

#[test]
fn choices_of_a_prompt_share_its_tokens() {
    check(
        front(vec![talker(&["x"], "length")]),
        PATH,
        r#"{"model":"generate","prompt":["p ","q "],"n":2,"best_of":2,"echo":true,"seed":5}"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"p x","logprobs":null,"finish_reason":"length"},{"index":1,"text":"p x","logprobs":null,"finish_reason":"length"},{"index":2,"text":"q x","logprobs":null,"finish_reason":"length"},{"index":3,"text":"q x","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":6,"completion_tokens":4,"total_tokens":10}}"#
        ]],
    );
}

#[test]
fn choices_share_the_bytes_of_what_they_are_asked() {
    let takes = "1: text_input BYTES[1], prompt_token_ids INT32[-1]?, bad_words BYTES[-1]?, \
                 random_seed UINT64[1]? ->> text_output BYTES[1]";
    let asked = |prompt: &str| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let served = model("generate", signature(takes), move |request: Request| {
            sink.lock().unwrap().push(request);
            all(vec![said("x", "stop")])
        });
        let body = format!(
            r#"{{"model":"generate","prompt":{prompt},"bad_words":["a","b"],"n":3,"seed":1}}"#
        );
        let reply = block_on(post(front(vec![served]), PATH, body));
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
        let requests = std::mem::take(&mut *seen.lock().unwrap());
        assert_eq!(requests.len(), 3);
        requests
    };
    for (prompt, input) in [(r#""one two""#, "text_input"), ("[1,2,3]", "prompt_token_ids")] {
        let requests = asked(prompt);
        for name in [input, "bad_words"] {
            let place = |request: &Request| request.input(name).unwrap().data.as_ptr();
            assert!(requests.iter().all(|it| place(it) == place(&requests[0])), "{name}");
        }
        let seed = |it: &Request| it.input("random_seed").unwrap().to_slice::<u64>().unwrap()[0];
        assert_eq!(requests.iter().map(seed).collect::<Vec<_>>(), [1, 2, 3]);
    }
}

#[test]
fn a_stream_has_a_chunk_for_each_piece_then_the_reason_the_tokens_and_the_end() {
    check(
        front(vec![talker(&["a", "", "b"], "stop")]),
        PATH,
        r#"{"model":"generate","prompt":"p","stream":true,"stream_options":{"include_usage":true}}"#,
        &expect![[r#"
            200 data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":null}

            data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"b","logprobs":null,"finish_reason":null}],"usage":null}

            data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":null}

            data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}}

            data: [DONE]

        "#]],
    );
}

#[test]
fn a_stop_word_cut_over_pieces_never_shows() {
    check(
        front(vec![talker(&["one E", "N", "D two"], "length")]),
        PATH,
        r#"{"model":"generate","prompt":"p","stop":"END","stream":true}"#,
        &expect![[r#"
            200 data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"one ","logprobs":null,"finish_reason":null}]}

            data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}

            data: [DONE]

        "#]],
    );
    check(
        front(vec![talker(&["one E", "N", "D two"], "length")]),
        PATH,
        r#"{"model":"generate","prompt":"p","stop":["no","END"]}"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"one ","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6}}"#
        ]],
    );
}

#[test]
fn a_model_that_tells_nothing_but_text_has_no_usage_and_a_likely_reason() {
    let plain = signature("text_input BYTES[1] -> text_output BYTES[1]");
    let answer =
        |_| all(vec![Ok(Response::only(vec![Tensor::from_strings("text_output", &[1], &["a"])]))]);
    check(
        front(vec![model("generate", plain, answer)]),
        PATH,
        r#"{"model":"generate","prompt":"p"}"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":"stop"}]}"#
        ]],
    );
}

#[test]
fn the_prompts_tokens_that_were_not_computed_again_are_told_once() {
    let takes = "text_input BYTES[1], stream BOOL[1]? ->> text_output BYTES[1], input_ids INT32[-1], \
                 output_ids INT32[-1], cached_tokens INT32[1]";
    let served = model("generate", signature(takes), |_| {
        let mut first = said("a", "").unwrap();
        first.outputs.push(Tensor::from_vec("cached_tokens", &[1], vec![2_i32]));
        all(vec![Ok(first), said("b", "stop")])
    });
    check(
        front(vec![served]),
        PATH,
        r#"{"model":"generate","prompt":"p","n":2}"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"ab","logprobs":null,"finish_reason":"stop"},{"index":1,"text":"ab","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}}"#
        ]],
    );
}

/// The inputs that a model gets for `body`.
fn check_inputs(body: &str, expected: &Expect) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let place = Arc::clone(&seen);
    let spy = model("generate", signature(TALKER), move |request| {
        let show = |tensor: &Tensor| {
            let Tensor { name, datatype, shape, data } = tensor;
            format!("{name} {datatype} {shape:?} {data:?}\n")
        };
        place.lock().unwrap().push(request.inputs.iter().map(show).collect::<String>());
        all(vec![said("x", "stop")])
    });
    let reply = block_on(post(front(vec![spy]), PATH, body.to_owned()));
    assert_eq!(reply.status, 200, "{}", reply.text());
    expected.assert_eq(&seen.lock().unwrap().join("\n"));
}

#[test]
fn what_benchmarks_send_becomes_the_inputs_that_mean_the_same() {
    let takes = "text_input BYTES[1], max_tokens INT32[1]?, end_id INT32[1]?, min_length INT32[1]? \
                 -> text_output BYTES[1]";
    let seen = Arc::new(Mutex::new(Vec::new()));
    let place = Arc::clone(&seen);
    let spy = model("generate", signature(takes), move |request| {
        let number = |tensor: &Tensor| tensor.to_slice::<i32>().map(|values| values[0]).ok();
        let named = |tensor: &Tensor| Some(format!("{} {}", tensor.name, number(tensor)?));
        place.lock().unwrap().push(request.inputs.iter().filter_map(named).collect::<Vec<_>>());
        all(vec![said("x", "stop")])
    });
    let router = front(vec![spy]);
    let ask = |fields: &str| {
        let body = format!(r#"{{"model":"generate","prompt":"p","max_tokens":7,{fields}}}"#);
        let reply = block_on(post(router.clone(), PATH, body));
        (reply.status.as_u16(), reply.text().to_owned())
    };
    assert_eq!(ask(r#""ignore_eos":true,"min_tokens":7"#).0, 200);
    assert_eq!(ask(r#""ignore_eos":false,"min_tokens":0"#).0, 200);
    let (status, text) = ask(r#""ignore_eos":1"#);
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("`ignore_eos` must be true or false, not a number"), "{text}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], ["min_length 7", "end_id -1", "max_tokens 7"]);
    assert_eq!(seen[1], ["max_tokens 7"]);
}

#[test]
fn fields_become_the_inputs_of_the_model() {
    check_inputs(
        r#"{"model":"generate","prompt":"p","max_tokens":7,"temperature":0.5,"seed":-1,"n":2,
            "presence_penalty":0,"user":"me","min_length":2,"logit_bias":{}}"#,
        &expect![[r#"
            text_input BYTES [1, 1] b"\x01\0\0\0p"
            stream BOOL [1, 1] b"\0"
            min_length INT32 [1, 1] b"\x02\0\0\0"
            temperature FP32 [1, 1] b"\0\0\0?"
            max_tokens INT32 [1, 1] b"\x07\0\0\0"
            random_seed UINT64 [1, 1] b"\xff\xff\xff\xff\xff\xff\xff\xff"

            text_input BYTES [1, 1] b"\x01\0\0\0p"
            stream BOOL [1, 1] b"\0"
            min_length INT32 [1, 1] b"\x02\0\0\0"
            temperature FP32 [1, 1] b"\0\0\0?"
            max_tokens INT32 [1, 1] b"\x07\0\0\0"
            random_seed UINT64 [1, 1] b"\0\0\0\0\0\0\0\0"
        "#]],
    );
}

#[test]
fn a_temperature_of_0_asks_for_the_likeliest_token_whatever_else_is_said() {
    check_inputs(
        r#"{"model":"generate","prompt":"p","temperature":0,"top_k":9,"top_p":1}"#,
        &expect![[r#"
            text_input BYTES [1, 1] b"\x01\0\0\0p"
            stream BOOL [1, 1] b"\0"
            top_k INT32 [1, 1] b"\x01\0\0\0"
            top_p FP32 [1, 1] b"\0\0\x80?"
            max_tokens INT32 [1, 1] b"\x10\0\0\0"
        "#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn what_is_wrong_is_refused_by_the_name_of_its_field() {
    let refused = |fields: &str, expected| {
        let body = format!(r#"{{"model":"generate",{fields}}}"#);
        check(front(vec![talker(&["x"], "stop"), echo()]), PATH, &body, expected);
    };
    refused(
        r#""prompt":7"#,
        &expect![[
            r#"400 {"error":{"message":"`prompt` must be a string, token ids or a list of either, not a number","type":"invalid_request_error","param":"prompt","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":[1,2]"#,
        &expect![[
            r#"400 {"error":{"message":"`prompt` has token ids, and no step of model `generate` takes `prompt_token_ids`; send text","type":"invalid_request_error","param":"prompt","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":[]"#,
        &expect![[
            r#"400 {"error":{"message":"`prompt` is an empty list","type":"invalid_request_error","param":"prompt","code":null}}"#
        ]],
    );
    refused(
        r#""n":1"#,
        &expect![[
            r#"400 {"error":{"message":"`prompt` is missing","type":"invalid_request_error","param":"prompt","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","n":0"#,
        &expect![[
            r#"400 {"error":{"message":"`n` must be between 1 and 128, not 0","type":"invalid_request_error","param":"n","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":["p","q"],"n":100"#,
        &expect![[
            r#"400 {"error":{"message":"2 prompts with 100 choices each are more than 128 texts","type":"invalid_request_error","param":"prompt","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","max_tokens":0"#,
        &expect![[
            r#"400 {"error":{"message":"`max_tokens` must be between 1 and 2147483647, not 0","type":"invalid_request_error","param":"max_tokens","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","temperature":"hot""#,
        &expect![[
            r#"400 {"error":{"message":"`temperature` must be a number, not a string","type":"invalid_request_error","param":"temperature","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","presence_penalty":1"#,
        &expect![[
            r#"400 {"error":{"message":"`presence_penalty` has no effect on model `generate`, which has no input `presence_penalty`","type":"invalid_request_error","param":"presence_penalty","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","stop":["a","b","c","d","e"]"#,
        &expect![[
            r#"400 {"error":{"message":"`stop` has 5 words; there may be 4","type":"invalid_request_error","param":"stop","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","stop":[1]"#,
        &expect![[
            r#"400 {"error":{"message":"`stop` must be a string or a list of strings, not a number","type":"invalid_request_error","param":"stop","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","suffix":"s""#,
        &expect![[
            r#"400 {"error":{"message":"`suffix` is not supported: models continue a text, and insert nothing before an end","type":"invalid_request_error","param":"suffix","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","logit_bias":{"5":1}"#,
        &expect![[
            r#"400 {"error":{"message":"`logit_bias` has no effect on model `generate`, which has no input `logit_bias_ids`","type":"invalid_request_error","param":"logit_bias","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","best_of":3"#,
        &expect![[
            r#"400 {"error":{"message":"`best_of` is not supported: it must be as many as `n`","type":"invalid_request_error","param":"best_of","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","min_length":"two""#,
        &expect![[
            r#"400 {"error":{"message":"`min_length` does not fit input `min_length` of TYPE_INT32","type":"invalid_request_error","param":"min_length","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","num_return_sequences":2"#,
        &expect![[
            r#"400 {"error":{"message":"`num_return_sequences` is `n` in this API","type":"invalid_request_error","param":"num_return_sequences","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","text_input":"mine""#,
        &expect![[
            r#"400 {"error":{"message":"Unrecognized request argument supplied: text_input","type":"invalid_request_error","param":"text_input","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","stream_options":{}"#,
        &expect![[
            r#"400 {"error":{"message":"`stream_options` is for requests with `stream` set to true","type":"invalid_request_error","param":"stream_options","code":null}}"#
        ]],
    );
    refused(
        r#""prompt":"p","stream":true,"stream_options":{"x":1}"#,
        &expect![[
            r#"400 {"error":{"message":"Unrecognized request argument supplied: stream_options.x","type":"invalid_request_error","param":"stream_options.x","code":null}}"#
        ]],
    );
}

/// Steps speak of the inputs that they have.
#[test]
fn what_a_step_refuses_is_told_of_the_field_that_it_came_from() {
    let refusing = |input: &'static str, error: fn(String) -> Error| {
        let refuse = move |_| {
            consort_stage::fail(error(format!("`{input}` is wrong")).of_input(Some(input)))
        };
        front(vec![model("generate", signature(TALKER), refuse)])
    };
    let refused = |input, error, body: &str, expected: &Expect| {
        check(refusing(input, error), PATH, &format!(r#"{{"model":"generate",{body}}}"#), expected);
    };
    refused(
        "input_ids",
        Error::invalid,
        r#""prompt":"""#,
        &expect![[
            r#"400 {"error":{"message":"`input_ids` is wrong","type":"invalid_request_error","param":"prompt","code":null}}"#
        ]],
    );
    refused(
        "top_k",
        Error::unsupported,
        r#""prompt":"p","stream":true,"top_k":-4"#,
        &expect![[
            r#"400 {"error":{"message":"`top_k` is wrong","type":"invalid_request_error","param":"top_k","code":null}}"#
        ]],
    );
}

#[test]
fn a_path_that_is_no_route_is_refused_in_the_same_shape() {
    let reply = |path: &str| {
        let reply = block_on(get(front(vec![echo()]), path));
        format!("{} {}", reply.status.as_u16(), reply.text())
    };
    expect![[
        r#"404 {"error":{"message":"Invalid URL (GET /v1/foo)","type":"invalid_request_error","param":null,"code":null}}"#
    ]]
    .assert_eq(&reply("/v1/foo"));
    expect![[
        r#"405 {"error":{"message":"Invalid URL (GET /v1/completions)","type":"invalid_request_error","param":null,"code":null}}"#
    ]]
    .assert_eq(&reply(PATH));
    expect![[r#"404 {"error":"Not Found"}"#]].assert_eq(&reply("/v10"));
}

#[test]
fn what_is_no_request_and_models_that_cannot_be_asked_are_refused() {
    let refused = |body: &str, expected| {
        check(front(vec![talker(&["x"], "stop"), echo()]), PATH, body, expected);
    };
    refused(
        "",
        &expect![[
            r#"400 {"error":{"message":"the request body is not a JSON object: The document is empty. at 0","type":"invalid_request_error","param":null,"code":null}}"#
        ]],
    );
    refused(
        r#"{"model":"#,
        &expect![[
            r#"400 {"error":{"message":"the request body is not a JSON object: EOF while parsing a value at 9","type":"invalid_request_error","param":null,"code":null}}"#
        ]],
    );
    refused(
        "[]",
        &expect![[
            r#"400 {"error":{"message":"the request body is not a JSON object: expected an object","type":"invalid_request_error","param":null,"code":null}}"#
        ]],
    );
    refused(
        r#"{"prompt":"p"}"#,
        &expect![[
            r#"400 {"error":{"message":"`model` is missing","type":"invalid_request_error","param":"model","code":null}}"#
        ]],
    );
    refused(
        r#"{"model":3,"prompt":"p"}"#,
        &expect![[
            r#"400 {"error":{"message":"`model` must be a string, not a number","type":"invalid_request_error","param":"model","code":null}}"#
        ]],
    );
    refused(
        r#"{"model":"none","prompt":"p"}"#,
        &expect![[
            r#"404 {"error":{"message":"Request for unknown model: 'none' is not found","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        ]],
    );
    refused(
        r#"{"model":"echo","prompt":"p"}"#,
        &expect![[
            r#"400 {"error":{"message":"model `echo` does not continue text: it has no TYPE_STRING input `text_input` and output `text_output`","type":"invalid_request_error","param":"model","code":null}}"#
        ]],
    );
    let large = format!(r#"{{"model":"generate","prompt":"{}"}}"#, "a".repeat(20_000));
    refused(
        &large,
        &expect![[
            r#"400 {"error":{"message":"request JSON size of 20032 bytes exceeds the maximum allowed input size of 10000 bytes. Use --http-max-input-size to increase the limit.","type":"invalid_request_error","param":null,"code":null}}"#
        ]],
    );
}

#[test]
fn an_error_before_the_first_piece_has_a_status_and_one_after_it_is_an_event() {
    let failing = |said_before: bool| {
        model("generate", signature(TALKER), move |_| {
            let first = said_before.then(|| said("a", ""));
            all(first.into_iter().chain([Err(Error::internal("it broke"))]).collect())
        })
    };
    let body = r#"{"model":"generate","prompt":"p","stream":true}"#;
    check(
        front(vec![failing(false)]),
        PATH,
        body,
        &expect![[
            r#"500 {"error":{"message":"it broke","type":"server_error","param":null,"code":"internal"}}"#
        ]],
    );
    check(
        front(vec![failing(true)]),
        PATH,
        body,
        &expect![[r#"
        200 data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}]}

        data: {"error":{"message":"it broke","type":"server_error","param":null,"code":"internal"}}

    "#]],
    );
}

#[tokio::test]
async fn time_that_is_over_is_told_in_openais_shape() {
    let silent = model("generate", signature(TALKER), |_| Box::pin(stream::pending()));
    let headers = [("consort-timeout-ms", "30")];
    let body = r#"{"model":"generate","prompt":"p"}"#;
    let router = layered(front(vec![silent]));
    let reply = post_with(router, PATH, &headers, body).await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.json()["error"]["code"], "deadline_exceeded");
}

/// Counts itself as long as it is there.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A model that says `text` once and then thinks for ever; and how many of its calls run.
fn thinker(text: &'static str) -> (Arc<Served>, Arc<AtomicUsize>) {
    let running = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&running);
    let thinker = model("generate", signature(TALKER), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&count));
        let said = stream::iter([said(text, "")]).chain(stream::pending());
        Box::pin(said.inspect(move |_| {
            let _ = &running;
        }))
    });
    (thinker, running)
}

#[tokio::test]
async fn a_client_that_goes_away_stops_every_choice() {
    let (thinker, running) = thinker("a");
    let body = r#"{"model":"generate","prompt":["p","q"],"n":3,"stream":true}"#;
    let request = HttpRequest::post(PATH).body(Body::from(body)).unwrap();
    let response = front(vec![thinker]).oneshot(request).await.unwrap();
    assert_eq!(running.load(Ordering::SeqCst), 6);
    drop(response);
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_stop_word_stops_the_model() {
    let (thinker, running) = thinker("a END b");
    let body = r#"{"model":"generate","prompt":"p","stop":"END"}"#;
    let reply = post(front(vec![thinker]), PATH, body).await;
    assert_eq!(reply.json()["choices"][0]["text"], "a ");
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

#[test]
fn models_say_which_routes_they_are_for() {
    let models = || {
        let vectors = signature("8: text BYTES[1] -> embedding FP32[2]");
        front(vec![talker(&["x"], "stop"), echo(), model("embed", vectors, echo_back)])
    };
    let shown = |path: &str, expected: &Expect| {
        let reply = block_on(get(models(), path));
        expected.assert_eq(&format!("{} {}", reply.status.as_u16(), normal(reply.text())));
    };
    shown(
        "/v1/models",
        &expect![[
            r#"200 {"object":"list","data":[{"id":"generate","object":"model","owned_by":"consort","root":"generate","parent":null,"routes":["/v1/completions"]},{"id":"embed","object":"model","owned_by":"consort","root":"embed","parent":null,"routes":["/v1/embeddings"]}]}"#
        ]],
    );
    shown(
        "/v1/models/embed",
        &expect![[
            r#"200 {"id":"embed","object":"model","owned_by":"consort","root":"embed","parent":null,"routes":["/v1/embeddings"]}"#
        ]],
    );
    shown(
        "/v1/models/echo",
        &expect![[
            r#"404 {"error":{"message":"model `echo` neither continues text nor embeds it","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        ]],
    );
    shown(
        "/v1/models/none",
        &expect![[
            r#"404 {"error":{"message":"Request for unknown model: 'none' is not found","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        ]],
    );
}
