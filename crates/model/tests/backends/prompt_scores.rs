//! What a request is told of its own prompt: the log-probabilities of its tokens and the logits
//! behind them, whatever way the prompt is computed.

use consort_stage::{Code, Request, Response};

use crate::asking::{configured, ferris, finish, flag, ids, int, streaming, tiny, tokens, with};
use crate::crowd::endless;
use crate::generating::{Generating, prompt, request};
use crate::loaded::Folder;
use crate::reference;

/// What is the default on a card: the graph makes its mask and picks the likeliest token.
const CHOOSES: (&str, &str) = ("choose_in_graph", "true");
/// Several pieces for every prompt here, and more requests than places.
const BUSY: [(&str, &str); 2] = [("prefill_chunk_size", "7"), ("max_active_requests", "5")];

fn floats(response: &Response, name: &str) -> Vec<f32> {
    response.output(name).unwrap().to_slice::<f32>().unwrap().into_owned()
}

/// The request with the log-probabilities of its prompt, and of so many others in each place.
fn telling(request: Request, alternatives: i32) -> Request {
    with(request, [int("prompt_logprobs", alternatives)])
}

/// Nothing but the log-probabilities of a text.
fn scored(text: &[i32]) -> Request {
    telling(request(text, 0), 3)
}

fn close(left: &[f32], right: &[f32], tolerance: f32) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| (left - right).abs() < tolerance)
}

/// Whether a response tells of its prompt what the reference has.
fn check(response: &Response, text: &[i32], expected: &reference::Likely) {
    let count = text.len() as i64;
    assert_eq!(ids(response, "prompt_ids"), text);
    let told = floats(response, "prompt_log_probs");
    assert!(close(&told, &expected.log_probs, 2e-3), "{told:?}");
    let table = response.output("prompt_top_logprob_ids").unwrap();
    assert_eq!(table.shape, [1, count - 1, 3]);
    let (likeliest, values) =
        (ids(response, "prompt_top_logprob_ids"), floats(response, "prompt_top_logprob_values"));
    let places = likeliest.chunks(3).zip(values.chunks(3)).zip(text[1..].iter().zip(&told));
    for (place, ((ids, values), (token, log_prob))) in places.enumerate() {
        assert_eq!(ids[0], expected.likeliest_ids[place][0], "in place {place}");
        assert!(values.is_sorted_by(|left, right| left >= right), "{values:?}");
        if let Some(index) = ids.iter().position(|id| id == token) {
            // To the last bit, for harnesses find out so whether a text is the likeliest.
            assert_eq!(values[index].to_bits(), log_prob.to_bits());
        }
    }
}

#[test]
fn the_log_probabilities_of_a_prompt_are_those_of_a_plain_computation() {
    for settings in [&[][..], &BUSY[..1], &[CHOOSES], &[CHOOSES, BUSY[0]]] {
        let ferris = ferris(settings);
        for (text, expected) in reference::likely() {
            let answer = ferris.answer(scored(&text)).unwrap();
            assert_eq!((tokens(&answer), finish(&answer)), (vec![], "length".to_owned()));
            check(&answer[0], &text, &expected);
        }
    }
}

#[test]
fn a_busy_batch_tells_of_each_prompt_what_it_is_told_alone() {
    let cases = reference::cases();
    // The last have more in a step than are told of in one.
    let large = [("prefill_chunk_size", "1024"), CHOOSES];
    for settings in [&BUSY[..], &[CHOOSES, BUSY[0], BUSY[1]], &large] {
        let ferris = ferris(settings);
        // Twice, so that the second time every prompt was computed before.
        for _ in 0..2 {
            let crowd: Vec<_> = cases
                .iter()
                .map(|case| ferris.ask(streaming(request(&case.input_ids, 64)), 64))
                .collect();
            let likely = reference::likely();
            let asked: Vec<_> = likely
                .iter()
                .map(|(text, _)| ferris.ask(telling(streaming(request(text, 4)), 3), 8))
                .collect();
            for (responses, (text, expected)) in asked.into_iter().zip(&likely) {
                let answer = ferris.read(responses).unwrap();
                check(&answer[0], text, expected);
                assert_eq!(ids(&answer[0], "cached_tokens"), [0]);
                // Once, in the first of several responses.
                let later = answer[1..].iter();
                assert!(later.clone().all(|it| it.output("prompt_log_probs").is_none()));
                assert_eq!(tokens(&answer).len(), 4);
            }
            for (responses, case) in crowd.into_iter().zip(&cases) {
                assert_eq!(tokens(&ferris.read(responses).unwrap()), case.greedy_ids);
            }
        }
    }
}

