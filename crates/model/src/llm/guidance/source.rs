//! What a request says its text must be: a schema, a regular expression, one of some choices.

use std::sync::Arc;

use consort_stage::{Error, Result};
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::{ebnf, lark, limits, structural_tag};
use crate::llm::fields::wrong;

/// The input that says of which kind a guide is.
pub(crate) const TYPE: &str = "guided_decoding_guide_type";
/// The input with the guide itself.
pub(crate) const GUIDE: &str = "guided_decoding_guide";

/// How long a guide may be, in bytes: many times the largest schemas in use.
const LONGEST: usize = 1 << 20;

/// What may stand between two parts of a JSON text: enough for any indentation, and bounded, since
/// models that are unsure of what comes next go on with spaces for ever.
const WHITESPACE: &str = r"[ \t\n\r]{1,64}";
/// The classes that stand for ASCII alone, as in JSON schemas and in what models are trained on:
/// digits, letters and spaces of other scripts are there by their own names (`\p{Nd}`).
const ASCII_CLASSES: &str = "dws";

/// How many characters of a reason are repeated.
const LONGEST_REASON: usize = 240;

/// What a text must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Any object or array in JSON.
    Json,
    /// Any object in JSON.
    JsonObject,
    /// What a JSON schema describes.
    JsonSchema,
    /// What a regular expression matches, from its first character to its last.
    Regex,
    /// One of the strings in a JSON array.
    Choice,
    /// What a grammar in Lark's notation describes.
    Lark,
    /// What a grammar in the EBNF of xgrammar and llama.cpp describes.
    Ebnf,
    /// Free text, in which triggers begin parts that schemas describe.
    StructuralTag,
}

/// The kinds by name, named as in TensorRT-LLM where it has them.
const KINDS: [(&str, Kind); 8] = [
    ("json", Kind::Json),
    ("json_object", Kind::JsonObject),
    ("json_schema", Kind::JsonSchema),
    ("regex", Kind::Regex),
    ("choice", Kind::Choice),
    ("lark", Kind::Lark),
    ("ebnf_grammar", Kind::Ebnf),
    ("structural_tag", Kind::StructuralTag),
];

/// A guide as a request gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    kind: Kind,
    text: Arc<str>,
}

impl Source {
    /// Checks what can be checked at once; `None` when the request has neither input, or both
    /// empty, as ensembles hand on what a caller leaves out.
    pub(crate) fn read(kind: Option<&[u8]>, text: Option<&[u8]>) -> Result<Option<Self>> {
        let is_given = |value: &&[u8]| !value.is_empty();
        let (kind, text) = (kind.filter(is_given), text.filter(is_given));
        let Some(kind) = kind else {
            return match text {
                None => Ok(None),
                Some(_) => Err(wrong(GUIDE, format!("needs `{TYPE}` beside it"))),
            };
        };
        let kind = Kind::read(kind)?;
        let takes_none = matches!(kind, Kind::Json | Kind::JsonObject);
        let text = match (takes_none, text) {
            (true, None) => "",
            (true, Some(_)) => {
                let how = format!(
                    "has no place beside the `{TYPE}` `{}`, which takes any; say `json_schema` \
                     for a schema",
                    kind.name()
                );
                return Err(wrong(GUIDE, how));
            }
            (false, Some(text)) => text_of(text)?,
            (false, None) => {
                let name = kind.name();
                let how = format!("is `{name}`, and `{GUIDE}`, which says what of, is missing");
                return Err(wrong(TYPE, how));
            }
        };
        Ok(Some(Self { kind, text: text.into() }))
    }

