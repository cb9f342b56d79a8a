//! The backend `onnxruntime_llm`: the tokens of both conventions, one by one or all at once, and
//! what a caller may and may not ask for.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_config::{Device, InstanceGroup, Model, RateLimiter};
use consort_stage::{Code, DataType, Request, Response, Responses, Result, Tensor, TensorSpec};

use crate::asking::{
    NAME, configured, ferris, finish, flag, float, ids, int, seed, signature, streaming, tiny,
    tokens, with, word,
};
use crate::crowd;
use crate::generating::{Generating, prompt, request};
use crate::loaded::{Folder, graphs, model, root};
use crate::reference;

/// What is the default on a card: the graph makes its mask and picks the likeliest token.
const CHOOSES: (&str, &str) = ("choose_in_graph", "true");

#[test]
fn ferris_writes_what_its_reference_says() {
    let ferris = ferris(&[]);
    for case in reference::cases() {
        let answer = ferris.answer(request(&case.input_ids, 64)).unwrap();
        assert_eq!(answer.len(), 1);
        assert_eq!(tokens(&answer), case.greedy_ids, "{}", case.prompt);
        assert_eq!(ids(&answer[0], "sequence_length"), [64]);
        assert_eq!(finish(&answer), "length");
    }
}

#[test]
fn prompts_side_by_side_do_not_touch_one_another() {
    let ferris = ferris(&[("max_active_requests", "3"), ("prefill_chunk_size", "5")]);
    let cases = reference::cases();
    let asked: Vec<_> =
        cases.iter().map(|case| ferris.ask(streaming(request(&case.input_ids, 64)), 64)).collect();
    for (case, responses) in cases.iter().zip(asked) {
        let answer = ferris.read(responses).unwrap();
        assert_eq!(answer.len(), 64);
        assert_eq!(tokens(&answer), case.greedy_ids, "{}", case.prompt);
    }
}

#[test]
fn every_convention_gives_the_same_tokens() {
    let prompts: [&[i32]; 3] = [&[5], &[7, 9, 11, 13, 2, 4, 6, 8], &[3; 30]];
    let generate = |generating: &Generating| {
        let answers = prompts.iter().map(|prompt| {
            let request = with(request(prompt, 30), [int("end_id", -1)]);
            tokens(&generating.answer(request).unwrap())
        });
        answers.collect::<Vec<_>>()
    };
    let shared = generate(&tiny("llama_gqa", &[]));
    assert_eq!(shared[0].len(), 30);
    let growing = [("past_present_share_buffer", "false")];
    let others = [
        tiny("llama_gqa", &[("prefill_chunk_size", "3")]),
        tiny("llama_gqa", &[CHOOSES]),
        tiny("llama_gqa", &[CHOOSES, ("prefill_chunk_size", "3")]),
        tiny("llama_gqa", &growing),
        tiny("llama_gqa_last", &[]),
        tiny("llama_gqa_last", &[CHOOSES, ("prefill_chunk_size", "3")]),
        tiny("llama_gqa_last", &growing),
        tiny("llama_optimum", &[]),
        tiny("llama_optimum", &[("prefill_chunk_size", "3")]),
        tiny("llama_optimum_unplaced", &[]),
        tiny("llama_optimum", &[CHOOSES]),
        tiny("llama_optimum", &[CHOOSES, ("prefill_chunk_size", "3")]),
        tiny("llama_optimum_unplaced", &[CHOOSES, ("prefill_chunk_size", "3")]),
    ];
    for other in &others {
        assert_eq!(generate(other), shared);
    }
}

#[test]
fn a_graph_with_a_branch_for_its_first_step_is_told_when_it_is_the_first() {
    // The next token is the sum of all tokens before it, of 16.
    let expected = [10, 4, 8, 0, 0];
    for graph in ["merged", "unmerged"] {
        let adder = Generating::start(
            Folder::of(graph).path(),
            &configured(&[("prefill_chunk_size", "1")]),
        );
        for _ in 0..2 {
            let answer = adder.answer(request(&[1, 2, 3, 4], 5)).unwrap();
            assert_eq!(tokens(&answer), expected, "{graph}");
        }
    }
}

