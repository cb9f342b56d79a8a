//! The log-probabilities of tokens in completions and chats.

use expect_test::expect;
use futures::channel::oneshot;
use futures::{FutureExt, StreamExt};

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

/// What [`reader`] takes and gives: what [`ORACLE`] does, and the same of prompts.
const READER: &str = "1: text_input BYTES[1], prompt_token_ids INT32[-1]?, stream BOOL[1]?, \
     max_tokens INT32[1]?, end_id INT32[1]?, return_log_probs BOOL[1]?, top_logprobs INT32[1]?, \
     prompt_logprobs INT32[1]? ->> text_output BYTES[1], finish_reason BYTES[1], \
     input_ids INT32[-1], output_ids INT32[-1], output_tokens BYTES[-1], \
     output_log_probs FP32[1,-1], top_logprob_tokens BYTES[-1,-1], \
     top_logprob_values FP32[-1,-1], prompt_tokens BYTES[-1], prompt_log_probs FP32[-1], \
     prompt_top_logprob_tokens BYTES[-1,-1], prompt_top_logprob_values FP32[-1,-1]";

/// Finds a begin token, `é ` and `fg` in every prompt, and continues it with `!`, unless it is to
/// add nothing; remembers what its inputs said.
fn reader(seen: &Arc<Mutex<Vec<String>>>) -> Arc<Served> {
    let seen = Arc::clone(seen);
    model("generate", signature(READER), move |request| {
        let number = |name: &str| Some(request.input(name)?.to_slice::<i32>().ok()?.to_vec());
        let text = request.input("text_input").unwrap().to_strings().unwrap()[0].to_vec();
        let named = ["prompt_token_ids", "max_tokens", "end_id", "prompt_logprobs"].map(number);
        seen.lock().unwrap().push(format!("{} {named:?}", String::from_utf8(text).unwrap()));
        let adds = named[1] != Some(vec![0]);
        let alternatives = named[3].as_ref().map(|count| count[0] as usize);
        let is_asked = request.outputs.iter().any(|name| &**name == "prompt_tokens");
        assert_eq!(is_asked, alternatives.is_some());
        let new: &[&str] = if adds { &["!"] } else { &[] };
        let count = new.len() as i64;
        let tokens: [&[u8]; 4] = [b"<s>", &[0xc3], &[0xa9, b' '], b"fg"];
        let mut outputs = vec![
            Tensor::from_strings("text_output", &[1, 1], &[new.concat()]),
            Tensor::from_strings("finish_reason", &[1, 1], &["length"]),
            Tensor::from_vec("input_ids", &[1, 4], vec![1, 5, 6, 7]),
            Tensor::from_vec("output_ids", &[1, count], vec![9; new.len()]),
        ];
        if let Some(alternatives) = alternatives {
            let others: Vec<_> = (0..3 * alternatives).map(|_| "?").collect();
            let shape = [1, 3, alternatives as i64];
            let values = vec![-9.0_f32; others.len()];
            outputs.extend([
                Tensor::from_strings("prompt_tokens", &[1, 4], &tokens),
                Tensor::from_vec("prompt_log_probs", &[1, 3], vec![-0.5_f32, -1.5, -2.5]),
                Tensor::from_strings("prompt_top_logprob_tokens", &shape, &others),
                Tensor::from_vec("prompt_top_logprob_values", &shape, values),
            ]);
        }
        if request.input("return_log_probs").is_some() {
            outputs.push(Tensor::from_strings("output_tokens", &[1, count], new));
            let values = vec![-3.5_f32; new.len()];
            outputs.push(Tensor::from_vec("output_log_probs", &[1, 1, count], values));
        }
        all(vec![Ok(Response { outputs, is_last: true, ..Response::default() })])
    })
}

