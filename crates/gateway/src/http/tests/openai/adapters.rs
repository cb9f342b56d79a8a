//! Adapters: how they are listed, and how requests name them.

use consort_protocol::ModelParameter;
use expect_test::expect;

use super::*;

const PATH: &str = "/v1/completions";

/// A model that says which adapter it was asked for, and tells that it has these.
fn adapted(name: &str, adapters: &str) -> Arc<Served> {
    let takes = "text_input BYTES[1], lora_name BYTES[1]? ->> text_output BYTES[1]";
    let served = model(name, signature(takes), |request| {
        let named =
            request.input("lora_name").map_or(&b"none"[..], |name| name.to_strings().unwrap()[0]);
        let text = Tensor::from_strings("text_output", &[1], &[named]);
        all(vec![Ok(Response::only(vec![text]))])
    });
    let told = ModelParameter { string_value: adapters.into() };
    let mut served = Served::clone(&served);
    Arc::make_mut(&mut served.config).parameters.insert("adapters".into(), told);
    Arc::new(served)
}

/// The status, and the text or the error, of a completion by the model of this name.
fn said(models: Vec<Arc<Served>>, name: &str) -> String {
    let body = format!(r#"{{"model":"{name}","prompt":"p"}}"#);
    let reply = block_on(post(front(models), PATH, body));
    let json: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
    let text = &json["choices"][0]["text"];
    let shown = if text.is_null() { &json["error"]["message"] } else { text };
    format!("{} {}", reply.status.as_u16(), shown.as_str().unwrap())
}

#[test]
fn an_adapter_is_asked_for_by_its_name_or_by_both_names() {
    let models = || vec![adapted("generate", "one, two"), talker(&["x"], "stop")];
    assert_eq!(said(models(), "two"), "200 two");
    assert_eq!(said(models(), "generate:one"), "200 one");
    assert_eq!(said(models(), "generate"), "200 none");
}

#[test]
fn a_name_that_is_no_adapters_is_not_found() {
    let models = || vec![adapted("generate", "one,two")];
    assert_eq!(said(models(), "three"), "404 Request for unknown model: 'three' is not found");
    assert_eq!(
        said(models(), "generate:three"),
        "404 model `generate` has no adapter `three`; it has `one`, `two`"
    );
    assert_eq!(
        said(vec![talker(&["x"], "stop")], "generate:one"),
        "404 model `generate` has no adapter `one`; it has none"
    );
}

#[test]
fn a_name_that_several_have_must_say_whose() {
    let models = || vec![adapted("chat", "one"), adapted("generate", "one")];
    assert_eq!(
        said(models(), "one"),
        "400 `one` is an adapter of several models: say `chat:one`, `generate:one`"
    );
    assert_eq!(said(models(), "chat:one"), "200 one");
    let shadowed = vec![adapted("generate", "one"), adapted("one", "")];
    assert_eq!(said(shadowed, "one"), "200 none");
}

#[test]
fn the_answer_has_the_name_that_was_asked_for_and_a_second_adapter_is_refused() {
    let router = || front(vec![adapted("generate", "one")]);
    check(
        router(),
        PATH,
        r#"{"model":"one","prompt":"p"}"#,
        &expect![[
            r#"200 {"id":"cmpl-","object":"text_completion","model":"one","choices":[{"index":0,"text":"one","logprobs":null,"finish_reason":"stop"}]}"#
        ]],
    );
    check(
        router(),
        PATH,
        r#"{"model":"one","prompt":"p","lora_name":"two"}"#,
        &expect![[
            r#"400 {"error":{"message":"Unrecognized request argument supplied: lora_name","type":"invalid_request_error","param":"lora_name","code":null}}"#
        ]],
    );
}

#[test]
fn adapters_are_listed_with_their_models() {
    let models = vec![adapted("chat", "one"), adapted("generate", "one,two,chat")];
    let reply = block_on(get(front(models), "/v1/models"));
    let json: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
    let row =
        |card: &serde_json::Value| format!("{} {} {}", card["id"], card["root"], card["parent"]);
    let rows: Vec<_> = json["data"].as_array().unwrap().iter().map(row).collect();
    let expected = [
        r#""chat" "chat" null"#,
        r#""generate" "generate" null"#,
        r#""chat:one" "chat" "chat""#,
        r#""generate:one" "generate" "generate""#,
        r#""two" "generate" "generate""#,
        r#""generate:chat" "generate" "generate""#,
    ];
    assert_eq!(rows, expected);
    let one = block_on(get(front(vec![adapted("generate", "one")]), "/v1/models/one"));
    assert_eq!(one.status, 200, "{}", one.text());
    assert!(one.text().contains(r#""parent":"generate""#), "{}", one.text());
    let none = block_on(get(front(vec![adapted("generate", "one")]), "/v1/models/two"));
    assert_eq!(none.status, 404, "{}", none.text());
}
