//! Several texts for one prompt: their numbers, their seeds, their ends, and what they share.

use consort_stage::{Code, Request, Response, Signature};

use crate::asking::{
    NAME, ferris, float, ids, int, seed, signature, streaming, text, tokens, with,
};
use crate::generating::{Generating, request};
use crate::loaded::{model, root};
use crate::reference::{cases, first};

fn several(request: Request, count: i32) -> Request {
    with(request, [int("num_return_sequences", count)])
}

/// The responses to each text, in the order of their numbers.
fn apart(answer: Vec<Response>, count: usize) -> Vec<Vec<Response>> {
    let mut texts = vec![Vec::new(); count];
    for response in answer {
        let index = ids(&response, "sequence_index")[0] as usize;
        texts[index].push(response);
    }
    texts
}

fn is_last(response: &Response) -> bool {
    response.output("is_final").unwrap().to_bools().unwrap()[0]
}

#[test]
fn every_text_ends_once_and_the_request_with_the_last_of_them() {
    let ferris = ferris(&[]);
    let case = first();
    for streams in [false, true] {
        let asked = several(request(&case.input_ids, 20), 3);
        let answer = ferris.answer(if streams { streaming(asked) } else { asked }).unwrap();
        let last: Vec<_> = answer.iter().map(|response| response.is_last).collect();
        assert_eq!(last.iter().filter(|is_last| **is_last).count(), 1);
        assert!(last[last.len() - 1]);
        for text in apart(answer, 3) {
            assert_eq!(text.len(), if streams { 20 } else { 1 });
            assert_eq!(text.iter().filter(|response| is_last(response)).count(), 1);
            assert_eq!(tokens(&text), case.greedy_ids[..20]);
        }
    }
}

#[test]
fn one_text_has_no_number_even_where_it_is_named() {
    let mut asked = request(&first().input_ids, 2);
    asked.outputs = vec!["output_ids".into(), "sequence_index".into()];
    let answer = ferris(&[]).answer(asked).unwrap();
    assert!(answer[0].output("sequence_index").is_none());
    assert_eq!(answer[0].outputs.len(), 1);
}

#[test]
fn each_text_is_drawn_by_itself_and_the_first_as_it_is_alone() {
    let ferris = ferris(&[("max_active_requests", "4")]);
    let case = first();
    let asked = || with(request(&case.input_ids, 24), [float("temperature", 1.5), seed(9)]);
    let alone = tokens(&ferris.answer(asked()).unwrap());
    // More than there are slots for, and beside another.
    let beside = ferris.ask(streaming(request(&case.input_ids, 64)), 100);
    let answer = ferris.answer(several(asked(), 6)).unwrap();
    let texts: Vec<_> = apart(answer, 6).iter().map(|text| tokens(text)).collect();
    assert_eq!(texts[0], alone);
    let mut different = texts.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 6);
    assert_eq!(tokens(&ferris.read(beside).unwrap()), case.greedy_ids);
    let again = ferris.answer(several(asked(), 6)).unwrap();
    assert_eq!(apart(again, 6).iter().map(|text| tokens(text)).collect::<Vec<_>>(), texts);
}

#[test]
fn the_prompt_is_computed_once_for_all_of_them() {
    let ferris = ferris(&[("prefill_chunk_size", "8")]);
    let prompt: Vec<_> = cases().iter().flat_map(|case| case.input_ids.clone()).collect();
    let answer = ferris.answer(several(request(&prompt, 4), 4)).unwrap();
    for (index, text) in apart(answer, 4).iter().enumerate() {
        let cached = ids(&text[0], "cached_tokens")[0] as usize;
        assert_eq!(cached, if index == 0 { 0 } else { prompt.len() - 1 });
    }
}

#[test]
fn the_prompt_is_computed_once_for_requests_that_come_together() {
    let ferris = ferris(&[("prefill_chunk_size", "8")]);
    let prompt: Vec<_> = cases().iter().flat_map(|case| case.input_ids.clone()).collect();
    let asked: Vec<_> = (0..4).map(|_| ferris.ask(request(&prompt, 4), 8)).collect();
    let cached = asked.into_iter().map(|responses| {
        let answer = ferris.read(responses).unwrap();
        ids(&answer[0], "cached_tokens")[0] as usize
    });
    let cached: Vec<_> = cached.collect();
    assert_eq!(cached, [0, prompt.len() - 1, prompt.len() - 1, prompt.len() - 1]);
}

#[test]
fn more_texts_than_their_caller_has_room_for_wait_and_none_is_lost() {
    let ferris = ferris(&[]);
    let case = first();
    let asked = streaming(several(request(&case.input_ids, 12), 9));
    let mut responses = ferris.ask(asked, 2);
    // A caller that reads late has nothing of it but what it has room for.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut answer = vec![ferris.next(&mut responses).unwrap().unwrap()];
    answer.extend(ferris.read(responses).unwrap());
    for text in apart(answer, 9) {
        assert_eq!(tokens(&text), case.greedy_ids[..12]);
    }
}

#[test]
fn several_texts_keep_to_one_guide() {
    let ferris = ferris(&[]);
    let asked = with(
        several(request(&first().input_ids, 20), 5),
        [
            float("temperature", 2.0),
            text("guided_decoding_guide_type", "choice"),
            text("guided_decoding_guide", r#"["one", "two", "three"]"#),
        ],
    );
    let answer = ferris.answer(asked).unwrap();
    assert_eq!(answer.len(), 5);
    assert!(answer.iter().all(|response| !ids(response, "output_ids").is_empty()));
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_name() {
    let ferris = ferris(&[]);
    for count in [0, -1, 129] {
        let error = ferris.answer(several(request(&[5], 2), count)).unwrap_err();
        assert!(error.message().contains("`num_return_sequences`"), "{error}");
        assert_eq!(error.code(), Code::InvalidInput);
    }
    let signature = Signature { is_decoupled: false, ..signature() };
    let model = model(NAME, signature, &[]);
    let whole = Generating::start(&root().join("model_repository/ferris"), &model);
    let error = whole.answer(several(request(&[5], 2), 2)).unwrap_err();
    assert!(error.message().contains("`num_return_sequences` is 2"), "{error}");
    assert_eq!(error.input(), Some("num_return_sequences"));
    assert!(whole.answer(several(request(&[5], 2), 1)).is_ok());
}
