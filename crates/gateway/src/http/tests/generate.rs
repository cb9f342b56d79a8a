//! `/generate` and `/generate_stream`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use consort_stage::{Code, Parameter, Tensor};
use futures::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use super::*;

#[expect(clippy::unnecessary_wraps, reason = "it stands in lists beside errors")]
fn said(text: &str) -> Result<Response> {
    let text = Tensor::from_strings("text_output", &[1, 1], &[text]);
    Ok(Response { outputs: vec![text], ..Response::default() })
}

#[expect(clippy::unnecessary_wraps, reason = "it stands in lists beside errors")]
fn last() -> Result<Response> {
    Ok(Response { is_last: true, ..Response::default() })
}

/// A language model called `generate` that answers so.
fn language_model<F>(answer: F) -> Router
where
    F: Fn(Request) -> Responses + Send + Sync + 'static,
{
    front(vec![model("generate", language(true), answer)])
}

/// A model whose inputs and parameters the test sees.
fn spied(signature: Signature) -> (Router, Arc<Mutex<Request>>) {
    let seen = Arc::new(Mutex::new(Request::default()));
    let place = Arc::clone(&seen);
    let router = front(vec![model("generate", signature, move |request| {
        *place.lock().unwrap() = request;
        all(vec![said("hi")])
    })]);
    (router, seen)
}

#[tokio::test]
async fn a_question_is_answered_at_every_route() {
    for path in
        ["/generate", "/v2/models/generate/generate", "/v2/models/generate/versions/3/generate"]
    {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let router = language_model(|_| all(vec![said("an \"answer\""), last()]));
        let body = r#"{"id":"7","text_input":"a question"}"#;
        let reply = post_with(router, path, &form, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(
            reply.text(),
            r#"{"id":"7","model_name":"generate","model_version":"3","text_output":"an \"answer\""}"#
        );
        reply.json();
    }
}

#[tokio::test]
async fn members_become_inputs_or_parameters() {
    let (router, seen) = spied(language(true));
    let body = r#"{"text_input":"q","parameters":{"max_tokens":7,"temperature":0.5},
        "sequence_id":9,"name":"n","flag":true}"#;
    assert_eq!(post(router, "/generate", body).await.status, 200);
    let request = seen.lock().unwrap();
    let text = request.input("text_input").unwrap();
    assert_eq!((&*text.shape, text.to_strings().unwrap()), (&[1, 1][..], vec![&b"q"[..]]));
    let tokens = request.input("max_tokens").unwrap();
    assert_eq!((&*tokens.shape, &*tokens.to_slice::<i32>().unwrap()), (&[1, 1][..], &[7][..]));
    assert_eq!(request.inputs.len(), 2);
    let expected = [
        ("flag".to_owned(), Parameter::Bool(true)),
        ("name".to_owned(), Parameter::String("n".into())),
        ("sequence_id".to_owned(), Parameter::Int(9)),
        ("temperature".to_owned(), Parameter::Double(0.5)),
    ];
    assert_eq!(request.parameters, expected.into());
    assert_eq!(request.id, "");
}

