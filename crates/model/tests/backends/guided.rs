//! Structured output: texts within schemas, expressions and choices, beside texts without.

use consort_stage::{Code, Request};
use serde_json::{Value, json};

use crate::asking::{ferris, finish, float, seed, streaming, text, tokens, with, word};
use crate::crowd::endless;
use crate::generating::{Generating, request};
use crate::reference::{cases, first};
use crate::spelling::Spelling;

fn guided(request: Request, kind: &str, guide: &str) -> Request {
    let guide = text("guided_decoding_guide", guide);
    with(request, [text("guided_decoding_guide_type", kind), guide])
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
            "kind": {"enum": ["crate", "module"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "count", "kind", "tags"],
        "additionalProperties": false,
        // Ferris has never seen JSON, and would rather indent than go on.
        "x-guidance": {"whitespace_flexible": false},
    })
}

fn assert_fits_the_schema(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["name", "count", "kind", "tags"], "{text}");
    assert!((1..=12).contains(&value["name"].as_str().unwrap().chars().count()), "{text}");
    assert!(value["count"].as_u64().unwrap() < 100, "{text}");
    assert!(["crate", "module"].contains(&value["kind"].as_str().unwrap()), "{text}");
    let tags = value["tags"].as_array().unwrap();
    assert!((1..=3).contains(&tags.len()) && tags.iter().all(Value::is_boolean), "{text}");
}

/// Asks, and gives what was generated and why it ended.
fn generate(model: &Generating, spelling: &Spelling, request: Request) -> (String, String) {
    let answer = model.answer(request).unwrap();
    (spelling.text(&tokens(&answer)), finish(&answer))
}

#[test]
fn a_text_fits_its_schema_greedy_or_by_chance_streamed_or_not() {
    let (ferris, spelling) = (ferris(&[]), Spelling::read());
    let prompt = first().input_ids;
    let asked = || guided(request(&prompt, 400), "json_schema", &schema().to_string());
    let (greedy, ended) = generate(&ferris, &spelling, asked());
    assert_fits_the_schema(&greedy);
    assert_eq!(ended, "stop");
    let (streamed, _) = generate(&ferris, &spelling, streaming(asked()));
    assert_eq!(streamed, greedy);
    for number in 0..8 {
        let asked = with(asked(), [float("temperature", 1.5), seed(number)]);
        let (sampled, ended) = generate(&ferris, &spelling, asked);
        assert_fits_the_schema(&sampled);
        assert_eq!(ended, "stop");
    }
}

#[test]
fn a_text_is_one_of_its_choices_or_matches_its_expression() {
    let (ferris, spelling) = (ferris(&[]), Spelling::read());
    let mut chosen = std::collections::BTreeSet::new();
    for (number, case) in cases().iter().enumerate() {
        let request = request(&case.input_ids, 50);
        let hot = with(request.clone(), [float("temperature", 3.0), seed(number as u64)]);
        let choices = ["ownership", "borrowing is fun", "naïve \"lifetimes\""];
        let asked = guided(hot.clone(), "choice", &json!(choices).to_string());
        let (text, ended) = generate(&ferris, &spelling, asked);
        assert!(choices.contains(&text.as_str()), "{text}");
        assert_eq!(ended, "stop");
        chosen.insert(text);
        for request in [request, hot] {
            let asked = guided(request, "regex", r"^[a-z]{3,8}@[a-z]{2,5}\.(com|org)$");
            let (text, _) = generate(&ferris, &spelling, asked);
            let (name, host) = text.split_once('@').unwrap();
            let (host, end) = host.split_once('.').unwrap();
            let is_small = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(is_small(name) && (3..=8).contains(&name.len()), "{text}");
            assert!(is_small(host) && (2..=5).contains(&host.len()), "{text}");
            assert!(["com", "org"].contains(&end), "{text}");
        }
    }
    assert!(chosen.len() > 1, "the model chooses: {chosen:?}");
}

#[test]
fn a_graph_that_chooses_by_itself_tells_guided_texts_every_logit() {
    let (plain, spelling) = (ferris(&[]), Spelling::read());
    let choosing = ferris(&[("choose_in_graph", "true")]);
    let prompt = first().input_ids;
    let asked = || guided(request(&prompt, 400), "json_schema", &schema().to_string());
    let beside = choosing.ask(endless(&prompt, 64), 4);
    let expected = generate(&plain, &spelling, asked());
    assert_eq!(generate(&choosing, &spelling, asked()), expected);
    assert_eq!(tokens(&choosing.read(beside).unwrap()), first().greedy_ids);
}

