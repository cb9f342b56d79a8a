//! Which ensembles are made of which, so that the inner ones come first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::spec::Spec;

/// An ensemble in the order of [`nesting`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested<'a> {
    /// The ensemble.
    pub spec: &'a Spec,
    /// What is wrong when the ensemble is made of itself, by however long a way.
    pub cycle: Option<String>,
}

/// The ensembles, each behind those it is made of; those in a cycle come in any order.
pub fn nesting<'a>(ensembles: impl IntoIterator<Item = &'a Spec>) -> Vec<Nested<'a>> {
    let ensembles: BTreeMap<&str, &Spec> =
        ensembles.into_iter().map(|spec| (&*spec.name, spec)).collect();
    let mut order = Order { ensembles: &ensembles, seen: BTreeSet::new(), sorted: Vec::new() };
    for name in ensembles.keys() {
        order.visit(name);
    }
    let nested = |name| Nested { spec: ensembles[name], cycle: cycle(&ensembles, name) };
    order.sorted.into_iter().map(nested).collect()
}

type Ensembles<'a> = BTreeMap<&'a str, &'a Spec>;

struct Order<'a, 'b> {
    ensembles: &'b Ensembles<'a>,
    seen: BTreeSet<&'a str>,
    sorted: Vec<&'a str>,
}

impl<'a> Order<'a, '_> {
    fn visit(&mut self, name: &'a str) {
        if self.seen.insert(name) {
            for inner in parts(self.ensembles, name) {
                self.visit(inner);
            }
            self.sorted.push(name);
        }
    }
}

/// The ensembles that this one calls itself.
fn parts<'a>(ensembles: &Ensembles<'a>, name: &str) -> Vec<&'a str> {
    let steps = ensembles.get(name).into_iter().flat_map(|spec| &spec.steps);
    steps.map(|step| &*step.model).filter(|model| ensembles.contains_key(model)).collect()
}

/// The shortest way from an ensemble back to itself, as a message.
fn cycle(ensembles: &Ensembles<'_>, name: &str) -> Option<String> {
    let mut reached_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = VecDeque::from([name]);
    while let Some(outer) = open.pop_front() {
        for inner in parts(ensembles, outer) {
            if inner == name {
                let mut path = vec![name];
                let mut at = outer;
                while at != name {
                    path.push(at);
                    at = reached_from[at];
                }
                path.push(name);
                path.reverse();
                let path = path.join(" -> ");
                return Some(format!("circular dependency between ensembles: {path}"));
            }
            if !reached_from.contains_key(inner) {
                reached_from.insert(inner, outer);
                open.push_back(inner);
            }
        }
    }
    None
}