#[tokio::test]
async fn a_stream_is_asked_for_when_the_request_leaves_it_open() {
    let stream_of = |request: &Request| request.input("stream").map(|input| input.data[0]);
    for (path, body, expected) in [
        ("/generate_stream", r#"{"text_input":"q"}"#, Some(1)),
        ("/generate_stream", r#"{"text_input":"q","stream":false}"#, Some(0)),
        ("/generate", r#"{"text_input":"q"}"#, None),
    ] {
        let (router, seen) = spied(language(true));
        post(router, path, body).await;
        assert_eq!(stream_of(&seen.lock().unwrap()), expected);
    }
    let mut required = language(true);
    required.inputs[2].is_optional = false;
    let (router, seen) = spied(required);
    post(router, "/generate_stream", r#"{"text_input":"q"}"#).await;
    assert_eq!(stream_of(&seen.lock().unwrap()), None);
}

#[tokio::test]
async fn tensors_of_one_element_are_scalars_and_others_are_lists() {
    let router = language_model(|_| {
        let mut response = said("a").unwrap();
        response.outputs.push(Tensor::from_vec("b", &[1, 2], vec![1_i64, 2]));
        response.outputs.push(Tensor::from_vec::<f32>("c", &[1, 0], vec![]));
        response.parameters.insert("d".into(), Parameter::Bool(true));
        all(vec![Ok(response)])
    });
    let reply = post(router, "/generate", r#"{"text_input":"q"}"#).await.json();
    assert_eq!(reply["text_output"], "a");
    assert_eq!(reply["b"], json!([1, 2]));
    assert_eq!(reply["c"], json!([]));
    assert_eq!(reply["d"], true);
    let keys: Vec<_> = reply.as_object().unwrap().keys().collect();
    assert!(keys.is_sorted(), "{keys:?}");
}

#[tokio::test]
async fn a_wrong_question_gets_a_plain_error_from_both_endpoints() {
    for path in ["/generate", "/generate_stream"] {
        let refused = async |body: &str, status: u16, text: &str| {
            let router = language_model(|_| all(vec![said("hi")]));
            let reply = post(router, path, body.to_owned()).await;
            assert_eq!(reply.status, status, "{body}");
            assert!(reply.error().contains(text), "{body}: {}", reply.error());
        };
        refused("{", 500, "failed to parse the request JSON buffer: ").await;
        refused(r#"{"text_input":5}"#, 500, "attempt to access JSON non-string as string").await;
        refused(r#"{"text_input":[["q"]]}"#, 500, "non-string as string").await;
        refused(r#"{"id":5}"#, 500, "attempt to access JSON non-string as string").await;
        let text = "Expected JSON object for keyword: 'parameters': ";
        refused(r#"{"parameters":5}"#, 400, text).await;
        refused(r#"{"x":[1]}"#, 400, "parameter 'x' has invalid type").await;
        refused(r#"{"x":{"y":1}}"#, 400, "parameter 'x' has invalid type").await;
        refused(r#"{"triton_x":1}"#, 400, "reserved for Triton usage").await;
        let text = "input 'text_input' already exists in request";
        refused(r#"{"text_input":"q","parameters":{"text_input":"q"}}"#, 400, text).await;
    }
    let router = front(vec![one_input("generate", DataType::Int8, &[2], 0)]);
    let reply = post(router, "/generate", r#"{"x":[1,2,3]}"#).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.error(), "The schema can not convert input 'x' to tensor with proper shape");
}

#[tokio::test]
async fn a_compressed_question_is_refused() {
    let router = language_model(|_| all(vec![said("hi")]));
    let reply = post_with(router, "/generate", &[("content-encoding", "gzip")], "").await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.error(), "Unsupported content-encoding, only 'identity' is supported.");
}

#[tokio::test]
async fn a_whole_answer_is_one_response() {
    let text = "generate expects model to produce exactly 1 response, use generate stream for \
                model that generates various number of responses";
    for responses in [vec![], vec![last()], vec![said("a"), said("b")]] {
        let responses = Mutex::new(Some(responses));
        let router = language_model(move |_| all(responses.lock().unwrap().take().unwrap()));
        let reply = post(router, "/generate", r#"{"text_input":"q"}"#).await;
        assert_eq!(reply.status, 500);
        assert_eq!(reply.error(), text);
    }
}

#[tokio::test]
async fn every_response_is_an_event_and_the_last_flag_is_none() {
    let router = language_model(|_| all(vec![said("a"), said("b\n"), last()]));
    let reply = post(router, "/generate_stream", r#"{"text_input":"q"}"#).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(
        reply.text(),
        "data: {\"model_name\":\"generate\",\"model_version\":\"3\",\"text_output\":\"a\"}\n\n\
         data: {\"model_name\":\"generate\",\"model_version\":\"3\",\"text_output\":\"b\\n\"}\n\n"
    );
}

#[tokio::test]
async fn the_first_response_decides_the_status_of_a_stream() {
    let router = language_model(|_| all(vec![Err(Error::unavailable("gone"))]));
    let reply = post(router, "/generate_stream", r#"{"text_input":"q"}"#).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(reply.text(), "data: {\"error\":\"gone\"}\n\n");
    let router = language_model(|_| all(vec![said("a"), Err(Error::unavailable("gone"))]));
    let reply = post(router, "/generate_stream", r#"{"text_input":"q"}"#).await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().ends_with("}\n\ndata: {\"error\":\"gone\"}\n\n"));
}

#[tokio::test]
async fn a_question_that_the_model_cannot_take_gets_a_plain_error_from_a_stream() {
    let text = "expected 1 inputs but got 0 inputs";
    for (code, status) in [(Code::InvalidInput, 400), (Code::Unsupported, 501)] {
        let router = language_model(move |_| all(vec![Err(Error::new(code, text))]));
        let reply = post(router, "/generate_stream", "{}").await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.headers["content-type"], "application/json");
        assert_eq!(reply.error(), text);
    }
}

#[tokio::test]
async fn an_event_is_sent_before_the_next_response_is_made() {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = Mutex::new(Some(receiver));
    let router = language_model(move |_| {
        let receiver: tokio::sync::mpsc::Receiver<_> = receiver.lock().unwrap().take().unwrap();
        Box::pin(stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        }))
    });
    sender.send(said("first")).await.unwrap();
    let request = HttpRequest::post("/generate_stream").body(Body::from(r#"{"text_input":"q"}"#));
    let response = router.oneshot(request.unwrap()).await.unwrap();
    let mut events = response.into_body().into_data_stream();
    let event = events.next().await.unwrap().unwrap();
    assert!(event.ends_with(b"\"text_output\":\"first\"}\n\n"));
    sender.send(said("second")).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert!(event.ends_with(b"\"text_output\":\"second\"}\n\n"));
    drop(sender);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_goes_away_drops_the_call() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let is_dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_dropped);
    let router = language_model(move |_| {
        let flag = Flag(Arc::clone(&flag));
        let first = stream::iter([said("first")]);
        Box::pin(first.chain(stream::pending()).inspect(move |_| {
            let _ = &flag;
        }))
    });
    let request = HttpRequest::post("/generate_stream").body(Body::from(r#"{"text_input":"q"}"#));
    let response = router.oneshot(request.unwrap()).await.unwrap();
    assert!(!is_dropped.load(Ordering::SeqCst));
    drop(response);
    assert!(is_dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_stream_that_is_out_of_time_says_so() {
    let never_ready = |_| Box::pin(stream::iter([said("hi")]).chain(stream::pending())) as _;
    let always_ready = |_| Box::pin(stream::repeat_with(|| said("hi"))) as _;
    for router in [language_model(never_ready), language_model(always_ready)] {
        let headers = [("consort-timeout-ms", "50")];
        let body = r#"{"text_input":"q"}"#;
        let reply = post_with(layered(router), "/generate_stream", &headers, body).await;
        assert_eq!(reply.status, 200);
        let end = "\"hi\"}\n\ndata: {\"error\":\"request deadline exceeded\"}\n\n";
        assert!(reply.text().ends_with(end), "{}", reply.text());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_all_the_time_until_its_deadline() {
    let router = language_model(|_| {
        let late = async {
            tokio::time::sleep(Duration::from_millis(99)).await;
            said("late")
        };
        Box::pin(stream::once(late).chain(stream::pending()))
    });
    let headers = [("consort-timeout-ms", "100")];
    let begun_at = Instant::now();
    let body = r#"{"text_input":"q"}"#;
    let reply = post_with(layered(router), "/generate_stream", &headers, body).await;
    assert_eq!(begun_at.elapsed(), Duration::from_millis(100));
    let end = "\"late\"}\n\ndata: {\"error\":\"request deadline exceeded\"}\n\n";
    assert!(reply.text().ends_with(end), "{}", reply.text());
}
