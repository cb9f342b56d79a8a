//! Callers that leave: what nobody waits for is stopped while it is computed.

use std::thread;
use std::time::{Duration, Instant};

use consort_stage::Code;

use crate::asking::{configured, ids, int, tokens, with};
use crate::generating::{Generating, prompt, request};
use crate::loaded::Folder;

/// Long enough for a run to have begun.
const A_MOMENT: Duration = Duration::from_millis(200);
/// Far more than a round of the slow graph takes, far less than the rounds of a long prompt.
const SOON: Duration = Duration::from_secs(5);

/// A decoder that takes a tenth of a second, on an idle core, for each token.
fn slow() -> Generating {
    Generating::start(Folder::of("slow_decoder").path(), &configured(&[]))
}

#[test]
fn a_prompt_that_nobody_waits_for_any_more_is_not_fed_to_its_end() {
    let mut slow = slow();
    let responses = slow.ask(prompt(&[1; 120]), 4);
    thread::sleep(A_MOMENT);
    slow.leave(responses);
    let left_at = Instant::now();
    // The next one gets what it gets alone.
    let answer = slow.answer(request(&[1], 1)).unwrap();
    assert_eq!(tokens(&answer), [1]);
    slow.stop();
    assert!(left_at.elapsed() < SOON, "{:?}", left_at.elapsed());
}

#[test]
fn a_run_that_somebody_waits_for_goes_on_when_others_leave() {
    let slow = slow();
    let several = with(request(&[1], 2), [int("num_return_sequences", 2)]);
    let staying = slow.ask(several, 8);
    thread::sleep(Duration::from_millis(50));
    // It never had a turn, or shares one.
    slow.leave(slow.ask(request(&[1], 1), 4));
    let answer = slow.read(staying).unwrap();
    assert_eq!(answer.len(), 2);
    for response in &answer {
        assert_eq!(ids(response, "output_ids"), [1, 2]);
    }
}

#[test]
fn a_deadline_that_passes_before_its_turn_is_told() {
    let slow = slow();
    let mut late = prompt(&[1]);
    late.context.deadline = Some(Instant::now());
    assert_eq!(slow.answer(late).unwrap_err().code(), Code::DeadlineExceeded);
}