#[test]
fn a_json_object_is_one_when_it_has_the_room_to_end() {
    let (ferris, spelling) = (ferris(&[]), Spelling::read());
    let asked = with(request(&first().input_ids, 3), [text("guided_decoding_guide_type", "json")]);
    let (text, ended) = generate(&ferris, &spelling, asked);
    assert!(text.starts_with(['{', '[']), "{text}");
    assert_eq!(ended, "length");
}

#[test]
fn texts_with_and_without_bounds_in_one_batch_are_what_each_is_alone() {
    let (ferris, spelling) = (ferris(&[]), Spelling::read());
    let asked = |prompt: &[i32], number: u64| {
        let request = with(request(prompt, 300), [float("temperature", 1.2), seed(number)]);
        match number % 3 {
            0 => guided(request, "json_schema", &schema().to_string()),
            1 => guided(request, "regex", r"\d{4}-\d{2}-\d{2}( [a-z]+){3,5}!"),
            _ => guided(request, "choice", r#"["a longer choice", "another", "b"]"#),
        }
    };
    let cases = cases();
    let alone: Vec<_> = (0..9)
        .map(|number| {
            let prompt = &cases[number % cases.len()].input_ids;
            generate(&ferris, &spelling, asked(prompt, number as u64))
        })
        .collect();
    let guided: Vec<_> = (0..9)
        .map(|number| {
            let prompt = &cases[number % cases.len()].input_ids;
            ferris.ask(streaming(asked(prompt, number as u64)), 400)
        })
        .collect();
    let free: Vec<_> =
        cases.iter().map(|case| ferris.ask(endless(&case.input_ids, 64), 400)).collect();
    for (case, responses) in cases.iter().zip(free) {
        assert_eq!(tokens(&ferris.read(responses).unwrap()), case.greedy_ids, "{}", case.prompt);
    }
    for (expected, responses) in alone.into_iter().zip(guided) {
        let answer = ferris.read(responses).unwrap();
        assert_eq!((spelling.text(&tokens(&answer)), finish(&answer)), expected);
    }
}

#[test]
fn what_cannot_be_followed_is_refused_before_it_is_computed_and_nobody_else_notices() {
    let ferris = ferris(&[("max_active_requests", "1")]);
    let case = first();
    // The only slot is taken, and nothing is freed for these to be refused.
    let mut beside = ferris.ask(streaming(endless(&case.input_ids, 64)), 100);
    assert!(ferris.next(&mut beside).is_some());
    let broken = [
        ("regex", "(a", "is not a regular expression"),
        ("json_schema", "{\"type\": 1}", "is not a JSON schema"),
        ("json_schema", "nonsense", "it is not JSON"),
        ("choice", "[]", "no choice"),
        ("lark", "start: x", "is not a grammar"),
        ("xml", "x", "must be one of"),
    ];
    for (kind, guide, message) in broken {
        let error = ferris.answer(guided(request(&case.input_ids, 5), kind, guide)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidInput, "{error}");
        let input = error.input().unwrap();
        assert!(error.message().starts_with(&format!("`{input}` ")), "{error}");
        assert!(error.message().contains(message), "{error}");
    }
    let rest = tokens(&ferris.read(beside).unwrap());
    assert_eq!(rest, case.greedy_ids[1..]);
}

#[test]
fn bounds_that_leave_no_token_end_the_text_with_a_reason() {
    let (ferris, spelling) = (ferris(&[]), Spelling::read());
    let without_x = word("bad_words_list", &[spelling.token("x")]);
    let asked = with(request(&first().input_ids, 5), [without_x]);
    let error = ferris.answer(guided(asked, "choice", r#"["x"]"#)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidInput);
    assert!(error.message().contains("allows no token"), "{error}");
    assert_eq!(error.input(), Some("guided_decoding_guide"));
}

#[test]
fn a_stop_word_ends_a_text_within_its_bounds_too() {
    let (ferris, spelling) = (ferris(&[]), Spelling::read());
    let stop = word("stop_words_list", &[spelling.token("-")]);
    let asked = with(request(&first().input_ids, 50), [stop]);
    let (text, ended) = generate(&ferris, &spelling, guided(asked, "regex", r"\d-\d"));
    assert_eq!((text.len(), ended.as_str()), (1, "stop"));
}
