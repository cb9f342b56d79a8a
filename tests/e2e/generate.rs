//! Text generation and embeddings over the shipped repository, in one process and as services.

use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::program::{checkout, target};
use crate::repository::{fresh_clone, shipped};
use crate::system::{Layout, System, agent};

/// One greedy continuation, computed by the Hugging Face implementation.
#[derive(Deserialize)]
struct Reference {
    prompt: String,
    greedy_text: String,
}

fn references() -> Vec<Reference> {
    let file = checkout().join("tests/fixtures/ferris/reference.json");
    let text = fs::read_to_string(file).expect("the references are there");
    serde_json::from_str(&text).expect("the references are JSON")
}

fn body(prompt: &str) -> String {
    json!({"text_input": prompt, "max_tokens": 64}).to_string()
}

#[test]
fn greedy_text_is_that_of_the_reference_on_every_route() {
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        for reference in references() {
            let answer = system.post("/generate", &body(&reference.prompt));
            assert_eq!(answer.status, 200, "{layout:?}: {}", answer.text);
            assert_eq!(answer.json()["text_output"], reference.greedy_text, "{layout:?}");
        }
        let first = &references()[0];
        for path in ["/v2/models/generate/generate", "/v2/models/generate/versions/1/generate"] {
            let answer = system.post(path, &body(&first.prompt));
            assert_eq!(answer.json()["text_output"], first.greedy_text, "{layout:?} {path}");
        }
    }
}

#[test]
fn a_fresh_clone_is_ready_without_the_weights_that_are_fetched_apart() {
    let repository = fresh_clone(&shipped().join("ferris/1/model.onnx"));
    for layout in Layout::ALL {
        let system = System::start(layout, repository.path());
        let first = &references()[0];
        let answer = system.post("/generate", &body(&first.prompt));
        assert_eq!(answer.json()["text_output"], first.greedy_text, "{layout:?}");
        let answer = system.post("/v2/models/embed/infer", "{\"inputs\":[]}");
        assert_eq!(answer.status, 404, "{layout:?}: {}", answer.text);
        assert!(answer.text.contains("tokenizer.json"), "{layout:?}: {}", answer.text);
    }
}

#[test]
fn graphs_exported_the_optimum_way_give_the_same_text() {
    for form in ["ferris-optimum", "ferris-optimum-without-positions"] {
        let graph = target(&format!("models/{form}/model.onnx"));
        let repository = fresh_clone(&graph);
        let system = System::start(Layout::OneProcess, repository.path());
        for reference in references() {
            let answer = system.post("/generate", &body(&reference.prompt));
            assert_eq!(answer.json()["text_output"], reference.greedy_text, "{form}");
        }
    }
}

#[test]
fn a_stream_gives_each_token_as_it_is_made_and_the_whole_text_in_all() {
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        for reference in references() {
            let pieces = stream(&system.http, &body(&reference.prompt));
            assert!(pieces.len() > 32, "{layout:?}: only {} events", pieces.len());
            assert_eq!(pieces.concat(), reference.greedy_text, "{layout:?}");
        }
    }
}

#[test]
fn sixteen_at_once_get_what_each_gets_alone_while_others_leave() {
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        let (references, http) = (references(), system.http.clone());
        std::thread::scope(|scope| {
            for index in 0..16 {
                let (http, reference) = (&http, &references[index % references.len()]);
                scope.spawn(move || {
                    if index % 4 == 3 {
                        // Leaves after its first event, in the middle of everybody else's text.
                        leave_early(http, &body(&reference.prompt));
                    } else {
                        let pieces = stream(http, &body(&reference.prompt));
                        assert_eq!(pieces.concat(), reference.greedy_text, "{layout:?}");
                    }
                });
            }
        });
    }
}

/// Reads the first event of `/generate_stream` and hangs up.
fn leave_early(http: &impl Display, body: &str) {
    let request = agent().post(format!("http://{http}/generate_stream"));
    let mut response = request.send(body).expect("the server answers");
    let mut lines = BufReader::new(response.body_mut().as_reader()).lines();
    assert!(lines.next().is_some_and(|line| line.is_ok_and(|line| line.starts_with("data: "))));
}

