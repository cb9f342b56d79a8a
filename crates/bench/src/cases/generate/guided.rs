//! Requests whose texts are held to a JSON schema, beside as many that are free.

use std::time::Duration;

use anyhow::Result;

use super::engine::{Engine, Request};
use super::{REPEATS, ROWS, TOKENS, together};

/// What programs ask for: strings, numbers, words of a few, lists. No text comes to its end within
/// its tokens, so that it has as many as one that is free.
const SCHEMA: &str = r#"{
    "type": "array",
    "minItems": 64,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 24},
            "count": {"type": "integer", "minimum": 0, "maximum": 9999},
            "kind": {"enum": ["crate", "module", "function"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}
        },
        "required": ["name", "count", "kind", "tags"],
        "additionalProperties": false
    },
    "x-guidance": {"whitespace_flexible": false}
}"#;

/// Tokens a second of as many requests as there are rows, their prompts counted.
pub(super) async fn measure(engine: &Engine) -> Result<f64> {
    // So that the schema is compiled and its tokens are known by then.
    crowd(engine, 40).await?;
    let mut shortest = Duration::MAX;
    for repeat in 0..REPEATS {
        shortest = crowd(engine, 41 + repeat as i32).await?.min(shortest);
    }
    Ok((ROWS * TOKENS) as f64 / shortest.as_secs_f64())
}

async fn crowd(engine: &Engine, seed: i32) -> Result<Duration> {
    let requests = (0..ROWS).map(|row| Request::new(seed, row as i32, TOKENS).within(SCHEMA));
    together(engine, requests, TOKENS).await
}
