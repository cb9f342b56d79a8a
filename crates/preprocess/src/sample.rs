//! Models and tokenizers for the tests of the backend.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use consort_config::Model;
use serde_json::json;
use tokenizers::Tokenizer;

/// The model without a batch dimension.
pub(crate) fn unbatched(mut model: Model) -> Model {
    Arc::make_mut(&mut model.signature).max_batch_size = 0;
    model
}

/// The tokenizer of the model that Consort ships: byte-level, no special tokens around a text.
pub(crate) fn ferris() -> Tokenizer {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join("model_repository/ferris/1/tokenizer.json");
    Tokenizer::from_bytes(fs::read(file).unwrap()).unwrap()
}

/// A tokenizer of BERT's kind over a few words, which says how to pad and where to cut.
pub(crate) fn bert() -> Tokenizer {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "crab", "walk", "##s", "side", "##ways"];
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let special = |id: usize| {
        json!({
            "id": id, "content": words[id], "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        })
    };
    let file = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    });
    Tokenizer::from_bytes(file.to_string()).unwrap()
}

/// A tokenizer of Llama's kind over a few words, which puts `▁` before a text.
pub(crate) fn metaspace() -> Tokenizer {
    let tokens = ["<unk>", "▁", "t", "h", "e", "th", "the", "▁the", "<0x0A>"];
    let vocab: serde_json::Map<_, _> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "vocab": vocab, "byte_fallback": true, "unk_token": "<unk>",
            "merges": [["t", "h"], ["th", "e"], ["▁", "the"]],
        },
    });
    Tokenizer::from_bytes(file.to_string()).unwrap()
}