    /// The grammar that it asks for.
    pub(super) fn grammar(&self) -> Result<TopLevelGrammar> {
        match self.kind {
            Kind::Json => Ok(of_schema(json!({"type": ["object", "array"]}))),
            Kind::JsonObject => Ok(of_schema(json!({"type": "object"}))),
            Kind::JsonSchema => {
                let schema: Value = serde_json::from_str(&self.text)
                    .map_err(|error| self.refused(&format!("it is not JSON: {error}")))?;
                if !schema.is_object() {
                    return Err(self.refused("a schema is an object"));
                }
                limits::check_schema(&schema).map_err(|reason| self.refused(&reason))?;
                Ok(of_schema(schema))
            }
            Kind::Regex => {
                self.check_expression()?;
                let expression = llguidance::regex_to_lark(unanchored(&self.text), ASCII_CLASSES);
                Ok(TopLevelGrammar::from_lark(format!("start: /{expression}/")))
            }
            Kind::Choice => Ok(TopLevelGrammar::from_lark(self.choices()?)),
            Kind::Lark => {
                lark::check(&self.text).map_err(|mistake| self.refused(&mistake.to_string()))?;
                Ok(TopLevelGrammar::from_lark(self.text.to_string()))
            }
            Kind::Ebnf => {
                let translated = ebnf::translate(&self.text);
                let translated =
                    translated.map_err(|mistake| self.refused(&mistake.to_string()))?;
                Ok(TopLevelGrammar::from_lark(translated.lark))
            }
            Kind::StructuralTag => {
                let lark = structural_tag::to_lark(&self.text, lay_out);
                let lark = lark.map_err(|reason| self.refused(&reason))?;
                Ok(TopLevelGrammar::from_lark(lark))
            }
        }
    }

    /// Refuses what is no expression, with the place in it as its caller wrote it: what is compiled
    /// is written otherwise.
    fn check_expression(&self) -> Result<()> {
        let (place, reason) = match regex_syntax::parse(&self.text) {
            Ok(_) => return Ok(()),
            Err(regex_syntax::Error::Parse(error)) => {
                (error.span().start, error.kind().to_string())
            }
            Err(regex_syntax::Error::Translate(error)) => {
                (error.span().start, error.kind().to_string())
            }
            Err(error) => return Err(self.refused(&error.to_string())),
        };
        let (line, column) = (place.line, place.column);
        Err(self.refused(&format!("line {line}, column {column}: {reason}")))
    }

    /// The error for a guide of which the matcher says that it cannot be followed.
    pub(super) fn not_compiled(&self, reason: &str) -> Error {
        match self.kind {
            Kind::Ebnf => match ebnf::translate(&self.text) {
                Ok(translated) => self.refused(&translated.in_its_words(reason)),
                Err(_) => self.refused(reason),
            },
            _ => self.refused(reason),
        }
    }

    /// The error for a guide that cannot be followed.
    pub(super) fn refused(&self, reason: &str) -> Error {
        let what = match self.kind {
            Kind::Json | Kind::JsonObject | Kind::JsonSchema => "a JSON schema",
            Kind::Regex => "a regular expression",
            Kind::Choice => "a list of choices",
            Kind::Lark => "a grammar in Lark's notation",
            Kind::Ebnf => "a grammar in EBNF",
            Kind::StructuralTag => "a structural tag",
        };
        wrong(GUIDE, format!("is not {what} that can be followed: {}", brief(reason)))
    }

    /// A grammar of one word, which is any of the choices: a rule with a way for each would be
    /// followed in all ways at once.
    fn choices(&self) -> Result<String> {
        let choices: Vec<String> = serde_json::from_str(&self.text).map_err(|error| {
            self.refused(&format!("it is not a JSON array of strings: {error}"))
        })?;
        if choices.is_empty() || choices.iter().any(String::is_empty) {
            return Err(self.refused("it has no choice, or one without a character"));
        }
        let literals = choices.iter().map(|choice| Value::from(choice.as_str()).to_string());
        Ok(format!("start: CHOICE\nCHOICE: {}", literals.collect::<Vec<_>>().join(" | ")))
    }
}

impl Kind {
    fn read(name: &[u8]) -> Result<Self> {
        let name = String::from_utf8_lossy(name);
        if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) {
            return Ok(*kind);
        }
        let known = KINDS.map(|(name, _)| format!("`{name}`")).join(", ");
        Err(wrong(TYPE, format!("must be one of {known}, not `{}`", brief(&name))))
    }

    fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// The grammar of a schema, whose own `x-guidance` says how its JSON is laid out, where it has one.
fn of_schema(mut schema: Value) -> TopLevelGrammar {
    lay_out(&mut schema);
    TopLevelGrammar::from_json_schema(schema)
}

/// Says in a schema how its JSON is laid out, unless it does.
fn lay_out(schema: &mut Value) {
    if let Value::Object(keywords) = schema {
        let layout = || json!({"whitespace_pattern": WHITESPACE});
        keywords.entry("x-guidance").or_insert_with(layout);
    }
}