/// The text of each event of `/generate_stream`.
fn stream(http: &impl Display, body: &str) -> Vec<String> {
    let request = agent().post(format!("http://{http}/generate_stream"));
    let mut response = request.send(body).expect("the server answers");
    let kind = response.headers()["content-type"].to_str().expect("it is text").to_owned();
    assert_eq!(kind, "text/event-stream; charset=utf-8");
    let lines = BufReader::new(response.body_mut().as_reader()).lines();
    let lines = lines.map(|line| line.expect("the stream is whole"));
    let events = lines.filter_map(|line| {
        let event: Value = serde_json::from_str(line.strip_prefix("data: ")?).expect("JSON");
        Some(event["text_output"].as_str().expect("it has text").to_owned())
    });
    events.collect()
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_seed_another() {
    let system = System::start_text(Layout::OneProcess);
    let sample = |seed: u64| {
        let body = json!({
            "text_input": "The compiler", "max_tokens": 24,
            "temperature": 2.0, "top_k": 200, "random_seed": seed,
        });
        let answer = system.post("/generate", &body.to_string());
        answer.json()["text_output"].as_str().expect("it has text").to_owned()
    };
    assert_eq!(sample(7), sample(7));
    assert_ne!(sample(7), sample(8));
}

/// Whole or in pieces, over either API, and whether the word begins a token or stands within one.
#[test]
fn a_stop_word_ends_the_text_and_nothing_else_of_it_is_missing() {
    let first = &references()[0];
    for layout in Layout::ALL {
        let system = System::start(layout, &shipped());
        for word in [" memory", "memory", "emor", "he", " the", "."] {
            let expected = first.greedy_text.split(word).next().expect("it has a beginning");
            assert_ne!(expected, first.greedy_text, "it has `{word}`");
            let body = json!({"text_input": first.prompt, "max_tokens": 64, "stop_words": [word]});
            let answer = system.post("/generate", &body.to_string()).json();
            assert_eq!(answer["text_output"], expected, "{layout:?}: `{word}`");
            let stream = system.post("/generate_stream", &body.to_string()).text;
            let pieces = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
            let piece = |event: &str| serde_json::from_str::<Value>(event).expect("it is JSON");
            let pieces =
                pieces.map(|event| piece(event)["text_output"].as_str().map(str::to_owned));
            let text: String = pieces.map(|text| text.expect("it has text")).collect();
            assert_eq!(text, expected, "{layout:?}: `{word}`");
            let body = json!({"model": "generate", "prompt": first.prompt, "max_tokens": 64,
                "stop": word});
            let answer = system.post("/v1/completions", &body.to_string()).json();
            assert_eq!(answer["choices"][0]["text"], expected, "{layout:?}: `{word}`");
        }
    }
}

#[test]
fn what_cannot_be_generated_is_refused_by_name() {
    let step = "step 1 (model 'ferris'): ";
    let text_of = |field: &str, value: Value| json!({"text_input": "a", field: value});
    let cases = [
        (text_of("max_tokens", json!(0)), "input 'max_tokens', ", "`request_output_len` must be"),
        (text_of("temperature", json!(-1.0)), "", "`temperature` must be 0 or more, not -1"),
        (text_of("top_p", json!(2.5)), "input 'top_p', ", "`runtime_top_p` must be above 0 and"),
        (text_of("beam_width", json!(4)), "", "`beam_width` is 4; beam search"),
        (
            json!({"text_input": "word ".repeat(2000)}),
            "input 'text_input', ",
            "tokens; the context of",
        ),
    ];
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        for (body, input, text) in &cases {
            let answer = system.post("/generate", &body.to_string());
            let status = if text.contains("beam") { 501 } else { 400 };
            assert_eq!(answer.status, status, "{layout:?}: {}", answer.text);
            let place = format!("in ensemble 'generate', {input}{step}");
            assert!(answer.text.contains(&place), "{layout:?}: {}", answer.text);
            assert!(answer.text.contains(text), "{layout:?}: {}", answer.text);
        }
        let answer = system.post("/generate", "{\"max_tokens\":4}");
        assert_eq!(answer.status, 400, "{layout:?}: {}", answer.text);
        assert!(answer.text.contains("text_input"), "{layout:?}: {}", answer.text);
        assert_eq!(system.post("/generate", &body("The borrow checker")).status, 200);
    }
}

