//! `/v1/chat/completions`.

use std::fs;

use expect_test::expect;
use tempfile::TempDir;

use super::*;

const PATH: &str = "/v1/chat/completions";

/// Shows what a template is told.
const TEMPLATE: &str = "{% for message in messages %}{{ message.role }}:{{ message.content }};\
     {% endfor %}{% if tools %}{{ tools | length }} tools{% endif %}{{ mood }}";

/// A front over a model `generate` that repeats its prompt, with this template in its folder.
fn parrot(template: Option<&str>) -> (Router, TempDir) {
    let parrot = model("generate", signature(TALKER), |request| {
        let prompt = request.input("text_input").unwrap().to_strings().unwrap();
        all(vec![said(std::str::from_utf8(prompt[0]).unwrap(), "stop")])
    });
    templated(parrot, template)
}

/// A front over a model `generate` with this template in its folder.
pub(super) fn templated(served: Arc<Served>, template: Option<&str>) -> (Router, TempDir) {
    let repository = TempDir::new().unwrap();
    fs::create_dir(repository.path().join("generate")).unwrap();
    if let Some(template) = template {
        let file = repository.path().join("generate/chat_template.jinja");
        fs::write(file, template).unwrap();
    }
    let shelf = Shelf { models: vec![served], is_ready: true };
    let model_repositories = vec![repository.path().to_owned()];
    let options = Options { model_repositories, ..Options::default() };
    (router(Arc::new(shelf), options), repository)
}