#[test]
fn an_echo_tells_the_tokens_of_its_prompt() {
    let seen = Arc::default();
    let asked = |fields: &str, expected: &Expect| {
        let body = format!(r#"{{"model":"generate",{fields}}}"#);
        check(front(vec![reader(&seen)]), COMPLETIONS, &body, expected);
    };
    // As evaluation harnesses ask.
    asked(
        r#""prompt":[[1,5,6,7]],"echo":true,"max_tokens":1,"logprobs":1"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"<s>é fg!","logprobs":{"tokens":["<s>","bytes:\\xc3","bytes:\\xa9 ","fg","!"],"token_logprobs":[null,-0.5,-1.5,-2.5,-3.5],"top_logprobs":[null,{"?":-9.0,"bytes:\\xc3":-0.5},{"?":-9.0,"bytes:\\xa9 ":-1.5},{"?":-9.0,"fg":-2.5},{"!":-3.5}],"text_offset":[0,3,3,5,7]},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":1,"total_tokens":5}}"#
        ]],
    );
    asked(
        r#""prompt":"é fg","echo":true,"max_tokens":0,"logprobs":0"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"é fg","logprobs":{"tokens":["<s>","bytes:\\xc3","bytes:\\xa9 ","fg"],"token_logprobs":[null,-0.5,-1.5,-2.5],"top_logprobs":[null,{"bytes:\\xc3":-0.5},{"bytes:\\xa9 ":-1.5},{"fg":-2.5}],"text_offset":[0,0,0,2]},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":0,"total_tokens":4}}"#
        ]],
    );
    asked(
        r#""prompt":"é fg","echo":true,"max_tokens":2,"logprobs":0,"stream":true"#,
        &expect![[r#"
        200 data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"é fg!","logprobs":{"tokens":["<s>","bytes:\\xc3","bytes:\\xa9 ","fg","!"],"token_logprobs":[null,-0.5,-1.5,-2.5,-3.5],"top_logprobs":[null,{"bytes:\\xc3":-0.5},{"bytes:\\xa9 ":-1.5},{"fg":-2.5},{"!":-3.5}],"text_offset":[0,0,0,2,4]},"finish_reason":null}]}

        data: {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}

        data: [DONE]

    "#]],
    );
    // The text of a prompt of tokens, and nothing behind a prompt.
    asked(
        r#""prompt":[1,5,6,7],"echo":true,"max_tokens":3"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"<s>é fg!","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":1,"total_tokens":5}}"#
        ]],
    );
    asked(
        r#""prompt":["é fg"],"echo":true,"max_tokens":0,"n":2"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"é fg","logprobs":null,"finish_reason":"length"},{"index":1,"text":"é fg","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":0,"total_tokens":4}}"#
        ]],
    );
    // A single token that nothing is told of ends the text where it does.
    asked(
        r#""prompt":[1,5,6,7],"echo":true,"max_tokens":1"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"<s>é fg!","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":1,"total_tokens":5}}"#
        ]],
    );
    // An end that the request names stays.
    asked(
        r#""prompt":"é fg","echo":true,"max_tokens":1,"logprobs":0,"end_id":3"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"é fg!","logprobs":{"tokens":["<s>","bytes:\\xc3","bytes:\\xa9 ","fg","!"],"token_logprobs":[null,-0.5,-1.5,-2.5,-3.5],"top_logprobs":[null,{"bytes:\\xc3":-0.5},{"bytes:\\xa9 ":-1.5},{"fg":-2.5},{"!":-3.5}],"text_offset":[0,0,0,2,4]},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":1,"total_tokens":5}}"#
        ]],
    );
    expect![[r"
         [Some([1, 5, 6, 7]), Some([1]), Some([-1]), Some([1])]
        é fg [None, Some([0]), None, Some([0])]
        é fg [None, Some([2]), None, Some([0])]
         [Some([1, 5, 6, 7]), Some([3]), None, Some([0])]
        é fg [None, Some([0]), None, Some([0])]
        é fg [None, Some([0]), None, Some([0])]
         [Some([1, 5, 6, 7]), Some([1]), None, Some([0])]
        é fg [None, Some([1]), Some([3]), Some([0])]"]]
    .assert_eq(&seen.lock().unwrap().join("\n"));
}

/// A model that tells one text of its prompt when another has ended, or fails it then.
fn late(fails: bool) -> Arc<Served> {
    let (sender, receiver) = oneshot::channel::<()>();
    let (sender, receiver) = (Mutex::new(Some(sender)), receiver.shared());
    model("generate", signature(READER), move |request| {
        let said = |text: &str, is_last| {
            let outputs = vec![
                Tensor::from_strings("text_output", &[1, 1], &[text]),
                Tensor::from_strings("output_tokens", &[1, 1], &[text]),
                Tensor::from_vec("output_log_probs", &[1, 1, 1], vec![-1.0_f32]),
            ];
            Response { outputs, is_last, ..Response::default() }
        };
        if request.input("prompt_logprobs").is_none() {
            let sender = sender.lock().unwrap().take();
            let last = move || {
                drop(sender);
                Ok(said("c", true))
            };
            let pieces = stream::iter([Ok(said("b", false))]);
            return Box::pin(pieces.chain(stream::once(async move { last() })));
        }
        let receiver = receiver.clone();
        one(async move {
            let _ = receiver.await;
            if fails {
                return Err(Error::unavailable("nobody can tell"));
            }
            let mut told = said("a", true);
            told.outputs.push(Tensor::from_strings("prompt_tokens", &[1, 2], &["é ", "f"]));
            told.outputs.push(Tensor::from_vec("prompt_log_probs", &[1, 1], vec![-0.5_f32]));
            Ok(told)
        })
    })
}

#[test]
fn one_choice_is_told_of_the_prompt_and_the_others_begin_with_the_same() {
    let seen = Arc::default();
    let fields = r#""prompt":"é fg","echo":true,"max_tokens":1,"logprobs":0,"n":2"#;
    check(
        front(vec![reader(&seen)]),
        COMPLETIONS,
        &format!(r#"{{"model":"generate",{fields}}}"#),
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"generate","choices":[{"index":0,"text":"é fg!","logprobs":{"tokens":["<s>","bytes:\\xc3","bytes:\\xa9 ","fg","!"],"token_logprobs":[null,-0.5,-1.5,-2.5,-3.5],"top_logprobs":[null,{"bytes:\\xc3":-0.5},{"bytes:\\xa9 ":-1.5},{"fg":-2.5},{"!":-3.5}],"text_offset":[0,0,0,2,4]},"finish_reason":"length"},{"index":1,"text":"é fg!","logprobs":{"tokens":["<s>","bytes:\\xc3","bytes:\\xa9 ","fg","!"],"token_logprobs":[null,-0.5,-1.5,-2.5,-3.5],"top_logprobs":[null,{"bytes:\\xc3":-0.5},{"bytes:\\xa9 ":-1.5},{"fg":-2.5},{"!":-3.5}],"text_offset":[0,0,0,2,4]},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}"#
        ]],
    );
    expect![[r"
        é fg [None, Some([1]), Some([-1]), Some([0])]
        é fg [None, Some([1]), Some([-1]), None]"]]
    .assert_eq(&seen.lock().unwrap().join("\n"));
    let fields = r#""prompt":"é f","echo":true,"max_tokens":2,"logprobs":0,"n":2"#;
    for is_streaming in [false, true] {
        let body = format!(r#"{{"model":"generate",{fields},"stream":{is_streaming}}}"#);
        let reply = block_on(post(layered(front(vec![late(false)])), COMPLETIONS, body.clone()));
        let reply = reply.text();
        assert!(
            reply.contains(r#""text":"é fbc""#) && reply.contains(r#""text":"é fa""#),
            "{reply}"
        );
        let tokens = r#""tokens":["é ","f","b","c"],"token_logprobs":[null,-0.5,-1.0,-1.0]"#;
        assert!(reply.contains(tokens) && reply.contains("[0,2,3,4]"), "{reply}");
        let failed = block_on(post(layered(front(vec![late(true)])), COMPLETIONS, body));
        assert_eq!(failed.status.as_u16(), 503);
        assert!(failed.text().contains("nobody can tell"), "{}", failed.text());
    }
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
            r#"400 {"error":{"message":"`logprobs` has no effect on model `generate`, which has no input `prompt_logprobs`","type":"invalid_request_error","param":"logprobs","code":null}}"#
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
