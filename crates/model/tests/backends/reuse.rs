//! Prompts that begin alike over caches that grow: what was computed is copied, in every layout.

use consort_stage::Response;

use crate::asking::{ids, int, streaming, tiny, tokens, with};
use crate::crowd::endless;
use crate::generating::Generating;
use crate::loaded::Folder;

/// As on a card: rows are put together where they lie.
const CHOOSES: (&str, &str) = ("choose_in_graph", "true");

const PROMPT: [i32; 12] = [7, 2, 4, 6, 8, 10, 12, 14, 9, 11, 13, 5];

fn cached(answer: &[Response]) -> i32 {
    ids(&answer[0], "cached_tokens")[0]
}

#[test]
fn a_prompt_takes_over_the_beginning_of_a_text_that_has_ended_or_runs() {
    for (convention, settings) in [
        ("llama_optimum", &[][..]),
        ("llama_optimum_unplaced", &[]),
        ("bloom", &[]),
        ("llama_optimum", &[CHOOSES]),
        ("llama_optimum_unplaced", &[CHOOSES]),
        ("bloom", &[CHOOSES]),
    ] {
        let model = tiny(convention, settings);
        let first = model.answer(endless(&PROMPT, 20)).unwrap();
        assert_eq!(cached(&first), 0);
        let again = model.answer(endless(&PROMPT, 20)).unwrap();
        assert_eq!(cached(&again), 11, "{convention}");
        assert_eq!(tokens(&again), tokens(&first), "{convention}");
        // Behind its own answer, of which the last token was never fed.
        let longer = [&PROMPT[..], &tokens(&first)[..10]].concat();
        let further = model.answer(endless(&longer, 10)).unwrap();
        assert_eq!(cached(&further), 21, "{convention}");
        assert_eq!(tokens(&further), tokens(&first)[10..], "{convention}");
        // Another way after eight tokens.
        let other = [&PROMPT[..8], &[1, 3, 1, 3]].concat();
        let parted = model.answer(endless(&other, 20)).unwrap();
        assert_eq!(cached(&parted), 8, "{convention}");
        let alone = tiny(convention, &[]).answer(endless(&other, 20)).unwrap();
        assert_eq!(tokens(&parted), tokens(&alone), "{convention}");
        // While another with the same prompt is in the middle of its text.
        let mut running = model.ask(streaming(endless(&PROMPT, 40)), 64);
        assert!(model.next(&mut running).is_some());
        let beside = model.answer(endless(&PROMPT, 20)).unwrap();
        assert_eq!(tokens(&beside), tokens(&first), "{convention}");
        assert_eq!(tokens(&model.read(running).unwrap())[..19], tokens(&first)[1..]);
    }
}

#[test]
fn several_texts_of_one_prompt_compute_it_once() {
    let three = ("max_active_requests", "3");
    compute_it_once(&tiny("llama_optimum", &[three]));
    compute_it_once(&tiny("llama_optimum", &[CHOOSES, three]));
}

fn compute_it_once(model: &Generating) {
    let alone = tokens(&model.answer(endless(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], 9)).unwrap());
    let asked = with(endless(&PROMPT, 8), [int("num_return_sequences", 3)]);
    let answer = model.answer(asked).unwrap();
    let mut held: Vec<_> =
        answer.iter().map(|response| ids(response, "cached_tokens")[0]).collect();
    held.sort_unstable();
    assert_eq!(held, [0, 11, 11]);
    // Every slot was taken, so nothing was kept of the one before.
    let again = model.answer(endless(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], 9)).unwrap();
    assert_eq!((cached(&again), tokens(&again)), (0, alone));
}

#[test]
fn what_was_taken_over_is_told_with_the_first_token_alone() {
    let model = tiny("llama_optimum", &[]);
    let answer = model.read(model.ask(streaming(endless(&PROMPT, 4)), 8)).unwrap();
    let tells = |response: &Response| response.output("cached_tokens").is_some();
    assert_eq!(answer.iter().map(tells).collect::<Vec<_>>(), [true, false, false, false]);
}

#[test]
fn a_graph_with_a_branch_for_its_first_step_computes_every_prompt() {
    let adder = Generating::start(Folder::of("merged").path(), &crate::asking::configured(&[]));
    for _ in 0..2 {
        let answer = adder.answer(endless(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 3)).unwrap();
        assert_eq!((cached(&answer), tokens(&answer)), (0, vec![7, 14, 12]));
    }
}
