//! The log-probabilities of tokens in completions and chats.

use expect_test::expect;

use super::*;

const COMPLETIONS: &str = "/v1/completions";

/// What [`TALKER`] takes and gives, and what its steps tell of probabilities.
const ORACLE: &str = "1: text_input BYTES[1], stream BOOL[1]?, return_log_probs BOOL[1]?, \
     top_logprobs INT32[1]? ->> text_output BYTES[1], finish_reason BYTES[1], \
     output_tokens BYTES[-1], output_log_probs FP32[1,-1], top_logprob_tokens BYTES[-1,-1], \
     top_logprob_values FP32[-1,-1]";

/// Three tokens, the last two of which make a character, and one more in the place of each.
fn oracle() -> Arc<Served> {
    model("generate", signature(ORACLE), |request| {
        let asked = request.input("top_logprobs").map(|count| count.to_slice::<i32>().unwrap()[0]);
        assert!(request.input("return_log_probs").is_some());
        let others = asked.unwrap_or(0) > 0;
        assert_eq!(request.outputs.iter().any(|name| &**name == "top_logprob_tokens"), others);
        let said = |text: &str, token: &[u8], value: f32, finish: &str| {
            let mut outputs = vec![
                Tensor::from_strings("text_output", &[1, 1], &[text]),
                Tensor::from_strings("finish_reason", &[1, 1], &[finish]),
                Tensor::from_strings("output_tokens", &[1, 1], &[token]),
                Tensor::from_vec("output_log_probs", &[1, 1, 1], vec![value]),
            ];
            if others {
                let tokens: [&[u8]; 1] = [b"?"];
                outputs.push(Tensor::from_strings("top_logprob_tokens", &[1, 1, 1], &tokens));
                outputs.push(Tensor::from_vec("top_logprob_values", &[1, 1, 1], vec![-0.25_f32]));
            }
            Ok(Response { outputs, is_last: !finish.is_empty(), ..Response::default() })
        };
        let accent = "é".as_bytes();
        all(vec![
            said("a ", b"a ", -0.5, ""),
            said("", &accent[..1], -1.0, ""),
            said("é", &accent[1..], f32::NEG_INFINITY, "stop"),
        ])
    })
}

#[test]
fn a_completion_tells_its_tokens_with_the_others_in_their_places() {
    check(
        front(vec![oracle()]),
        COMPLETIONS,
        r#"{"model":"generate","prompt":"p","logprobs":1}"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"a é","logprobs":{"tokens":["a ","bytes:\\xc3","bytes:\\xa9"],"token_logprobs":[-0.5,-1.0,-9999.0],"top_logprobs":[{"?":-0.25,"a ":-0.5},{"?":-0.25,"bytes:\\xc3":-1.0},{"?":-0.25,"bytes:\\xa9":-9999.0}],"text_offset":[0,2,2]},"finish_reason":"stop"}]}"#
        ]],
    );
    check(
        front(vec![oracle()]),
        COMPLETIONS,
        r#"{"model":"generate","prompt":"p","logprobs":0,"stop":"é","stream":true}"#,
        &expect![[r#"
            200 data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"a ","logprobs":{"tokens":["a "],"token_logprobs":[-0.5],"top_logprobs":[{"a ":-0.5}],"text_offset":[0]},"finish_reason":null}]}

            data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}

            data: [DONE]

        "#]],
    );
}

#[test]
fn a_chat_tells_its_tokens_and_their_bytes() {
    let asked = |fields: &str, expected: &Expect| {
        let (router, _repository) = chat::templated(oracle(), Some("{{ messages[0].content }}"));
        let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
        let body = format!(r#"{{"model":"generate",{hi},{fields}}}"#);
        check(router, "/v1/chat/completions", &body, expected);
    };
    asked(
        r#""logprobs":true,"top_logprobs":1"#,
        &expect![[
            r#"200 {"id":"chatcmpl-","object":"chat.completion","model":"generate","choices":[{"index":0,"message":{"role":"assistant","content":"a é","refusal":null},"logprobs":{"content":[{"token":"a ","logprob":-0.5,"bytes":[97,32],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]}]},{"token":"\\xc3","logprob":-1.0,"bytes":[195],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]}]},{"token":"\\xa9","logprob":-9999.0,"bytes":[169],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]}]}],"refusal":null},"finish_reason":"stop"}]}"#
        ]],
    );
    asked(
        r#""logprobs":true,"stream":true"#,
        &expect![[r#"
        200 data: {"id":"chatcmpl-","object":"chat.completion.chunk","model":"generate","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}

        data: {"id":"chatcmpl-","object":"chat.completion.chunk","model":"generate","choices":[{"index":0,"delta":{"content":"a "},"logprobs":{"content":[{"token":"a ","logprob":-0.5,"bytes":[97,32],"top_logprobs":[]}],"refusal":null},"finish_reason":null}]}

        data: {"id":"chatcmpl-","object":"chat.completion.chunk","model":"generate","choices":[{"index":0,"delta":{"content":"é"},"logprobs":{"content":[{"token":"\\xc3","logprob":-1.0,"bytes":[195],"top_logprobs":[]},{"token":"\\xa9","logprob":-9999.0,"bytes":[169],"top_logprobs":[]}],"refusal":null},"finish_reason":null}]}

        data: {"id":"chatcmpl-","object":"chat.completion.chunk","model":"generate","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}

        data: [DONE]

    "#]],
    );
    asked(
        r#""top_logprobs":1"#,
        &expect![[
            r#"400 {"error":{"message":"`top_logprobs` is for requests with `logprobs` set to true","type":"invalid_request_error","param":"top_logprobs","code":null}}"#
        ]],
    );
}

#[test]
fn probabilities_that_no_step_tells_are_refused() {
    let refused = |served: Arc<Served>, fields: &str, expected: &Expect| {
        let body = format!(r#"{{"model":"generate","prompt":"p",{fields}}}"#);
        check(front(vec![served]), COMPLETIONS, &body, expected);
    };
    refused(
        talker(&["x"], "stop"),
        r#""logprobs":1"#,
        &expect![[
            r#"400 {"error":{"message":"`logprobs` has no effect on model `generate`, which has no input `return_log_probs`","type":"invalid_request_error","param":"logprobs","code":null}}"#
        ]],
    );
    let silent = "1: text_input BYTES[1], return_log_probs BOOL[1]? ->> text_output BYTES[1]";
    let silent = model("generate", signature(silent), |_| all(vec![said("x", "stop")]));
    refused(
        silent,
        r#""logprobs":0"#,
        &expect![[
            r#"400 {"error":{"message":"`logprobs` is not supported: no step of the model gives `output_tokens`","type":"invalid_request_error","param":"logprobs","code":null}}"#
        ]],
    );
    refused(
        oracle(),
        r#""logprobs":1,"echo":true"#,
        &expect![[
            r#"400 {"error":{"message":"`logprobs` is not supported with `echo`: models tell no probabilities of a prompt","type":"invalid_request_error","param":"logprobs","code":null}}"#
        ]],
    );
    refused(
        oracle(),
        r#""logprobs":21"#,
        &expect![[
            r#"400 {"error":{"message":"`logprobs` must be between 0 and 20, not 21","type":"invalid_request_error","param":"logprobs","code":null}}"#
        ]],
    );
    refused(
        oracle(),
        r#""logprobs":true"#,
        &expect![[
            r#"400 {"error":{"message":"`logprobs` must be a whole number, not a boolean","type":"invalid_request_error","param":"logprobs","code":null}}"#
        ]],
    );
}
