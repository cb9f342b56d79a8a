//! Graphs in fp32, int8 and int4, made by ONNX Runtime's own tools: each gives the tokens of a
//! plain loop over the same graph.

use crate::asking::{tiny, tokens};
use crate::crowd::endless;
use crate::loaded::graphs;
use crate::reference::{Case, read};

fn cases(graph: &str) -> Vec<Case> {
    read(&graphs().join(graph).join("reference.json"))
}

#[test]
fn every_kind_of_weights_gives_the_tokens_of_its_graph() {
    for graph in ["llama_fp32", "llama_int8", "llama_int4"] {
        let model = tiny(graph, &[]);
        for case in cases(graph) {
            let answer = model.answer(endless(&case.input_ids, 24)).unwrap();
            assert_eq!(tokens(&answer), case.greedy_ids, "{graph}");
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
            asked.iter().map(|case| model.ask(endless(&case.input_ids, 24), 4)).collect();
        for (case, responses) in asked.iter().zip(all) {
            assert_eq!(tokens(&model.read(responses).unwrap()), case.greedy_ids, "{graph}");
        }
    }
}
