//! Adapters over OpenAI's API, in one process and as services.

use std::fs;

use serde_json::{Map, Value, json};

use crate::clients::python;
use crate::program::checkout;
use crate::repository::Repository;
use crate::system::{Layout, System};

/// An ensemble that takes no `lora_name` itself.
const TINY: &str = r#"platform: "ensemble" max_batch_size: 1
    input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
            { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
            { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] optional: true } ]
    output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
    ensemble_scheduling { step [
      { model_name: "tiny_tokenize" model_version: -1
        input_map { key: "text" value: "text_input" } output_map { key: "input_ids" value: "ids" } },
      { model_name: "llama" model_version: -1
        input_map { key: "input_ids" value: "ids" }
        input_map { key: "request_output_len" value: "max_tokens" }
        input_map { key: "streaming" value: "stream" }
        output_map { key: "output_ids" value: "new" } output_map { key: "context_ids" value: "before" }
        output_map { key: "is_final" value: "final" } },
      { model_name: "tiny_detokenize" model_version: -1
        input_map { key: "output_ids" value: "new" } input_map { key: "context_ids" value: "before" }
        input_map { key: "is_final" value: "final" } output_map { key: "text" value: "text_output" } } ] }"#;

const LLAMA: &str = r#"backend: "onnxruntime_llm" max_batch_size: 1
    model_transaction_policy { decoupled: true }
    input [ { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] },
            { name: "request_output_len" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
            { name: "streaming" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
            { name: "lora_name" data_type: TYPE_STRING dims: [ 1 ] optional: true } ]"#;

const TOKENIZE: &str = r#"backend: "tokenizer" max_batch_size: 8
    input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
    output [ { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] } ]"#;

const DETOKENIZE: &str = r#"backend: "detokenizer" max_batch_size: 8
    input [ { name: "output_ids" data_type: TYPE_INT32 dims: [ -1 ] },
            { name: "context_ids" data_type: TYPE_INT32 dims: [ -1 ] },
            { name: "is_final" data_type: TYPE_BOOL dims: [ 1 ] } ]
    output [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
    parameters { key: "tokenizer" value { string_value: "../tiny_tokenize/1/tokenizer.json" } }"#;

/// A tokenizer of a letter, a digit or a space for each of the 64 tokens of the graph.
fn tokenizer() -> String {
    let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9').map(String::from);
    let tokens = ["<s>", "Ġ"].map(String::from).into_iter().chain(letters);
    let vocabulary: Map<String, Value> =
        tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [], "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level, "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
    .to_string()
}

#[test]
fn openais_client_chooses_adapters_as_models() {
    let graphs = checkout().join("crates/model/tests/graphs/llama_lora");
    let read = |file: &str| fs::read(graphs.join(file)).expect("the graph is there");
    let mut repository = Repository::new()
        .with("tiny", TINY)
        .with_file("tiny", "chat_template.jinja", "{{ messages[-1].content }}")
        .with("llama", LLAMA)
        .with("tiny_tokenize", TOKENIZE)
        .with_file("tiny_tokenize", "1/tokenizer.json", tokenizer())
        .with("tiny_detokenize", DETOKENIZE);
    for file in ["model.onnx", "genai_config.json"] {
        repository = repository.with_file("llama", &format!("1/{file}"), read(file));
    }
    for file in ["adapters/one.onnx_adapter", "adapters/two.onnx_adapter"] {
        repository = repository.with_file("llama", &format!("1/{file}"), read(file));
    }
    for layout in Layout::ALL {
        let system = System::start(layout, repository.path());
        python("adapters.py", &[&system.http]);
        let config = system.get("/v2/models/llama/config").json();
        for (key, told) in [("adapters", "one,two"), ("exclude_input_in_output", "true")] {
            assert_eq!(config["parameters"][key]["string_value"], told, "{layout:?}");
        }
    }
}