fn check_chat(fields: &str, expected: &Expect) {
    let (router, _repository) = parrot(Some(TEMPLATE));
    let body = format!(r#"{{"model":"generate",{fields}}}"#);
    check(router, PATH, &body, expected);
}

#[test]
fn the_template_makes_the_prompt() {
    check_chat(
        r#""messages":[{"role":"developer","content":"be kind"},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
            "tools":[{"type":"function"}],"chat_template_kwargs":{"mood":"!"}"#,
        &expect![[
            r#"200 {"id":"chatcmpl-","object":"chat.completion","model":"generate","choices":[{"index":0,"message":{"role":"assistant","content":"developer:be kind;user:a\nb;1 tools!","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#
        ]],
    );
}

#[test]
fn the_role_comes_first_in_a_stream() {
    check_chat(
        r#""messages":[{"role":"user","content":"hi"}],"stream":true"#,
        &expect![[r#"
        200 data: {"id":"chatcmpl-","object":"chat.completion.chunk","model":"generate","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}

        data: {"id":"chatcmpl-","object":"chat.completion.chunk","model":"generate","choices":[{"index":0,"delta":{"content":"user:hi;"},"logprobs":null,"finish_reason":null}]}

        data: {"id":"chatcmpl-","object":"chat.completion.chunk","model":"generate","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}

        data: [DONE]

    "#]],
    );
}

#[test]
fn tools_that_must_not_be_called_are_not_told() {
    check_chat(
        r#""messages":[{"role":"user","content":"hi"}],"tools":[{}],"tool_choice":"none""#,
        &expect![[
            r#"200 {"id":"chatcmpl-","object":"chat.completion","model":"generate","choices":[{"index":0,"message":{"role":"assistant","content":"user:hi;","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#
        ]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn what_is_wrong_is_refused_by_the_name_of_its_field() {
    let refused = |fields: &str, expected| check_chat(fields, expected);
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    refused(
        r#""n":1"#,
        &expect![[
            r#"400 {"error":{"message":"`messages` is missing","type":"invalid_request_error","param":"messages","code":null}}"#
        ]],
    );
    refused(
        r#""messages":"hi""#,
        &expect![[
            r#"400 {"error":{"message":"`messages` must be a list of messages, not a string","type":"invalid_request_error","param":"messages","code":null}}"#
        ]],
    );
    refused(
        r#""messages":[]"#,
        &expect![[
            r#"400 {"error":{"message":"`messages` is an empty list","type":"invalid_request_error","param":"messages","code":null}}"#
        ]],
    );
    refused(
        r#""messages":["hi"]"#,
        &expect![[
            r#"400 {"error":{"message":"`messages[0]` must be an object, not a string","type":"invalid_request_error","param":"messages[0]","code":null}}"#
        ]],
    );
    refused(
        r#""messages":[{"role":"ghost","content":"boo"}]"#,
        &expect![[
            r#"400 {"error":{"message":"`messages[0].role` must be one of system, developer, user, assistant, tool","type":"invalid_request_error","param":"messages[0].role","code":null}}"#
        ]],
    );
    refused(
        r#""messages":[{"role":"user"}]"#,
        &expect![[
            r#"400 {"error":{"message":"`messages[0].content` is missing","type":"invalid_request_error","param":"messages[0].content","code":null}}"#
        ]],
    );
    refused(
        r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
        &expect![[
            r#"400 {"error":{"message":"`messages[0].content[0]` must be a part of type `text`: models here read text alone","type":"invalid_request_error","param":"messages[0].content[0]","code":null}}"#
        ]],
    );
    refused(
        &format!(r#"{hi},"tool_choice":"required""#),
        &expect![[
            r#"400 {"error":{"message":"`tool_choice` must be `none` or `auto`: a model cannot be made to call one","type":"invalid_request_error","param":"tool_choice","code":null}}"#
        ]],
    );
    refused(
        &format!(r#"{hi},"modalities":["audio"]"#),
        &expect![[
            r#"400 {"error":{"message":"`modalities` must be `[\"text\"]`: the models of this server speak in text","type":"invalid_request_error","param":"modalities","code":null}}"#
        ]],
    );
    refused(
        &format!(r#"{hi},"max_completion_tokens":1.5"#),
        &expect![[
            r#"400 {"error":{"message":"`max_completion_tokens` must be a whole number, not a number with a fraction","type":"invalid_request_error","param":"max_completion_tokens","code":null}}"#
        ]],
    );
}

#[test]
fn a_missing_a_broken_and_a_refusing_template_are_told_apart() {
    let body = r#"{"model":"generate","messages":[{"role":"user","content":"hi"}]}"#;
    let refused = |template, expected| {
        let (router, _repository) = parrot(template);
        check(router, PATH, body, expected);
    };
    refused(
        None,
        &expect![[
            r#"400 {"error":{"message":"model `generate` has no chat template: put a file `chat_template.jinja` into its folder","type":"invalid_request_error","param":"model","code":null}}"#
        ]],
    );
    refused(
        Some("{% if %}"),
        &expect![[
            r#"400 {"error":{"message":"the chat template of model `generate` cannot be read: unexpected end of block (line 1)","type":"invalid_request_error","param":"model","code":null}}"#
        ]],
    );
    refused(
        Some("{{ raise_exception('no system message') }}"),
        &expect![[
            r#"400 {"error":{"message":"the chat template of model `generate` refuses the messages: no system message","type":"invalid_request_error","param":"messages","code":null}}"#
        ]],
    );
}

#[test]
fn a_template_that_comes_later_is_found() {
    let (router, repository) = parrot(None);
    let ask = || {
        let body = r#"{"model":"generate","messages":[{"role":"user","content":"hi"}]}"#;
        block_on(post(router.clone(), PATH, body)).status
    };
    assert_eq!(ask(), 400);
    let file = repository.path().join("generate/chat_template.jinja");
    fs::write(&file, "{{ unfinished").unwrap();
    assert_eq!(ask(), 400);
    fs::write(&file, TEMPLATE).unwrap();
    assert_eq!(ask(), 200);
    fs::remove_file(&file).unwrap();
    assert_eq!(ask(), 200, "it was read once and for all");
}

#[test]
fn an_ensembles_template_is_found_beside_the_tokenizer_it_begins_with() {
    let repository = TempDir::new().unwrap();
    for (file, text) in [
        ("talk/config.pbtxt", ""),
        ("words/1/keep", ""),
        ("crab/2/tokenizer_config.json", r#"{"chat_template":"{{ eos_token }}","eos_token":"E"}"#),
    ] {
        let path = repository.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let configured = |name: &str, text: &str, signature: Signature| {
        let answer = |request: Request| {
            let prompt = request.inputs[0].to_strings().unwrap();
            all(vec![said(std::str::from_utf8(prompt[0]).unwrap(), "stop")])
        };
        let mut model = Arc::into_inner(model(name, signature, answer)).unwrap();
        model.config = Arc::new(consort_protocol::config_from_json(text).unwrap());
        Arc::new(model)
    };
    let ensemble = r#"{"ensemble_scheduling":{"step":[{"model_name":"words"}]}}"#;
    let tokenizer = r#"{"name":"words","backend":"tokenizer","parameters":
        {"tokenizer":{"string_value":"../crab/2/tokenizer.json"}}}"#;
    let models = vec![
        configured("talk", ensemble, signature(TALKER)),
        configured("words", tokenizer, signature("text BYTES[1] -> input_ids INT32[-1]")),
    ];
    let shelf = Shelf { models, is_ready: true };
    let model_repositories = vec![repository.path().to_owned()];
    let options = Options { model_repositories, ..Options::default() };
    let body = r#"{"model":"talk","messages":[{"role":"user","content":"hi"}]}"#;
    check(
        router(Arc::new(shelf), options),
        PATH,
        body,
        &expect![[
            r#"200 {"id":"chatcmpl-","object":"chat.completion","model":"talk","choices":[{"index":0,"message":{"role":"assistant","content":"E","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#
        ]],
    );
}

/// Checks the answer of a model that says which guide it was given, and refuses one.
fn asked(format: &str, expected: &Expect) {
    let guided = "1: text_input BYTES[1], guided_decoding_guide_type BYTES[1]?, \
         guided_decoding_guide BYTES[1]? ->> text_output BYTES[1]";
    let guided = model("generate", signature(guided), |request| {
        let given = |name| {
            let texts = request.input(name)?.to_strings().unwrap();
            Some(String::from_utf8(texts[0].to_vec()).unwrap())
        };
        let kind = given("guided_decoding_guide_type").unwrap_or_default();
        let guide = given("guided_decoding_guide").unwrap_or_default();
        match &*guide {
            "{\"bad\":1}" => {
                let text = "in ensemble 'generate': `guided_decoding_guide` is no schema";
                all(vec![Err(Error::invalid(text))])
            }
            _ => all(vec![said(&format!("{kind} {guide}"), "stop")]),
        }
    });
    let (router, _repository) = templated(guided, Some("{{ messages[0].content }}"));
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    let body = format!(r#"{{"model":"generate",{hi},"response_format":{format}}}"#);
    check(router, PATH, &body, expected);
}

#[test]
fn the_form_of_an_answer_becomes_a_guide_for_the_model() {
    asked(
        r#"{"type":"text"}"#,
        &expect![[
            r#"200 {"id":"chatcmpl-","object":"chat.completion","model":"generate","choices":[{"index":0,"message":{"role":"assistant","content":" ","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#
        ]],
    );
    asked(
        r#"{"type":"json_object"}"#,
        &expect![[
            r#"200 {"id":"chatcmpl-","object":"chat.completion","model":"generate","choices":[{"index":0,"message":{"role":"assistant","content":"json_object ","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#
        ]],
    );
    let schema = r#"{"type":"json_schema","json_schema":{"name":"a","schema":{"type":"object"}}}"#;
    asked(
        schema,
        &expect![[
            r#"200 {"id":"chatcmpl-","object":"chat.completion","model":"generate","choices":[{"index":0,"message":{"role":"assistant","content":"json_schema {\"type\":\"object\"}","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#
        ]],
    );
    let bad = r#"{"type":"json_schema","json_schema":{"name":"a","schema":{"bad":1}}}"#;
    asked(
        bad,
        &expect![[
            r#"400 {"error":{"message":"in ensemble 'generate': `guided_decoding_guide` is no schema","type":"invalid_request_error","param":"response_format","code":null}}"#
        ]],
    );
}

#[test]
fn a_form_that_cannot_be_is_refused_by_its_place() {
    asked(
        r#"{"type":"json_schema","json_schema":{"name":"a"}}"#,
        &expect![[
            r#"400 {"error":{"message":"`response_format.json_schema.schema` is missing","type":"invalid_request_error","param":"response_format.json_schema.schema","code":null}}"#
        ]],
    );
    asked(
        r#"{"type":"json_schema","json_schema":{"schema":"a"}}"#,
        &expect![[
            r#"400 {"error":{"message":"`response_format.json_schema.schema` must be an object, not a string","type":"invalid_request_error","param":"response_format.json_schema.schema","code":null}}"#
        ]],
    );
    asked(
        r#"{"type":"xml"}"#,
        &expect![[
            r#"400 {"error":{"message":"`response_format.type` must be `text`, `json_object` or `json_schema`","type":"invalid_request_error","param":"response_format.type","code":null}}"#
        ]],
    );
    asked(
        r#""json""#,
        &expect![[
            r#"400 {"error":{"message":"`response_format` must be an object, not a string","type":"invalid_request_error","param":"response_format","code":null}}"#
        ]],
    );
    let hi = r#""messages":[{"role":"user","content":"hi"}]"#;
    check_chat(
        &format!(r#"{hi},"response_format":{{"type":"json_object"}}"#),
        &expect![[
            r#"400 {"error":{"message":"`response_format` has no effect on model `generate`, which has no input `guided_decoding_guide_type`","type":"invalid_request_error","param":"response_format","code":null}}"#
        ]],
    );
}
