//! Graphs in fp32, int8 and int4, made by ONNX Runtime's own tools: each gives the tokens of a
//! plain loop over the same graph, on whatever processor.

use crate::asking::{tiny, tokens};
use crate::crowd::endless;
use crate::plain;

/// How many tokens a text has.
const TOKENS: i32 = 24;
const PROMPTS: [&[i32]; 3] = [&[5, 9, 11, 13], &[3], &[7, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]];

/// Each prompt with its continuation.
fn cases(graph: &str) -> Vec<(&'static [i32], Vec<i32>)> {
    let of = |prompt| (prompt, plain::continuation(graph, prompt, TOKENS as usize));
    PROMPTS.map(of).into()
}

#[test]
fn every_kind_of_weights_gives_the_tokens_of_its_graph() {
    for graph in ["llama_fp32", "llama_int8", "llama_int4"] {
        let model = tiny(graph, &[]);
        for (prompt, expected) in cases(graph) {
            let answer = model.answer(endless(prompt, TOKENS)).unwrap();
            assert_eq!(tokens(&answer), expected, "{graph}");
        }
    }
}

#[test]
fn those_that_quantise_no_activations_give_them_in_a_batch_too() {
    for graph in ["llama_fp32", "llama_int4"] {
        let model = tiny(graph, &[]);
        let cases = cases(graph);
        let asked: Vec<_> = (0..12).map(|index| &cases[index % cases.len()]).collect();
        let all: Vec<_> =
            asked.iter().map(|(prompt, _)| model.ask(endless(prompt, TOKENS), 4)).collect();
        for ((_, expected), responses) in asked.iter().zip(all) {
            assert_eq!(tokens(&model.read(responses).unwrap()), *expected, "{graph}");
        }
    }
}
