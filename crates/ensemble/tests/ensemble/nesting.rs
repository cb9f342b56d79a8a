//! Ensembles inside ensembles: in which order they are made, and which can never be.

use consort_ensemble::{Spec, nesting};

use crate::graph::ensemble;

/// `a: b c` is an ensemble `a` with a step for `b` and one for `c`.
fn ordered(ensembles: &[&str]) -> Vec<String> {
    let specs: Vec<Spec> = ensembles.iter().map(|text| spec(text)).collect();
    let shown = nesting(&specs).into_iter().map(|nested| match nested.cycle {
        None => nested.spec.name.to_string(),
        Some(cycle) => format!("{}: {cycle}", nested.spec.name),
    });
    shown.collect()
}

fn spec(text: &str) -> Spec {
    let (name, steps) = text.split_once(':').unwrap();
    let mut graph = ensemble("x INT32[1] -> y INT32[1]");
    for model in steps.split_whitespace() {
        graph = graph.step(model, "IN=x -> OUT=y");
    }
    graph.spec.name = name.into();
    graph.spec
}

#[test]
fn inner_ensembles_come_first() {
    assert_eq!(ordered(&["a: b c", "b: c model", "c: model", "d: a"]), ["c", "b", "a", "d"]);
}

#[test]
fn each_ensemble_in_a_cycle_says_its_own_way_back() {
    assert_eq!(
        ordered(&["a: b", "b: model c", "c: a", "outside: a", "self: self"]),
        [
            "c: circular dependency between ensembles: c -> a -> b -> c",
            "b: circular dependency between ensembles: b -> c -> a -> b",
            "a: circular dependency between ensembles: a -> b -> c -> a",
            "outside",
            "self: circular dependency between ensembles: self -> self",
        ]
    );
}
