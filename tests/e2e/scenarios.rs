//! Scenarios: a repository, requests, and the answers they must get; each runs in both layouts.

use std::fs;

use serde::Deserialize;
use serde_json::Value;

use crate::program::checkout;
use crate::repository::Repository;
use crate::system::{Layout, System};

/// A file of `tests/scenarios`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// Configurations by model.
    models: std::collections::BTreeMap<String, String>,
    /// What is asked, in order.
    requests: Vec<Exchange>,
}

/// One request and what must come back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    name: String,
    path: String,
    body: Value,
    #[serde(default = "ok")]
    status: u16,
    /// Members that the answer must have, as they stand here.
    #[serde(default)]
    answer: Value,
    /// What the error must contain.
    #[serde(default)]
    error: Vec<String>,
}

fn ok() -> u16 {
    200
}

#[test]
fn every_scenario_gets_its_answers_in_one_process_and_as_services() {
    let folder = checkout().join("tests/scenarios");
    let files = fs::read_dir(folder).expect("the folder is there");
    let mut count = 0;
    for file in files {
        let path = file.expect("it can be read").path();
        let text = fs::read_to_string(&path).expect("it can be read");
        let scenario: Scenario = serde_yaml::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut repository = Repository::new();
        for (model, config) in &scenario.models {
            repository = repository.with(model, config);
        }
        for layout in Layout::ALL {
            let system = System::start(layout, repository.path());
            for exchange in &scenario.requests {
                exchange.check(&system, &format!("{} {layout:?}", path.display()));
            }
        }
        count += 1;
    }
    assert!(count > 0, "no scenario");
}

impl Exchange {
    fn check(&self, system: &System, place: &str) {
        let answer = system.post(&self.path, &self.body.to_string());
        let name = &self.name;
        assert_eq!(answer.status, self.status, "{place}, {name}: {}", answer.text);
        let json = answer.json();
        if let Value::Object(members) = &self.answer {
            for (key, expected) in members {
                assert_eq!(json[key], *expected, "{place}, {name}: `{key}`");
            }
        }
        let message = json["error"].as_str().unwrap_or_default();
        for text in &self.error {
            assert!(message.contains(text.as_str()), "{place}, {name}: no `{text}` in {message}");
        }
    }
}