#[test]
fn logits_of_half_precision_are_read() {
    let generated = |settings: &[_]| {
        tokens(&tiny("llama_half", settings).answer(request(&[5, 6, 7], 8)).unwrap())
    };
    assert_eq!(generated(&[]).len(), 8);
    assert_eq!(generated(&[CHOOSES]), generated(&[]));
}

#[test]
fn a_streamed_token_comes_with_those_before_it() {
    let case = reference::first();
    let answer = ferris(&[]).answer(streaming(request(&case.input_ids, 40))).unwrap();
    let mut text = case.input_ids.clone();
    for (index, response) in answer.iter().enumerate() {
        let before = text.len().saturating_sub(32);
        assert_eq!(ids(response, "context_ids"), text[before..]);
        assert_eq!(ids(response, "sequence_length"), [index as i32 + 1]);
        assert_eq!(response.output("output_ids").unwrap().shape, [1, 1]);
        assert_eq!(response.is_last, index == 39);
        text.extend(ids(response, "output_ids"));
    }
    assert_eq!(text[case.input_ids.len()..], case.greedy_ids[..40]);
}

#[test]
fn the_first_token_comes_before_the_second_is_computed() {
    let ferris = ferris(&[]);
    let started = Instant::now();
    let mut responses = ferris.ask(streaming(request(&reference::first().input_ids, 900)), 1000);
    assert!(ferris.next(&mut responses).is_some());
    let first = started.elapsed();
    ferris.read(responses).unwrap();
    assert!(first * 20 < started.elapsed(), "{first:?} of {:?}", started.elapsed());
}

#[test]
fn the_prompt_comes_first_when_it_is_asked_for() {
    let case = reference::first();
    let whole = [case.input_ids.as_slice(), &case.greedy_ids[..5]].concat();
    let request = with(request(&case.input_ids, 5), [flag("exclude_input_in_output", false)]);
    let ferris = ferris(&[]);
    for request in [request.clone(), streaming(request)] {
        let answer = ferris.answer(request).unwrap();
        assert_eq!(tokens(&answer), whole);
        assert!(ids(&answer[0], "context_ids").is_empty());
        assert_eq!(ids(answer.last().unwrap(), "sequence_length"), [5]);
    }
}

#[test]
fn only_the_wanted_outputs_come() {
    let mut request = request(&reference::first().input_ids, 3);
    request.outputs = vec!["output_ids".into()];
    let answer = ferris(&[]).answer(request).unwrap();
    assert_eq!(answer[0].outputs.len(), 1);
}

#[test]
fn a_stop_word_ends_the_text_and_no_part_of_it_comes() {
    let case = reference::first();
    let ferris = ferris(&[]);
    let stopping =
        with(request(&case.input_ids, 64), [word("stop_words_list", &case.greedy_ids[5..8])]);
    for request in [stopping.clone(), streaming(stopping)] {
        let answer = ferris.answer(request).unwrap();
        assert_eq!(tokens(&answer), case.greedy_ids[..5]);
        assert_eq!(finish(&answer), "stop");
    }
    // What only began like the word comes after all.
    let nearly = [&case.greedy_ids[5..8], &[4095]].concat();
    let request = with(request(&case.input_ids, 8), [word("stop_words_list", &nearly)]);
    let answer = ferris.answer(streaming(request)).unwrap();
    assert_eq!(tokens(&answer), case.greedy_ids[..8]);
    assert_eq!(finish(&answer), "length");
}

#[test]
fn the_end_token_ends_the_text_but_not_before_its_least_length() {
    let case = reference::first();
    let ferris = ferris(&[]);
    let ending = with(request(&case.input_ids, 20), [int("end_id", case.greedy_ids[4])]);
    let answer = ferris.answer(streaming(ending.clone())).unwrap();
    assert_eq!(tokens(&answer), case.greedy_ids[..4]);
    assert_eq!(finish(&answer), "stop");
    let longer = with(ending, [int("min_length", 10)]);
    assert!(tokens(&ferris.answer(longer).unwrap()).len() >= 10);
}

#[test]
fn a_bad_word_never_comes() {
    let case = reference::first();
    let banned = case.greedy_ids[0];
    let request = with(request(&case.input_ids, 64), [word("bad_words_list", &[banned])]);
    assert!(!tokens(&ferris(&[]).answer(request).unwrap()).contains(&banned));
}

