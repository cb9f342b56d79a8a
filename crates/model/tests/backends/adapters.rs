//! Adapters chosen by requests: each gives the tokens of a graph that has it in its weights.

use std::fs;

use consort_stage::{Code, Request};

use crate::asking::{configured, int, streaming, text, tiny, tokens, with};
use crate::generating::{Generating, request};
use crate::loaded::{Folder, graphs};

/// Whose likeliest tokens are so much likelier than the next that the rounding of merged weights
/// does not show.
const PROMPTS: [&[i32]; 3] =
    [&[41, 35, 36, 59], &[40, 55, 63, 17, 36, 10, 8, 43, 4, 46, 52, 12], &[26]];

/// The graph of a convention that takes adapters, with both of them, and one that is none.
fn with_adapters(convention: &str) -> Folder {
    let graph = graphs().join(convention);
    let files = ["model.onnx", "genai_config.json"].map(|file| graph.join(file));
    let files: Vec<_> = files.into_iter().filter(|file| file.exists()).collect();
    let folder = Folder::with(&files);
    let adapters = folder.version().join("adapters");
    fs::create_dir(&adapters).unwrap();
    for name in ["one", "two"] {
        let file = format!("{name}.onnx_adapter");
        fs::copy(graphs().join("llama_lora/adapters").join(&file), adapters.join(file)).unwrap();
    }
    fs::write(adapters.join("README.md"), "two adapters").unwrap();
    folder
}

fn start(convention: &str) -> Generating {
    start_with(convention, &[])
}

fn start_with(convention: &str, settings: &[(&str, &str)]) -> Generating {
    Generating::start(with_adapters(convention).path(), &configured(settings))
}

fn asked(prompt: &[i32], adapter: &str) -> Request {
    with(request(prompt, 24), [int("end_id", -1), text("lora_name", adapter)])
}

/// What the graph with an adapter in its weights continues each prompt with; without a name, the
/// graph as it is.
fn merged(adapter: &str) -> Vec<Vec<i32>> {
    let folder = match adapter {
        "" => "llama_gqa".to_owned(),
        name => format!("llama_merged_{name}"),
    };
    let model = tiny(&folder, &[]);
    PROMPTS.iter().map(|prompt| tokens(&model.answer(asked(prompt, "")).unwrap())).collect()
}

#[test]
fn a_text_with_an_adapter_is_that_of_the_merged_weights_alone_and_in_a_mixed_batch() {
    let adapters = ["", "one", "two"];
    let expected = adapters.map(merged);
    assert_ne!(expected[0], expected[1]);
    assert_ne!(expected[1], expected[2]);
    let chooses = ("choose_in_graph", "true");
    for (convention, settings) in [
        ("llama_lora", &[][..]),
        ("llama_lora_optimum", &[]),
        ("llama_lora", &[chooses]),
        ("llama_lora_optimum", &[chooses]),
    ] {
        let model = start_with(convention, settings);
        for (adapter, expected) in adapters.iter().zip(&expected) {
            for (prompt, expected) in PROMPTS.iter().zip(expected) {
                let answer = model.answer(asked(prompt, adapter)).unwrap();
                assert_eq!(tokens(&answer), *expected, "{convention} {adapter}");
            }
        }
        let mut all = Vec::new();
        for _ in 0..2 {
            for (adapter, expected) in adapters.iter().zip(&expected) {
                for (prompt, expected) in PROMPTS.iter().zip(expected) {
                    all.push((expected, model.ask(streaming(asked(prompt, adapter)), 64)));
                }
            }
        }
        for (expected, responses) in all {
            assert_eq!(tokens(&model.read(responses).unwrap()), *expected, "{convention}");
        }
    }
}

#[test]
fn an_unknown_adapter_is_refused_with_those_that_there_are() {
    let error = start("llama_lora").answer(asked(&[5], "three")).unwrap_err();
    assert_eq!(error.code(), Code::InvalidInput);
    assert!(error.message().contains("`lora_name` is `three`"), "{error}");
    assert!(error.message().contains("`one`, `two`"), "{error}");
    let error = tiny("llama_gqa", &[]).answer(asked(&[5], "one")).unwrap_err();
    assert!(error.message().contains("adapters are: none"), "{error}");
}

#[test]
fn an_adapter_that_does_not_fit_or_is_none_keeps_the_model_from_loading() {
    let folder = with_adapters("llama_gqa");
    let error = folder.load(&configured(&[])).err().unwrap();
    assert!(error.message().contains("adapter `one` does not fit the graph"), "{error}");
    let folder = with_adapters("llama_lora");
    fs::write(folder.version().join("adapters/broken.onnx_adapter"), "no adapter").unwrap();
    let error = folder.load(&configured(&[])).err().unwrap();
    assert!(error.message().contains("adapters/broken.onnx_adapter"), "{error}");
}

#[test]
fn a_prompt_is_told_as_its_adapter_finds_it() {
    let told = |model: &Generating, adapter: &str| {
        let asked = with(request(PROMPTS[1], 0), [int("prompt_logprobs", 0)]);
        let answer = model.answer(with(asked, [text("lora_name", adapter)])).unwrap();
        let told = answer[0].output("prompt_log_probs").unwrap();
        told.to_slice::<f32>().unwrap().into_owned()
    };
    let apart = |left: &[f32], right: &[f32]| {
        left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
    };
    let graphs = ["llama_gqa", "llama_merged_one", "llama_merged_two"];
    let merged = graphs.map(|graph| told(&tiny(graph, &[]), ""));
    // Far beyond what the rounding of merged weights makes.
    assert!(apart(&merged[0], &merged[1]) > 0.5 && apart(&merged[1], &merged[2]) > 0.5);
    for convention in ["llama_lora", "llama_lora_optimum"] {
        let model = start(convention);
        for (adapter, merged) in ["", "one", "two"].iter().zip(&merged) {
            let found = told(&model, adapter);
            assert!(apart(&found, merged) < 0.1, "{found:?} and {merged:?}");
        }
    }
}
