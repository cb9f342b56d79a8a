//! Text that is free until a trigger comes, and then a part that must be as it is described.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::ebnf::escaped;
use super::limits;

/// How many triggers a text may have, and how many structures: each trigger is compared with all of
/// both, and each structure is a grammar of its own.
const MOST: usize = 256;

/// What `guided_decoding_guide` holds, as in xgrammar and TensorRT-LLM.
#[derive(Deserialize)]
struct StructuralTag {
    #[serde(default)]
    structures: Vec<Structure>,
    #[serde(default)]
    triggers: Vec<String>,
    /// The later form, which describes the whole text.
    format: Option<Value>,
}

/// A part of the text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Structure {
    /// What it begins with: one of the triggers, and more.
    begin: String,
    /// The schema of what is in it.
    schema: Value,
    /// What it ends with.
    end: String,
}

/// The grammar of the text in the matcher's notation; `with_layout` says how JSON is laid out.
///
/// A piece of free text ends with the first trigger in it. Free text behind the last part has none.
pub(super) fn to_lark(guide: &str, with_layout: impl Fn(&mut Value)) -> Result<String, String> {
    let tag: StructuralTag = serde_json::from_str(guide)
        .map_err(|error| format!("it is not as it should be: {error}"))?;
    if tag.format.is_some() {
        return Err("`format` is not supported; there are `structures` and `triggers`".into());
    }
    check_triggers(&tag)?;
    let mut lark = String::from("start: (");
    let names: Vec<_> = (0..tag.structures.len()).map(|index| format!("tag_{index}")).collect();
    lark += &names.join(" | ");
    lark += ")* REST?\n";
    let triggers: Vec<_> = tag.triggers.iter().map(|trigger| expression(trigger)).collect();
    let any = triggers.join("|");
    let _ = writeln!(lark, "REST: /(?s:.+)/ & ~/(?s:.*)({any})(?s:.*)/");
    for (index, trigger) in triggers.iter().enumerate() {
        let _ = writeln!(lark, "until_{index}[lazy]: /(?s:.*){trigger}/");
    }
    for (index, structure) in tag.structures.into_iter().enumerate() {
        let begins = |trigger: &String| structure.begin.starts_with(trigger);
        let trigger = tag.triggers.iter().position(begins).ok_or_else(|| {
            format!("`structures[{index}].begin` begins with none of the `triggers`")
        })?;
        let rest = &structure.begin[tag.triggers[trigger].len()..];
        let schema = schema(structure.schema, index, &with_layout)?;
        let (rest, end) = (quoted(rest), quoted(&structure.end));
        let _ = writeln!(lark, "tag_{index}: until_{trigger} {rest} %json {schema} {end}");
    }
    Ok(lark)
}

/// Refuses triggers after which nothing could come, or that never would.
fn check_triggers(tag: &StructuralTag) -> Result<(), String> {
    if tag.structures.is_empty() || tag.triggers.is_empty() {
        return Err("it has no `structures`, or no `triggers`".into());
    }
    for (name, count) in [("structures", tag.structures.len()), ("triggers", tag.triggers.len())] {
        if count > MOST {
            return Err(format!("it has {count} `{name}`, more than {MOST}"));
        }
    }
    for (index, trigger) in tag.triggers.iter().enumerate() {
        if trigger.is_empty() {
            return Err(format!("`triggers[{index}]` is empty"));
        }
        let is_within = |(other, it): &(usize, &String)| *other != index && trigger.contains(&**it);
        if let Some((other, _)) = tag.triggers.iter().enumerate().find(is_within) {
            let how =
                format!("`triggers[{index}]` has `triggers[{other}]` in it, which comes first");
            return Err(how);
        }
        if !tag.structures.iter().any(|structure| structure.begin.starts_with(&**trigger)) {
            return Err(format!("`triggers[{index}]` begins none of the `structures`"));
        }
    }
    Ok(())
}

/// The schema as text; one that comes as text is read first.
fn schema(schema: Value, index: usize, with_layout: impl Fn(&mut Value)) -> Result<String, String> {
    let name = format!("`structures[{index}].schema`");
    let mut schema = match schema {
        Value::String(text) => {
            serde_json::from_str(&text).map_err(|error| format!("{name} is not JSON: {error}"))?
        }
        schema => schema,
    };
    if !schema.is_object() {
        return Err(format!("{name} is no object"));
    }
    limits::check_schema(&schema).map_err(|reason| format!("{name}: {reason}"))?;
    with_layout(&mut schema);
    Ok(schema.to_string())
}

/// A text as an expression that matches it.
fn expression(text: &str) -> String {
    text.chars().map(escaped).collect()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
