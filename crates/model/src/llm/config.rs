//! Reads what lies beside a decoder's graph: `genai_config.json`, or a checkpoint's `config.json`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use consort_stage::{Error, Result};
use serde::Deserialize;

const GENAI: &str = "genai_config.json";
const CHECKPOINT: &str = "config.json";

/// What is known of a decoder beside its graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The names that the graph gives its tensors.
    pub(crate) names: Names,
    /// Whether past and present of the cache are meant to be one buffer of full length.
    pub(crate) shares_buffer: bool,
    /// How many tokens a sequence can have.
    pub(crate) context: Option<usize>,
    /// How many tokens there are.
    pub(crate) vocabulary: Option<usize>,
    /// The tokens that end a text.
    pub(crate) end_ids: Vec<u32>,
    /// How many heads of keys and values a layer has.
    pub(crate) kv_heads: Option<i64>,
    /// How many numbers each head has for a token.
    pub(crate) head_size: Option<i64>,
}

/// The names of a decoder's tensors; `%d` stands for the number of the layer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Names {
    pub(crate) input_ids: String,
    pub(crate) attention_mask: String,
    pub(crate) position_ids: String,
    #[serde(rename = "past_key_names")]
    pub(crate) past_keys: String,
    #[serde(rename = "past_value_names")]
    pub(crate) past_values: String,
    #[serde(skip)]
    pub(crate) outputs: OutputNames,
}

/// The names of a decoder's outputs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct OutputNames {
    pub(crate) logits: String,
    #[serde(rename = "present_key_names")]
    pub(crate) present_keys: String,
    #[serde(rename = "present_value_names")]
    pub(crate) present_values: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            input_ids: "input_ids".into(),
            attention_mask: "attention_mask".into(),
            position_ids: "position_ids".into(),
            past_keys: "past_key_values.%d.key".into(),
            past_values: "past_key_values.%d.value".into(),
            outputs: OutputNames::default(),
        }
    }
}

impl Default for OutputNames {
    fn default() -> Self {
        Self {
            logits: "logits".into(),
            present_keys: "present.%d.key".into(),
            present_values: "present.%d.value".into(),
        }
    }
}

impl Config {
    /// Reads the file beside the graph, the version's before the model's; `None` when there is none.
    pub(crate) fn read(folders: &[&Path]) -> Result<Option<Self>> {
        if let Some(text) = first_of(folders, GENAI)? {
            return parse::<Genai>(GENAI, &text).map(|file| Some(file.into()));
        }
        let text = first_of(folders, CHECKPOINT)?;
        text.map(|text| parse::<Checkpoint>(CHECKPOINT, &text).map(Self::from)).transpose()
    }

    /// Reads the checkpoint's configuration that a graph carries in its metadata.
    pub(crate) fn of_metadata(text: &str) -> Result<Self> {
        parse::<Checkpoint>("the graph's metadata", text).map(Self::from)
    }
}

fn first_of(folders: &[&Path], file: &str) -> Result<Option<String>> {
    for folder in folders {
        match fs::read_to_string(folder.join(file)) {
            Ok(text) => return Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::invalid(format!("`{file}` cannot be read: {error}")));
            }
        }
    }
    Ok(None)
}

fn parse<'a, T: Deserialize<'a>>(file: &str, text: &'a str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("`{file}` does not describe a decoder: {error}")))
}

/// One token or several, as both files allow.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Ids {
    #[default]
    None,
    One(u32),
    Many(Vec<u32>),
}

impl From<Ids> for Vec<u32> {
    fn from(ids: Ids) -> Self {
        match ids {
            Ids::None => Self::new(),
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        }
    }
}

/// What onnxruntime-genai writes beside a decoder it exported.
#[derive(Deserialize)]
struct Genai {
    model: GenaiModel,
    #[serde(default)]
    search: GenaiSearch,
}

#[derive(Deserialize)]
struct GenaiModel {
    decoder: GenaiDecoder,
    context_length: Option<usize>,
    vocab_size: Option<usize>,
    #[serde(default)]
    eos_token_id: Ids,
}

#[derive(Deserialize)]
struct GenaiDecoder {
    head_size: Option<i64>,
    num_key_value_heads: Option<i64>,
    #[serde(default)]
    inputs: Names,
    #[serde(default)]
    outputs: OutputNames,
}

#[derive(Default, Deserialize)]
struct GenaiSearch {
    #[serde(default)]
    past_present_share_buffer: bool,
}

impl From<Genai> for Config {
    fn from(file: Genai) -> Self {
        let Genai { model, search } = file;
        let decoder = model.decoder;
        Self {
            names: Names { outputs: decoder.outputs, ..decoder.inputs },
            shares_buffer: search.past_present_share_buffer,
            context: model.context_length,
            vocabulary: model.vocab_size,
            end_ids: model.eos_token_id.into(),
            kv_heads: decoder.num_key_value_heads,
            head_size: decoder.head_size,
        }
    }
}

/// A Hugging Face checkpoint's own configuration.
#[derive(Deserialize)]
struct Checkpoint {
    #[serde(alias = "n_positions", alias = "n_ctx", alias = "seq_length")]
    max_position_embeddings: Option<usize>,
    vocab_size: Option<usize>,
    #[serde(default)]
    eos_token_id: Ids,
    num_key_value_heads: Option<i64>,
    #[serde(alias = "n_head")]
    num_attention_heads: Option<i64>,
}

impl From<Checkpoint> for Config {
    fn from(file: Checkpoint) -> Self {
        Self {
            context: file.max_position_embeddings,
            vocabulary: file.vocab_size,
            end_ids: file.eos_token_id.into(),
            kv_heads: file.num_key_value_heads.or(file.num_attention_heads),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_genai_config_gives_names_and_limits() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{
            "model": {
                "context_length": 64, "vocab_size": 9, "eos_token_id": [1, 2],
                "decoder": {
                    "head_size": 8, "num_key_value_heads": 2, "num_hidden_layers": 1,
                    "inputs": { "input_ids": "tokens", "past_key_names": "k%d" },
                    "outputs": { "present_key_names": "k%d_out" }
                }
            },
            "search": { "past_present_share_buffer": true, "max_length": 64 }
        }"#;
        fs::write(folder.path().join(GENAI), text).unwrap();
        let config = Config::read(&[folder.path()]).unwrap().unwrap();
        assert_eq!(config.names.input_ids, "tokens");
        assert_eq!(config.names.past_keys, "k%d");
        assert_eq!(config.names.past_values, "past_key_values.%d.value");
        assert_eq!(config.names.outputs.present_keys, "k%d_out");
        assert!(config.shares_buffer);
        assert_eq!((config.context, config.vocabulary), (Some(64), Some(9)));
        assert_eq!(config.end_ids, [1, 2]);
    }

    #[test]
    fn the_checkpoints_own_config_will_do() {
        let text = r#"{ "n_positions": 1024, "vocab_size": 50257, "eos_token_id": 50256 }"#;
        let config = Config::of_metadata(text).unwrap();
        assert_eq!(config.context, Some(1024));
        assert_eq!(config.end_ids, [50256]);
        let absent = Config::of_metadata(r#"{ "eos_token_id": null }"#).unwrap();
        assert_eq!(absent, Config::default());
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(GENAI), "{").unwrap();
        let error = Config::read(&[folder.path()]).unwrap_err();
        assert!(error.message().contains(GENAI), "{error}");
        fs::remove_file(folder.path().join(GENAI)).unwrap();
        assert_eq!(Config::read(&[folder.path()]).unwrap(), None);
    }
}