#[test]
fn a_prompt_that_tells_is_computed_and_then_taken_over_by_others() {
    for model in [ferris(&[]), ferris(&BUSY)] {
        let (text, expected) = reference::likely().swap_remove(0);
        let plain = model.answer(request(&text, 8)).unwrap();
        let cached = |answer: &[Response]| ids(&answer[0], "cached_tokens")[0];
        let told = model.answer(telling(request(&text, 8), 3)).unwrap();
        check(&told[0], &text, &expected);
        assert_eq!((cached(&told), tokens(&told)), (0, tokens(&plain)));
        let again = model.answer(request(&text, 8)).unwrap();
        assert_eq!(cached(&again), text.len() as i32 - 1);
        assert_eq!(tokens(&again), tokens(&plain));
    }
}

/// A prompt long enough to be taken over.
const PROMPT: [i32; 12] = [7, 2, 4, 6, 8, 10, 12, 14, 9, 11, 13, 5];

#[test]
fn every_convention_tells_the_same() {
    let told = |model: &Generating| {
        // One that could be taken over, if it were not for the logits.
        model.answer(endless(&PROMPT, 4)).unwrap();
        let asked = telling(endless(&PROMPT, 4), 3);
        let answer = model.answer(with(asked, [flag("return_context_logits", true)])).unwrap();
        assert_eq!(ids(&answer[0], "cached_tokens"), [0]);
        (floats(&answer[0], "prompt_log_probs"), floats(&answer[0], "context_logits"))
    };
    let chunk = ("prefill_chunk_size", "5");
    let growing = ("past_present_share_buffer", "false");
    let one_left = ("prefill_chunk_size", "11");
    let (log_probs, logits) = told(&tiny("llama_gqa", &[]));
    assert_eq!((log_probs.len(), logits.len()), (11, 12 * 64));
    let models = [
        tiny("llama_gqa", &[chunk]),
        tiny("llama_gqa", &[one_left]),
        tiny("llama_gqa", &[CHOOSES]),
        tiny("llama_gqa", &[CHOOSES, chunk]),
        tiny("llama_gqa", &[growing]),
        // Their logits are those of the last token, so that they are fed token by token.
        tiny("llama_gqa_last", &[]),
        tiny("llama_gqa_last", &[CHOOSES, chunk]),
        tiny("llama_gqa_last", &[growing]),
        tiny("llama_optimum", &[]),
        tiny("llama_optimum", &[chunk]),
        tiny("llama_optimum", &[one_left]),
        tiny("llama_optimum", &[CHOOSES]),
        tiny("llama_optimum", &[CHOOSES, chunk]),
        tiny("llama_optimum_unplaced", &[CHOOSES, one_left]),
        tiny("llama_optimum_unplaced", &[chunk]),
    ];
    for (index, model) in models.iter().enumerate() {
        let (others, rows) = told(model);
        assert!(close(&others, &log_probs, 1e-3), "model {index}: {others:?} and {log_probs:?}");
        assert!(close(&rows, &logits, 1e-3), "model {index}");
    }
}

#[test]
fn half_precision_and_older_layouts_tell_what_their_logits_are() {
    for convention in ["llama_half", "bloom"] {
        let model = tiny(convention, &[("prefill_chunk_size", "5")]);
        let asked = telling(request(&PROMPT, 0), 0);
        let answer = model.answer(with(asked, [flag("return_context_logits", true)])).unwrap();
        let rows = floats(&answer[0], "context_logits");
        let vocabulary = rows.len() / PROMPT.len();
        let expected: Vec<f32> = rows
            .chunks(vocabulary)
            .zip(&PROMPT[1..])
            .map(|(row, next)| {
                let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                (f64::from(row[*next as usize]) - sum.ln()) as f32
            })
            .collect();
        let told = floats(&answer[0], "prompt_log_probs");
        assert!(close(&told, &expected, 1e-4), "{convention}: {told:?} and {expected:?}");
    }
}

#[test]
fn a_graph_that_takes_prompts_whole_tells_of_every_token() {
    // It finds the sum of all tokens before, of 16, the likeliest.
    for graph in ["merged", "unmerged"] {
        let adder = Generating::start(Folder::of(graph).path(), &configured(&BUSY));
        let answer = adder.answer(telling(request(&[1, 2, 3, 4, 9, 9], 2), 1)).unwrap();
        let likeliest = ids(&answer[0], "prompt_top_logprob_ids");
        assert_eq!((likeliest, tokens(&answer)), (vec![1, 3, 6, 10, 3], vec![12, 8]), "{graph}");
    }
}