fn text_of(text: &[u8]) -> Result<&str> {
    if text.len() > LONGEST {
        return Err(wrong(GUIDE, format!("has {} bytes, more than {LONGEST}", text.len())));
    }
    std::str::from_utf8(text).map_err(|_| wrong(GUIDE, "must be text in UTF-8"))
}

/// The expression without the anchors around it: a text is matched from end to end anyway.
fn unanchored(expression: &str) -> &str {
    let expression = expression.strip_prefix('^').unwrap_or(expression);
    match expression.strip_suffix('$') {
        Some(rest) if (rest.len() - rest.trim_end_matches('\\').len()).is_multiple_of(2) => rest,
        _ => expression,
    }
}

/// The first line of a reason, not too long. Where that only says what a picture below it is of,
/// with the reason under the picture.
pub(super) fn brief(reason: &str) -> String {
    let mut lines = reason.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = lines.next().unwrap_or_default().to_owned();
    if line.ends_with(':')
        && let Some(error) = lines.find_map(|line| line.strip_prefix("error:"))
    {
        line.push_str(error);
    }
    let mut brief: String = line.chars().take(LONGEST_REASON).collect();
    if brief.len() < line.len() {
        brief.push('…');
    }
    brief
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, text: &str) -> String {
        let read = Source::read(Some(kind.as_bytes()), Some(text.as_bytes()));
        let error = read.and_then(|source| source.unwrap().grammar().map(drop)).unwrap_err();
        // What the text begins with is also told apart from it, for an ensemble's caller.
        let input = error.input().unwrap();
        assert!(error.message().starts_with(&format!("`{input}` ")), "{error}");
        error.message().to_owned()
    }

    #[test]
    fn what_is_wrong_at_first_sight_is_said() {
        assert!(refused("xml", "a").contains("must be one of `json`"));
        assert!(refused("ebnf_grammar", "root ::= a").contains("line 1, column 10: no rule"));
        assert!(refused("structural_tag", "a").contains("not as it should be"));
        assert!(refused("structural_tag", "{}").contains("no `structures`"));
        let expression = refused("regex", "ab\n(c");
        assert!(expression.contains("line 2, column 1: unclosed group"), "{expression}");
        assert!(refused("regex", r"a(?=b)").contains("column 2: look-around"));
        assert!(refused("regex", r"\p{Klingon}").contains("column 1: Unicode property"));
        assert!(refused("json", "{}").contains("`json_schema`"));
        assert!(refused("regex", "").contains("is missing"));
        assert!(refused("json_schema", "{").contains("is not JSON"));
        assert!(refused("json_schema", "[1]").contains("a schema is an object"));
        assert!(refused("choice", "{}").contains("not a JSON array of strings"));
        assert!(refused("choice", "[]").contains("no choice"));
        assert!(refused("lark", &"(".repeat(100)).contains("column 28: brackets nest"));
        assert!(refused("lark", "start: %json {\"a\"").contains("column 8: what follows"));
        assert!(refused("regex", &"a".repeat(LONGEST + 1)).contains("bytes"));
        let alone = Source::read(None, Some(b"a")).unwrap_err();
        assert!(alone.message().contains(TYPE) && alone.input() == Some(GUIDE), "{alone}");
        assert!(
            Source::read(Some(b"regex"), Some(b"\xff")).unwrap_err().message().contains("UTF-8")
        );
    }

    #[test]
    fn nothing_or_emptiness_is_no_guide() {
        assert_eq!(Source::read(None, None).unwrap(), None);
        assert_eq!(Source::read(Some(b""), Some(b"")).unwrap(), None);
    }

    #[test]
    fn anchors_are_left_out_where_they_are_anchors() {
        assert_eq!(unanchored("^a+$"), "a+");
        assert_eq!(unanchored(r"a\$"), r"a\$");
        assert_eq!(unanchored(r"a\\$"), r"a\\");
    }

    #[test]
    fn a_reason_is_one_line_and_not_long() {
        assert_eq!(brief("\n one\ntwo"), "one");
        let drawn = "regex parse error:\n    (a\n    ^\nerror: unclosed group";
        assert_eq!(brief(drawn), "regex parse error: unclosed group");
        assert_eq!(brief(&"é".repeat(300)).chars().count(), 241);
    }
}
