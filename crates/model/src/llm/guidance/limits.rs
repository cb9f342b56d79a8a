//! How deep a guide may lead those who compile it, who recur over it on a stack that ends.

use std::collections::BTreeSet;

use serde_json::Value;

use super::mistake::{Mistake, Place};

/// How deep brackets may nest in a grammar. The matcher's own limit is 30, from which it takes one
/// for the rule and one for a string that is several characters in brackets.
const DEEPEST: usize = 27;
/// How deep a grammar may go in all: its rules and the deepest brackets of each, as if every rule
/// began where the one before it is deepest.
const MOST_LEVELS: usize = 2000;
/// The same of a schema, in levels of its JSON: the whole and everything that its references lead
/// to, as if each led on to the next.
const MOST_SCHEMA_LEVELS: usize = 4000;

/// How deep a grammar is, as it is read from its beginning.
#[derive(Debug, Default)]
pub(super) struct Depth {
    /// How many brackets are open.
    open: usize,
    /// How many were, in the rule that is read.
    deepest: usize,
    levels: usize,
}

impl Depth {
    /// Notes that a rule begins.
    pub(super) fn begin_rule(&mut self, at: Place) -> Result<(), Mistake> {
        self.deepest = 0;
        self.add(1, at)
    }

    /// Notes that a bracket opens.
    pub(super) fn open(&mut self, at: Place) -> Result<(), Mistake> {
        if self.open == DEEPEST {
            return Err(Mistake { at, what: format!("brackets nest more than {DEEPEST} deep") });
        }
        self.open += 1;
        if self.open > self.deepest {
            self.deepest = self.open;
            return self.add(1, at);
        }
        Ok(())
    }

    /// Notes that a bracket closes.
    pub(super) fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn add(&mut self, levels: usize, at: Place) -> Result<(), Mistake> {
        self.levels += levels;
        if self.levels <= MOST_LEVELS {
            return Ok(());
        }
        let what = format!(
            "the grammar is too large: its rules and how deep each one's brackets nest come to \
             more than {MOST_LEVELS}"
        );
        Err(Mistake { at, what })
    }
}

/// Refuses a schema whose references lead too deep.
///
/// A reference is followed once, wherever it stands, so no way through a schema is longer than all
/// that its references lead to together. One that is no pointer from the root, and any where other
/// parts have identifiers, may lead to any part.
pub(super) fn check_schema(schema: &Value) -> Result<(), String> {
    let mut found = References::default();
    found.find(schema, true);
    let whole = depth(schema);
    let mut levels = whole;
    for reference in &found.references {
        let target = reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer));
        let is_plain = found.bases == 0;
        levels += target.filter(|_| is_plain).map_or(whole * (1 + found.bases), depth);
        if levels > MOST_SCHEMA_LEVELS {
            let count = found.references.len();
            return Err(format!(
                "its {count} different `$ref`s and the depths of what they lead to come to more \
                 than {MOST_SCHEMA_LEVELS} levels"
            ));
        }
    }
    Ok(())
}

/// What the references of a schema are.
#[derive(Default)]
struct References<'a> {
    references: BTreeSet<&'a str>,
    /// How many parts have identifiers, from which references are counted.
    bases: usize,
}

impl<'a> References<'a> {
    /// Finds those in a part; what reads JSON ends at 128 levels.
    fn find(&mut self, part: &'a Value, is_root: bool) {
        match part {
            Value::Array(items) => items.iter().for_each(|item| self.find(item, false)),
            Value::Object(keywords) => {
                for (keyword, value) in keywords {
                    match (keyword.as_str(), value) {
                        ("$ref", Value::String(reference)) => {
                            self.references.insert(reference);
                        }
                        ("$id" | "id", Value::String(_)) if !is_root => self.bases += 1,
                        _ => self.find(value, false),
                    }
                }
            }
            _ => {}
        }
    }
}

/// How many levels of arrays and objects a part has, at least 1.
fn depth(part: &Value) -> usize {
    let below = match part {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(keywords) => keywords.values().map(depth).max(),
        _ => return 1,
    };
    1 + below.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A schema whose definitions lead from one to the next.
    fn chain(links: usize, link: impl Fn(String) -> Value) -> Value {
        let mut definitions = serde_json::Map::new();
        for index in 0..links {
            definitions.insert(index.to_string(), link(format!("#/$defs/{}", index + 1)));
        }
        definitions.insert(links.to_string(), json!({"type": "string"}));
        json!({"$ref": "#/$defs/0", "$defs": definitions})
    }

    #[test]
    fn references_may_lead_only_so_deep() {
        let flat = |links| check_schema(&chain(links, |next| json!({"$ref": next})));
        assert!(flat(1000).is_ok());
        let error = flat(5000).unwrap_err();
        assert!(error.contains("5001 different `$ref`s"), "{error}");
        let deep = |links| {
            let nested = |next| {
                (0..20).fold(json!({"$ref": next}), |part, _| json!({"properties": {"a": part}}))
            };
            check_schema(&chain(links, nested))
        };
        assert!(deep(50).is_ok());
        assert!(deep(200).is_err());
    }

    #[test]
    fn references_that_may_lead_anywhere_count_as_if_they_led_to_all() {
        let anchors =
            |links| check_schema(&chain(links, |next| json!({"$ref": next.replace("#/", "#")})));
        assert!(anchors(100).is_ok());
        assert!(anchors(2000).is_err());
        let parts = |next| json!({"$id": "https://example.com/a", "$ref": next});
        assert!(check_schema(&chain(100, parts)).is_err());
        // A property of this name is none, nor is the identifier of the whole.
        let named =
            json!({"$id": "https://example.com/a", "properties": {"id": {"type": "string"}}});
        assert!(check_schema(&named).is_ok());
    }

    #[test]
    fn a_text_without_references_is_as_deep_as_it_is() {
        assert!(check_schema(&json!({"$ref": {"a": [1]}})).is_ok());
        assert_eq!(depth(&json!({"a": [1, {}]})), 3);
    }
}
