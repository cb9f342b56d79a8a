//! Tests over ensembles that answer in the test itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use consort_stage::Error;
use consort_testkit::signature;
use futures::FutureExt;
use proptest::prelude::*;

use super::*;

const TALKER: &str = "1: text_input BYTES[1], stop_words BYTES[-1]?, num_return_sequences INT32[1]?, \
     exclude_input_in_output BOOL[1]? ->> text_output BYTES[1], sequence_index INT32[1]";

const PLAIN: Texts = Texts { exclude_prompts: true, have_every_word: true };

/// An ensemble that gives these responses, and counts those that were taken from it.
struct Talker {
    responses: Vec<Result<Response>>,
    taken: Arc<AtomicUsize>,
}

impl Stage for Talker {
    fn call(&self, _: Request) -> Responses {
        let taken = Arc::clone(&self.taken);
        let count = move |_: &Result<Response>| {
            taken.fetch_add(1, Ordering::Relaxed);
        };
        Box::pin(stream::iter(self.responses.clone()).inspect(count))
    }
}

/// A piece of the text of this number.
fn piece(index: i32, text: impl AsRef<[u8]>, is_last: bool) -> Response {
    let outputs = vec![
        Tensor::from_strings(TEXT_OUTPUT, &[1, 1], &[text]),
        Tensor::from_vec(INDEX, &[1, 1], vec![index]),
    ];
    Response { outputs, is_last, ..Response::default() }
}

fn request<W: AsRef<[u8]>>(words: &[W]) -> Request {
    let words = Tensor::from_strings(STOP_WORDS, &[1, words.len() as i64], words);
    let prompt = Tensor::from_strings(TEXT_INPUT, &[1, 1], &["an END"]);
    Request { inputs: vec![prompt, words], ..Request::default() }
}

/// The texts of a response, and whether it is the last.
fn read(response: &Response) -> (Vec<String>, bool) {
    let texts =
        response.output(TEXT_OUTPUT).map(|text| text.to_strings().unwrap()).unwrap_or_default();
    let text = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
    (texts.into_iter().map(text).collect(), response.is_last)
}

fn all(responses: Responses) -> Vec<Result<Response>> {
    responses.collect::<Vec<_>>().now_or_never().expect("nothing is waited for")
}

/// What is answered to `request` when the ensemble gives `responses`, and how many of those were
/// taken.
fn answer_to(responses: Vec<Result<Response>>, request: Request) -> (Vec<Result<Response>>, usize) {
    let taken = Arc::new(AtomicUsize::new(0));
    let talker = Talker { responses, taken: Arc::clone(&taken) };
    let stage = ended(Arc::new(talker), &signature(TALKER), PLAIN);
    let answer = all(stage.call(request));
    (answer, taken.load(Ordering::Relaxed))
}

/// The pieces that come for `pieces` of one text, each with whether it is the last.
fn shown(words: &[&str], pieces: &[&str]) -> Vec<(String, bool)> {
    let last = pieces.len() - 1;
    let pieces = pieces.iter().enumerate().map(|(at, text)| Ok(piece(0, text, at == last)));
    let (answer, _) = answer_to(pieces.collect(), request(words));
    let read = |response: Result<Response>| {
        let (texts, is_last) = read(&response.unwrap());
        (texts.concat(), is_last)
    };
    answer.into_iter().map(read).collect()
}

fn pieces<const N: usize>(pieces: [(&str, bool); N]) -> Vec<(String, bool)> {
    pieces.map(|(text, is_last)| (text.to_owned(), is_last)).into()
}

#[test]
fn a_text_ends_before_a_word_within_its_pieces_and_nothing_follows() {
    let expected = pieces([("one", false), (" ", false), ("", false), ("", true)]);
    assert_eq!(shown(&["END"], &["one", " E", "N", "Dless", " more"]), expected);
}

#[test]
fn what_does_not_become_a_word_comes_with_the_next_piece_or_at_the_end() {
    let expected = pieces([("a", false), ("", false), ("ENx", false), ("b", true)]);
    assert_eq!(shown(&["END"], &["aE", "N", "x", "b"]), expected);
    assert_eq!(shown(&["END"], &["aE", "N"]), pieces([("a", false), ("EN", true)]));
}

#[test]
fn the_model_is_stopped_at_the_word_and_an_end_without_a_mark_is_one() {
    let text = |text| Ok(piece(0, text, false));
    let (answer, taken) =
        answer_to(vec![text("a"), text("END"), text("b"), text("c")], request(&["END"]));
    assert_eq!((answer.len(), taken), (2, 2));
    let (answer, _) = answer_to(vec![text("a"), text("bE")], request(&["END"]));
    let texts: Vec<_> = answer.into_iter().map(|response| read(&response.unwrap())).collect();
    assert_eq!(texts, [(vec!["a".to_owned()], false), (vec!["bE".to_owned()], false)]);
}