#[test]
fn an_embedding_is_a_unit_vector_and_the_same_alone_or_in_a_batch() {
    for layout in Layout::ALL {
        let system = System::start(layout, &shipped());
        let alone = embed(&system, &["The borrow checker"]);
        let batch = embed(
            &system,
            &["A much longer sentence, about rather more things than one", "The borrow checker"],
        );
        let norm: f64 = alone[0].iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-4, "{layout:?}: {norm}");
        let cosine: f64 = alone[0].iter().zip(&batch[1]).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.99999, "{layout:?}: {cosine}");
    }
}

fn embed(system: &System, texts: &[&str]) -> Vec<Vec<f64>> {
    let input = json!({
        "name": "text", "datatype": "BYTES", "shape": [texts.len(), 1], "data": texts,
    });
    let answer = system.post("/v2/models/embed/infer", &json!({"inputs": [input]}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let values = answer["outputs"][0]["data"].as_array().expect("it has data");
    let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
    assert_eq!(values.len(), texts.len() * 384);
    values.chunks(384).map(<[f64]>::to_vec).collect()
}

#[test]
fn a_guided_text_fits_its_schema_on_every_route() {
    let schema = json!({
        "type": "object",
        "properties": {"crate": {"type": "string", "maxLength": 10}, "stars": {"enum": [1, 2, 3]}},
        "required": ["crate", "stars"],
        "additionalProperties": false,
        "x-guidance": {"whitespace_flexible": false},
    });
    let guided = |kind: &str, guide: &str| {
        json!({
            "text_input": "The compiler", "max_tokens": 100,
            "guided_decoding_guide_type": kind, "guided_decoding_guide": guide,
        })
        .to_string()
    };
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        let body = guided("json_schema", &schema.to_string());
        let answer = system.post("/generate", &body);
        let text = answer.json()["text_output"].as_str().expect("it has text").to_owned();
        let value: Value = serde_json::from_str(&text).expect("the text is JSON");
        assert!(
            value["crate"].is_string() && (1..=3).contains(&value["stars"].as_i64().unwrap_or(0))
        );
        assert_eq!(stream(&system.http, &body).concat(), text, "{layout:?}");
        let answer = system.post("/generate", &guided("choice", r#"["stable", "nightly"]"#));
        let text = answer.json()["text_output"].as_str().expect("it has text").to_owned();
        assert!(["stable", "nightly"].contains(&text.as_str()), "{layout:?}: {text}");
        let answer = system.post("/generate", &guided("regex", "(a"));
        assert_eq!(answer.status, 400, "{layout:?}: {}", answer.text);
        assert!(answer.text.contains("guided_decoding_guide"), "{layout:?}: {}", answer.text);
    }
}

#[test]
fn several_texts_of_one_prompt_come_in_one_stream() {
    let first = &references()[0];
    let body = json!({
        "text_input": first.prompt, "max_tokens": 64, "num_return_sequences": 2, "stream": true,
    });
    for layout in Layout::ALL {
        let system = System::start_text(layout);
        let request = agent().post(format!("http://{}/generate_stream", system.http));
        let mut response = request.send(body.to_string()).expect("the server answers");
        let mut texts = [String::new(), String::new()];
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            let line = line.expect("the stream is whole");
            let Some(event) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(event).expect("JSON");
            let index = event["sequence_index"].as_u64().expect("it has a number") as usize;
            texts[index].push_str(event["text_output"].as_str().expect("it has text"));
        }
        assert_eq!(texts, [first.greedy_text.as_str(); 2], "{layout:?}");
    }
}

#[test]
fn an_adapter_that_there_is_not_is_refused_by_name() {
    let system = System::start_text(Layout::OneProcess);
    let body = json!({"text_input": "a", "lora_name": "pirate"});
    let answer = system.post("/generate", &body.to_string());
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert!(answer.text.contains("`lora_name` is `pirate`"), "{}", answer.text);
}