#[test]
fn the_first_of_several_texts_tells_of_their_prompt() {
    let model = tiny("llama_optimum", &[]);
    let asked = with(telling(endless(&PROMPT, 3), 1), [int("num_return_sequences", 3)]);
    let answer = model.answer(asked).unwrap();
    assert_eq!(answer.len(), 3);
    for response in &answer {
        let is_first = ids(response, "sequence_index") == [0];
        assert_eq!(response.output("prompt_log_probs").is_some(), is_first);
    }
    // Nor has any of them a token when none is wanted, whatever they take over.
    let model = tiny("llama_gqa", &[("max_active_requests", "3")]);
    let asked = with(telling(request(&PROMPT, 0), 1), [int("num_return_sequences", 3)]);
    let answer = model.answer(asked).unwrap();
    assert_eq!((answer.len(), tokens(&answer)), (3, vec![]));
}

#[test]
fn a_prompt_of_one_token_has_nothing_to_tell_and_one_may_fill_the_context() {
    let model = tiny("llama_gqa", &[]);
    let answer = model.answer(scored(&[5])).unwrap();
    assert_eq!(answer[0].output("prompt_log_probs").unwrap().shape, [1, 0]);
    assert_eq!(answer[0].output("prompt_top_logprob_ids").unwrap().shape, [1, 0, 3]);
    let full: Vec<i32> = (0..64).collect();
    let answer = model.answer(scored(&full)).unwrap();
    assert_eq!(floats(&answer[0], "prompt_log_probs").len(), 63);
    let over = model.answer(scored(&[5; 65])).unwrap_err();
    assert!(over.message().contains("65 tokens; the context of 64"), "{over}");
    let error = model.answer(telling(request(&full, 1), 0)).unwrap_err();
    assert!(error.message().contains("room for one more"), "{error}");
}

#[test]
fn logits_come_as_the_model_gave_them_and_log_probabilities_are_made_of_them() {
    let asked = |is_streaming: bool| {
        let asked = with(
            endless(&PROMPT, 6),
            [flag("return_generation_logits", true), flag("return_log_probs", true)],
        );
        // A bias is not in them.
        let asked = with(asked, [int("logit_bias_ids", 3)]);
        let bias = consort_stage::Tensor::from_vec("logit_bias_weights", &[1, 1], vec![50.0_f32]);
        let asked = with(asked, [bias]);
        if is_streaming { streaming(asked) } else { asked }
    };
    let model = tiny("llama_gqa", &[]);
    let whole = model.answer(asked(false)).unwrap();
    assert_eq!(whole[0].output("generation_logits").unwrap().shape, [1, 1, 6, 64]);
    assert_eq!(tokens(&whole), [3; 6]);
    let rows = floats(&whole[0], "generation_logits");
    for (row, log_prob) in rows.chunks(64).zip(floats(&whole[0], "output_log_probs")) {
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        assert!((f64::from(row[3]) - sum.ln() - f64::from(log_prob)).abs() < 1e-4);
    }
    let pieces = model.read(model.ask(asked(true), 8)).unwrap();
    let streamed: Vec<f32> =
        pieces.iter().flat_map(|piece| floats(piece, "generation_logits")).collect();
    assert_eq!((pieces.len(), close(&streamed, &rows, 1e-4)), (6, true));
}

#[test]
fn what_is_told_is_only_what_was_asked_for() {
    let answer = tiny("llama_gqa", &[]).answer(endless(&PROMPT, 2)).unwrap();
    let names = ["prompt_ids", "prompt_log_probs", "context_logits", "generation_logits"];
    assert!(names.iter().all(|name| answer[0].output(name).is_none()));
}

#[test]
fn what_cannot_be_told_is_refused_by_name() {
    // Two rows of 64 logits.
    let model = tiny("llama_gqa", &[("max_logits_bytes", "512")]);
    let context = || flag("return_context_logits", true);
    let generation = || flag("return_generation_logits", true);
    assert!(model.answer(with(request(&[1, 2], 0), [context()])).is_ok());
    assert!(model.answer(with(request(&[1, 2], 2), [generation()])).is_ok());
    // Token by token no more than a row waits.
    assert!(model.answer(streaming(with(request(&[1, 2], 20), [generation()]))).is_ok());
    for (asked, name) in [
        (with(request(&[1, 2, 3], 0), [context()]), "return_context_logits"),
        (with(request(&[1, 2], 3), [generation()]), "return_generation_logits"),
        (with(request(&[1], 2), [context(), generation()]), "return_context_logits"),
        (with(prompt(&[1, 2]), [int("prompt_logprobs", 21)]), "prompt_logprobs"),
        (with(prompt(&[1, 2]), [int("prompt_logprobs", -1)]), "prompt_logprobs"),
        (request(&[1, 2], 0), "request_output_len"),
    ] {
        let error = model.answer(asked).unwrap_err();
        assert_eq!((error.code(), error.input()), (Code::InvalidInput, Some(name)), "{error}");
    }
}