#[test]
fn each_of_several_texts_ends_at_its_own_word() {
    let several = |outputs: &[&str]| {
        let mut request = request(&["END"]);
        request.inputs.push(Tensor::from_vec(TEXTS, &[1, 1], vec![2_i32]));
        request.outputs = outputs.iter().map(|name| Arc::from(*name)).collect();
        request
    };
    let responses = || {
        let said =
            [(0, "aE"), (1, "bE"), (0, "ND"), (0, "never"), (1, "N"), (1, "D"), (1, "never")];
        said.map(|(index, text)| Ok(piece(index, text, false))).to_vec()
    };
    let (answer, taken) = answer_to(responses(), several(&[]));
    let mut texts = [String::new(), String::new()];
    let mut lasts = Vec::new();
    for response in answer {
        let response = response.unwrap();
        let (text, is_last) = read(&response);
        texts[index_of(&response).unwrap() as usize].push_str(&text.concat());
        lasts.push(is_last);
    }
    assert_eq!((texts, taken), (["a".to_owned(), "b".to_owned()], 6));
    assert!(lasts.pop().unwrap() && !lasts.contains(&true));
    // One that ends by itself is let go before the last response, which stays the last.
    let said = vec![Ok(piece(0, "aE", false)), Ok(piece(1, "bEND", true))];
    let (answer, _) = answer_to(said, several(&[]));
    let texts: Vec<_> = answer.into_iter().map(|response| read(&response.unwrap())).collect();
    assert_eq!(texts, [(vec!["aE".to_owned()], false), (vec!["b".to_owned()], true)]);
    // Where nobody can tell them apart they are left alone.
    let (answer, _) = answer_to(responses(), several(&[TEXT_OUTPUT]));
    assert_eq!(answer.len(), 7);
}

#[test]
fn words_in_the_prompt_do_not_end_the_text_behind_it() {
    let mut request = request(&["END"]);
    request.inputs.push(Tensor::from_bools(EXCLUDE_PROMPT, &[1, 1], &[false]));
    let responses = vec![Ok(piece(0, "an END of", false)), Ok(piece(0, " the END", true))];
    let (answer, _) = answer_to(responses, request);
    let texts: Vec<_> = answer.into_iter().map(|response| read(&response.unwrap()).0).collect();
    assert_eq!(texts, [["an END of"], [" the "]]);
}

#[test]
fn each_row_of_a_batch_has_words_of_its_own() {
    let row = Tensor::from_strings(TEXT_OUTPUT, &[2, 1], &["a b", "a b"]);
    let talker = Talker { responses: vec![Ok(Response::only(vec![row]))], taken: Arc::default() };
    let takes = "8: text_input BYTES[1], stop_words BYTES[-1] -> text_output BYTES[1]";
    let stage = ended(Arc::new(talker), &signature(takes), PLAIN);
    let words = Tensor::from_strings(STOP_WORDS, &[2, 2], &["b", "", "a", ""]);
    let prompt = Tensor::from_strings(TEXT_INPUT, &[2, 1], &["", ""]);
    let request = Request { inputs: vec![prompt, words], ..Request::default() };
    let answer: Vec<_> = all(stage.call(request));
    assert_eq!(read(answer[0].as_ref().unwrap()), (vec!["a ".to_owned(), String::new()], true));
}

#[test]
fn what_was_shown_comes_before_an_error_and_what_was_held_does_not() {
    let responses = vec![Ok(piece(0, "aE", false)), Err(Error::internal("broken"))];
    let (answer, _) = answer_to(responses, request(&["END"]));
    assert_eq!(read(answer[0].as_ref().unwrap()).0, ["a"]);
    assert!(answer[1].is_err());
    assert_eq!(answer.len(), 2);
}

proptest! {
    #[test]
    fn the_pieces_are_the_text_up_to_the_stop_word_wherever_tokens_end(
        said in prop::collection::vec("[ab🦀]{0,3}", 1..12),
        words in prop::collection::vec("[ab🦀]{0,3}", 0..4),
        is_marked in any::<bool>(),
    ) {
        let last = said.len() - 1;
        let responses = said.iter().enumerate();
        let responses = responses.map(|(at, text)| Ok(piece(0, text, is_marked && at == last)));
        let (answer, _) = answer_to(responses.collect(), request(&words));
        let texts = answer.into_iter().map(|response| read(&response.unwrap()).0.concat());
        let whole = said.concat();
        let mut stop = Stop::new(Arc::new(Words::new(&words)));
        let (expected, is_over) = stop.push(whole.into_bytes());
        let rest = if is_over { Vec::new() } else { stop.finish() };
        prop_assert_eq!(texts.collect::<String>().into_bytes(), [expected, rest].concat());
    }
}