#[test]
fn the_same_seed_gives_the_same_tokens_whatever_else_runs() {
    let ferris = ferris(&[]);
    let ids = reference::first().input_ids;
    let sampled = |number| {
        with(
            request(&ids, 50),
            [float("temperature", 1.5), float("runtime_top_p", 0.95), seed(number)],
        )
    };
    let alone = tokens(&ferris.answer(sampled(7)).unwrap());
    let crowd: Vec<_> = (0..3).map(|other| ferris.ask(sampled(100 + other), 64)).collect();
    let crowded = tokens(&ferris.answer(sampled(7)).unwrap());
    assert_eq!(alone, crowded);
    let other = tokens(&ferris.read(crowd.into_iter().next().unwrap()).unwrap());
    assert_ne!(alone, other);
    assert_ne!(alone, reference::first().greedy_ids[..50]);
}

#[test]
fn no_temperature_and_the_one_likeliest_token_are_greedy() {
    let case = reference::first();
    let ferris = ferris(&[]);
    for how in [float("temperature", 0.0), int("runtime_top_k", 1)] {
        let answer = ferris.answer(with(request(&case.input_ids, 20), [how, seed(3)])).unwrap();
        assert_eq!(tokens(&answer), case.greedy_ids[..20]);
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    let ferris = ferris(&[]);
    let ids = reference::first().input_ids;
    let wrong = [
        int("request_output_len", 0),
        int("request_output_len", -3),
        float("temperature", -0.1),
        float("temperature", f32::NAN),
        float("runtime_top_p", 0.0),
        float("runtime_top_p", 1.1),
        float("min_p", -0.1),
        float("typical_p", 0.0),
        float("embedding_bias", 1.0),
        float("logit_bias_weights", 1.0),
        int("logit_bias_ids", 4),
        int("top_logprobs", 21),
        int("runtime_top_k", -1),
        int("min_length", -1),
        float("repetition_penalty", 0.0),
        float("presence_penalty", f32::INFINITY),
        int("end_id", 4096),
        int("end_id", -2),
        int("input_lengths", 0),
        int("input_lengths", 1000),
        int("beam_width", 0),
        Tensor::from_vec("min_length", &[1, 2], vec![1, 2]),
        Tensor::from_vec("stop_words_list", &[1, 3, 1], vec![1, 1, 1]),
        word("bad_words_list", &[4096]),
    ];
    for tensor in wrong {
        let name = Arc::clone(&tensor.name);
        let error = ferris.answer(with(prompt(&ids), [tensor])).unwrap_err();
        if &*name == "input_lengths" && error.message().contains("`input_ids` is empty") {
            continue;
        }
        assert_eq!(error.code(), Code::InvalidInput, "{error}");
        assert!(error.message().contains(&format!("`{name}`")), "{error}");
        let input = error.input().unwrap();
        assert!(error.message().starts_with(&format!("`{input}` ")), "{error}");
    }
    for ids in [&[][..], &[4096], &[-1], &[5; 1024]] {
        let error = ferris.answer(prompt(ids)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidInput, "{error}");
        assert!(error.message().contains("`input_ids`"), "{error}");
    }
    for tensor in [int("beam_width", 2), int("lora_task_id", 1)] {
        let error = ferris.answer(with(prompt(&ids), [tensor])).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{error}");
    }
    assert!(ferris.answer(request(&ids, 1)).is_ok());
}

#[test]
fn a_text_ends_where_the_context_does() {
    let tiny = tiny("llama_gqa", &[]);
    let answer = tiny.answer(with(request(&[9; 60], 100), [int("end_id", -1)])).unwrap();
    assert_eq!(tokens(&answer).len(), 4);
    assert_eq!(finish(&answer), "length");
    let shorter = self::tiny("llama_gqa", &[("max_sequence_length", "10")]);
    let answer = shorter.answer(with(request(&[9; 4], 100), [int("end_id", -1)])).unwrap();
    assert_eq!(tokens(&answer).len(), 6);
}

#[test]
fn padding_behind_the_prompt_is_left_away() {
    let case = reference::first();
    let padded = [case.input_ids.as_slice(), &[1; 7]].concat();
    let length = int("input_lengths", case.input_ids.len() as i32);
    let answer = ferris(&[]).answer(with(request(&padded, 9), [length])).unwrap();
    assert_eq!(tokens(&answer), case.greedy_ids[..9]);
}

#[test]
fn a_request_says_little_and_gets_the_configured_number_of_tokens() {
    let ferris = ferris(&[("default_max_tokens", "17")]);
    let answer = ferris.answer(prompt(&reference::first().input_ids)).unwrap();
    assert_eq!(tokens(&answer).len(), 17);
}

#[test]
fn a_caller_that_has_gone_leaves_its_place_at_once() {
    let ferris = ferris(&[("max_active_requests", "1")]);
    let ids = reference::first().input_ids;
    let mut long = ferris.ask(streaming(request(&ids, 1000)), 2000);
    assert!(ferris.next(&mut long).is_some());
    drop(long);
    let started = Instant::now();
    ferris.answer(request(&ids, 1)).unwrap();
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
}

#[test]
fn a_caller_that_does_not_read_holds_up_nobody_else() {
    let ferris = ferris(&[]);
    let case = reference::first();
    let unread = ferris.ask(streaming(request(&case.input_ids, 64)), 2);
    for _ in 0..3 {
        let answer = ferris.answer(request(&case.input_ids, 64)).unwrap();
        assert_eq!(tokens(&answer), case.greedy_ids);
    }
    assert_eq!(tokens(&ferris.read(unread).unwrap()), case.greedy_ids);
}

#[test]
fn a_deadline_ends_a_text_that_is_not_done() {
    let ferris = ferris(&[]);
    let ids = reference::first().input_ids;
    let mut late = request(&ids, 1000);
    late.context.deadline = Some(Instant::now() + Duration::from_millis(60));
    let error = ferris.answer(late).unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let mut over = request(&ids, 1);
    over.context.deadline = Some(Instant::now());
    assert_eq!(ferris.answer(over).unwrap_err().code(), Code::DeadlineExceeded);
}

#[test]
fn what_was_admitted_is_answered_when_the_model_is_unloaded() {
    let mut ferris = ferris(&[]);
    let case = reference::first();
    let mut responses = ferris.ask(streaming(request(&case.input_ids, 64)), 100);
    let first = ferris.next(&mut responses).unwrap().unwrap();
    ferris.stop();
    let mut answer = vec![first];
    answer.extend(ferris.read(responses).unwrap());
    assert_eq!(tokens(&answer), case.greedy_ids);
}

#[test]
fn a_model_that_answers_once_refuses_to_stream() {
    let mut signature = signature();
    signature.is_decoupled = false;
    signature.max_batch_size = 0;
    let model = model(NAME, signature, &[]);
    let ferris = Generating::start(&root().join("model_repository/ferris"), &model);
    let case = reference::first();
    let ids = Tensor::from_vec("input_ids", &[case.input_ids.len() as i64], case.input_ids.clone());
    let length = Tensor::from_vec("request_output_len", &[1], vec![6_i64]);
    let request = Request { inputs: vec![ids, length], ..Request::default() };
    let answer = ferris.answer(request.clone()).unwrap();
    assert_eq!(tokens(&answer), case.greedy_ids[..6]);
    assert_eq!(answer[0].output("output_ids").unwrap().shape, [6]);
    let streamed = with(request, [Tensor::from_bools("streaming", &[1], &[true])]);
    let error = ferris.answer(streamed).unwrap_err();
    assert!(error.message().contains("decoupled"), "{error}");
    assert_eq!(error.input(), Some("streaming"));
}

fn refused(folder: &Folder, settings: &[(&str, &str)]) -> String {
    let error = folder.load(&configured(settings)).err().unwrap();
    error.message().to_owned()
}

#[test]
fn a_graph_that_is_no_decoder_is_refused_with_what_was_looked_for() {
    let message = refused(&Folder::of("add_sub"), &[]);
    for part in ["unknown decoder layout", "`past_key_values.0.key`", "`INPUT0`, `INPUT1`"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn tensors_that_the_loop_does_not_have_are_refused_at_load() {
    let mut model = configured(&[]);
    let mut signature = signature();
    signature.outputs[0].name = "text".into();
    model.signature = Arc::new(signature);
    let error = Folder::of("add_sub").load(&model).err().unwrap();
    assert!(error.message().contains("gives no `text`"), "{error}");
    // An unknown one that a request may leave out is left out; of a known one the type counts too.
    for (name, is_optional, part) in [
        ("lora_nam", false, "takes no `lora_nam`"),
        ("lora_nam", true, "unknown decoder layout"),
        ("temperature", true, "takes `temperature` as FP32, not as BYTES"),
    ] {
        let mut signature = self::signature();
        signature.inputs.retain(|spec| &*spec.name != name);
        let spec = TensorSpec { is_optional, ..TensorSpec::new(name, DataType::Bytes, &[1]) };
        signature.inputs.push(spec);
        model.signature = Arc::new(signature);
        let error = Folder::of("add_sub").load(&model).err().unwrap();
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let gqa = graphs().join("llama_gqa");
    let folder = Folder::with(&[gqa.join("model.onnx"), gqa.join("genai_config.json")]);
    for (key, value) in [
        ("max_active_requests", "0"),
        ("max_active_requests", "65537"),
        ("default_max_tokens", "-1"),
        ("max_sequence_length", "none"),
        ("past_present_share_buffer", "perhaps"),
        ("max_sequence_length", "65"),
        ("end_id", "<eos>"),
        ("end_id", "64"),
    ] {
        let message = refused(&folder, &[(key, value)]);
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
}

#[test]
fn slots_that_the_machine_has_no_memory_for_are_refused_with_both_parameters() {
    let gqa = graphs().join("llama_gqa");
    let folder = Folder::with(&[gqa.join("model.onnx"), gqa.join("genai_config.json")]);
    let file = folder.version().join("genai_config.json");
    let config = std::fs::read_to_string(&file).unwrap();
    let endless = format!("\"context_length\": {}", 1_u64 << 40);
    let larger = config.replace("\"context_length\": 64", &endless);
    assert_ne!(larger, config);
    std::fs::write(&file, larger).unwrap();
    lacks_memory(&folder, &configured(&[("max_active_requests", "65536")]));
}

/// Each text's memory is taken when it gets there, so that nothing but the sum tells.
#[test]
fn memory_that_only_full_slots_would_take_counts() {
    let growing = Folder::with(&[graphs().join("llama_optimum/model.onnx")]);
    let endless = format!("{{ \"max_position_embeddings\": {} }}", 1_u64 << 40);
    std::fs::write(growing.version().join("config.json"), endless).unwrap();
    lacks_memory(&growing, &configured(&[]));
    let most = i64::MAX.to_string();
    lacks_memory(&growing, &configured(&[("max_cache_bytes", &*most)]));

    let folder = Folder::with(&[root().join("model_repository/ferris/1/model.onnx")]);
    let config = root().join("model_repository/ferris/1/genai_config.json");
    std::fs::copy(config, folder.version().join("genai_config.json")).unwrap();
    let mut model = configured(&[]);
    assert!(folder.load(&model).is_ok());
    model.instances = vec![InstanceGroup {
        name: "many".into(),
        count: NonZeroUsize::MAX,
        devices: vec![Device::Cpu],
        rate_limiter: RateLimiter::default(),
        is_passive: false,
    }];
    lacks_memory(&folder, &model);
}

fn lacks_memory(folder: &Folder, model: &Model) {
    let error = folder.load(model).err().unwrap();
    for part in ["`max_active_requests` is ", "`max_sequence_length`", " MB of memory"] {
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn nothing_is_lost_between_many_callers() {
    let ferris = ferris(&[("max_active_requests", "2")]);
    let case = reference::first();
    let asked: Vec<Responses> =
        (0..20).map(|_| ferris.ask(request(&case.input_ids, 10), 4)).collect();
    let answers: Result<Vec<_>> =
        asked.into_iter().map(|responses| ferris.read(responses)).collect();
    for answer in answers.unwrap() {
        assert_eq!(tokens(&answer), case.greedy_ids[..10]);
    }
}

#[test]
fn log_probabilities_come_with_each_token_when_they_are_asked_for() {
    let case = reference::first();
    let ferris = ferris(&[]);
    let asked = with(
        streaming(request(&case.input_ids, 8)),
        [flag("return_log_probs", true), int("top_logprobs", 3)],
    );
    let answer = ferris.answer(asked).unwrap();
    let mut sum = 0.0;
    for (response, id) in answer.iter().zip(&case.greedy_ids) {
        let floats = |name| response.output(name).unwrap().to_slice::<f32>().unwrap().into_owned();
        let [log_prob] = floats("output_log_probs")[..] else { panic!("one token, one number") };
        sum += log_prob;
        assert!((floats("cum_log_probs")[0] - sum).abs() < 1e-4);
        assert_eq!(response.output("top_logprob_ids").unwrap().shape, [1, 1, 3]);
        assert_eq!(ids(response, "top_logprob_ids")[0], *id);
        let likeliest = floats("top_logprob_values");
        assert!(likeliest.is_sorted_by(|left, right| left >= right), "{likeliest:?}");
        assert!((likeliest[0] - log_prob).abs() < 1e-6 && log_prob <= 0.0);
    }
    let silent = ferris.answer(request(&case.input_ids, 1)).unwrap();
    assert!(silent[0].output("output_log_probs").is_none());
}

#[test]
fn one_that_forbids_every_token_is_the_callers_mistake() {
    let tiny = tiny("llama_gqa", &[]);
    let none = || f32::NEG_INFINITY;
    let every = Tensor::from_vec("embedding_bias", &[1, 64], vec![none(); 64]);
    let by_name = [
        Tensor::from_vec("logit_bias_ids", &[1, 64], (0..64).collect::<Vec<i32>>()),
        Tensor::from_vec("logit_bias_weights", &[1, 64], vec![none(); 64]),
    ];
    let words: Vec<i32> = (0..64).chain(1..=64).collect();
    let words = Tensor::from_vec("bad_words_list", &[1, 2, 64], words);
    for (input, tensors) in [
        ("embedding_bias", vec![every]),
        ("logit_bias_ids", by_name.into()),
        ("bad_words_list", vec![words]),
    ] {
        let error = tiny.answer(with(request(&[5, 6], 3), tensors)).unwrap_err();
        assert_eq!((error.code(), error.input()), (Code::InvalidInput, Some(input)), "{error}");
    }
}

#[test]
fn a_bias_forbids_a_token_or_makes_it_certain() {
    let case = reference::first();
    let ferris = ferris(&[]);
    let biased = |id, weight| {
        let tensors = [int("logit_bias_ids", id), float("logit_bias_weights", weight)];
        tokens(&ferris.answer(with(request(&case.input_ids, 16), tensors)).unwrap())
    };
    let banned = case.greedy_ids[0];
    assert!(!biased(banned, f32::NEG_INFINITY).contains(&banned));
    assert_eq!(biased(77, 1e6), [77; 16]);
}

#[test]
fn a_prompt_that_begins_like_another_takes_over_what_was_computed() {
    let case = reference::cases().into_iter().max_by_key(|case| case.input_ids.len()).unwrap();
    let ferris = ferris(&[]);
    let cached = |answer: &[Response]| ids(&answer[0], "cached_tokens");
    let first = ferris.answer(request(&case.input_ids, 64)).unwrap();
    assert_eq!(cached(&first), [0]);
    // All but the last token of the prompt, whose logits are wanted.
    let again = ferris.answer(request(&case.input_ids, 64)).unwrap();
    assert_eq!(cached(&again), [case.input_ids.len() as i32 - 1]);
    // A dialogue goes on behind its own answer, of which the last token was never fed.
    let longer = [case.input_ids.as_slice(), &case.greedy_ids[..32]].concat();
    let further = ferris.answer(request(&longer, 32)).unwrap();
    assert_eq!(cached(&further), [longer.len() as i32 - 1]);
    for (answer, expected) in [
        (first, &case.greedy_ids[..]),
        (again, &case.greedy_ids),
        (further, &case.greedy_ids[32..]),
    ] {
        assert_eq!(tokens(&answer), expected);
    }
}

#[test]
fn a_busy_batch_gives_each_what_it_gets_alone() {
    let settings = [("max_active_requests", "5"), ("prefill_chunk_size", "16")];
    crowd::check(&ferris(&settings), &reference::cases(), 60);
    crowd::check(&ferris(&[CHOOSES, settings[0], settings[1]]), &reference::cases(), 60);
    for convention in ["llama_gqa", "llama_optimum", "llama_optimum_unplaced"] {
        let alone = tiny(convention, &[("max_active_requests", "1")]);
        let cases: Vec<_> = (0..12).map(|index| alone_case(&alone, index)).collect();
        crowd::check(&tiny(convention, &settings), &cases, 100);
        crowd::check(&tiny(convention, &[CHOOSES, settings[0], settings[1]]), &cases, 100);
        crowd::check(
            &tiny(convention, &[CHOOSES, settings[0], ("prefill_chunk_size", "3")]),
            &cases,
            100,
        );
    }
    let cases = reference::read(&graphs().join("bloom/reference.json"));
    crowd::check(&tiny("bloom", &settings), &cases, 100);
    crowd::check(&tiny("bloom", &[CHOOSES, settings[0], ("prefill_chunk_size", "3")]), &cases, 100);
}

/// As on a card, where a cache that grows stays and its rows are read, drawn and put together.
#[test]
fn a_growing_cache_that_stays_where_it_is_gives_what_one_does_that_is_read() {
    let plain = |index: i32| crowd::endless(&[index + 3, 9, 11, 13], 20 - index);
    let requests = || {
        [
            plain(0),
            with(plain(1), [flag("return_log_probs", true), int("top_logprobs", 3)]),
            with(plain(2), [word("bad_words_list", &[56])]),
            with(plain(3), [float("temperature", 0.7), seed(3)]),
            with(plain(4), [float("temperature", 1.2), int("runtime_top_k", 20), seed(4)]),
            with(plain(5), [float("temperature", 0.9), float("runtime_top_p", 0.9), seed(5)]),
            with(plain(6), [float("repetition_penalty", 1.3)]),
        ]
    };
    let answers = |settings: &[_]| {
        let model = tiny("llama_optimum", settings);
        let asked: Vec<_> = requests().into_iter().map(|request| model.ask(request, 64)).collect();
        let read = asked.into_iter().map(|responses| tokens(&model.read(responses).unwrap()));
        read.collect::<Vec<_>>()
    };
    assert_eq!(answers(&[CHOOSES]), answers(&[]));
}

/// A row that waits for its reader has holes, which are closed before there is no room for them.
#[test]
fn a_slow_reader_beside_a_text_of_full_length_loses_nothing() {
    for settings in [&[][..], &[CHOOSES]] {
        let short = ("max_sequence_length", "48");
        let model = tiny("llama_optimum", &[&[short][..], settings].concat());
        let slow = || streaming(crowd::endless(&[5, 6, 7, 8], 44));
        let fast = || crowd::endless(&[9; 8], 40);
        let alone = [slow(), fast()].map(|request| tokens(&model.answer(request).unwrap()));
        let mut slowly = model.ask(slow(), 1);
        let mut answer = vec![model.next(&mut slowly).unwrap().unwrap()];
        for _ in 0..3 {
            assert_eq!(tokens(&model.answer(fast()).unwrap()), alone[1]);
            answer.push(model.next(&mut slowly).unwrap().unwrap());
        }
        answer.extend(model.read(slowly).unwrap());
        assert_eq!(tokens(&answer), alone[0]);
    }
}

/// The operator takes no padding before a row, whatever its mask says.
#[test]
fn group_query_attention_over_a_cache_that_grows_is_not_padded() {
    let growing = ("past_present_share_buffer", "false");
    let settings = [("max_active_requests", "5"), ("prefill_chunk_size", "16")];
    let alone = tiny("llama_gqa", &[("max_active_requests", "1")]);
    let cases: Vec<_> = (0..12).map(|index| alone_case(&alone, index)).collect();
    crowd::check(&tiny("llama_gqa", &[growing, settings[0], settings[1]]), &cases, 60);
    crowd::check(&tiny("llama_gqa", &[CHOOSES, growing, settings[0]]), &cases, 60);
}

/// Requests that take the likeliest token and requests that need every logit, side by side.
#[test]
fn a_graph_that_chooses_gives_what_one_does_whose_logits_are_read() {
    let case = reference::first();
    let word = word("bad_words_list", &case.greedy_ids[2..3]);
    let plain = || crowd::endless(&case.input_ids, 24);
    let requests = || {
        [
            plain(),
            with(plain(), [flag("return_log_probs", true), int("top_logprobs", 3)]),
            with(plain(), [word.clone()]),
            with(plain(), [float("temperature", 0.9), float("runtime_top_p", 0.9), seed(3)]),
            with(plain(), [float("temperature", 1.2), int("runtime_top_k", 40), seed(4)]),
            with(plain(), [float("temperature", 1.2), int("runtime_top_k", 400), seed(5)]),
            with(plain(), [float("temperature", 1.2), int("runtime_top_k", 1500), seed(8)]),
            with(plain(), [float("repetition_penalty", 1.3)]),
            with(plain(), [float("temperature", 1.5), seed(6)]),
            with(plain(), [float("temperature", 3.0), seed(7)]),
            plain(),
        ]
    };
    let answers = |settings: &[_]| {
        let model = ferris(settings);
        let asked: Vec<_> = requests().into_iter().map(|request| model.ask(request, 64)).collect();
        let read = asked.into_iter().map(|responses| model.read(responses).unwrap());
        read.map(|answer| (tokens(&answer), answer)).collect::<Vec<_>>()
    };
    let (chosen, read) = (answers(&[CHOOSES]), answers(&[]));
    for ((chosen, _), (read, _)) in chosen.iter().zip(&read) {
        assert_eq!(chosen, read);
    }
    let sums = [&chosen[1].1, &read[1].1].map(|answer| {
        let sum = answer[0].output("cum_log_probs").unwrap();
        sum.to_slice::<f32>().unwrap()[0]
    });
    assert!((sums[0] - sums[1]).abs() < 1e-3, "{sums:?}");
}

/// Tokens are drawn from all of the vocabulary where the likeliest few are not enough: by the same
/// random numbers whatever else is drawn, and only from those that are wanted.
#[test]
fn what_is_drawn_from_all_tokens_depends_on_nobody_else() {
    let case = reference::first();
    let drawn = |bounds: &[Tensor]| with(crowd::endless(&case.input_ids, 12), bounds.to_vec());
    let bounds = [
        vec![float("temperature", 2.5), float("runtime_top_p", 0.95), seed(1)],
        // So flat that most random numbers fall on what is left out.
        vec![float("temperature", 30.0), float("runtime_top_p", 0.3), seed(2)],
        vec![float("temperature", 2.5), float("min_p", 0.000_1), seed(3)],
        vec![float("temperature", 2.5), float("min_p", 0.9), float("runtime_top_p", 0.99), seed(4)],
        vec![float("temperature", 2.5), seed(5)],
    ];
    let model = ferris(&[CHOOSES]);
    let alone: Vec<_> =
        bounds.iter().map(|bounds| tokens(&model.answer(drawn(bounds)).unwrap())).collect();
    let asked: Vec<_> = bounds.iter().map(|bounds| model.ask(drawn(bounds), 64)).collect();
    for (alone, responses) in alone.iter().zip(asked) {
        assert_eq!(&tokens(&model.read(responses).unwrap()), alone);
    }
    // Nothing but the likeliest is nine tenths as likely: the reference's tokens are left.
    assert_eq!(alone[3], case.greedy_ids[..12]);
    assert_ne!(alone[0], alone[4]);
}

/// What a small model answers to a prompt of its own, alone.
fn alone_case(model: &Generating, index: i32) -> reference::Case {
    let input_ids: Vec<i32> = (0..=3 * index).map(|place| (place * 7 + index * 5) % 64).collect();
    let greedy_ids = tokens(&model.answer(crowd::endless(&input_ids, 24)).unwrap());
    reference::Case { prompt: format!("prompt {index}"), input_ids, greedy_ids }
}

#[test]
fn the_layout_of_older_bloom_exports_is_known() {
    let bloom = tiny("bloom", &[("prefill_chunk_size", "5")]);
    for case in reference::read(&graphs().join("bloom/reference.json")) {
        let answer = bloom.answer(request(&case.input_ids, 24)).unwrap();
        assert_eq!(tokens(&answer), case.greedy_ids);
    }
}
