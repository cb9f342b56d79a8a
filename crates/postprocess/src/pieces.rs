//! A tokenizer's vocabulary taken apart into the bytes that each token adds to a text.
//!
//! A decoder of `tokenizer.json` maps a whole list of tokens to a whole text. All common decoders
//! are a sum of parts, though: every token adds its own bytes, the first token of a text may read
//! differently, and a few characters are cut off the two ends. With the parts in a table, the
//! text of new tokens follows from them and from the few bytes before them.

use std::collections::BTreeMap;

use consort_stage::{Error, Result};
use tokenizers::Tokenizer;

use crate::decoder_steps::{Steps, Trim};

/// The largest token id that the table has room for, against a file that would exhaust memory.
const LARGEST_ID: u32 = 1 << 24;

/// What each token adds to a text, and how texts begin and end.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// By token id; `None` for an id that adds nothing: unknown, or special and left out.
    table: Vec<Option<Piece>>,
    /// What all pieces point into.
    bytes: Vec<u8>,
    /// The special tokens that texts leave out, as they are spelled.
    left_out: BTreeMap<usize, String>,
    /// Cut off the front of a text.
    lead: Option<Trim>,
    /// Cut off the end of a text.
    trail: Option<Trim>,
    /// Whether a token that repeats its predecessor adds nothing (CTC).
    drops_repeats: bool,
    /// Whether each byte that is part of no character reads U+FFFD, not each broken sequence.
    replaces_each_byte: bool,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// As the first token of a text.
    first: Span,
    /// Anywhere behind it.
    later: Span,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Pieces {
    /// Takes `tokenizer` apart; fails for a decoder that is no sum of parts.
    pub(crate) fn new(tokenizer: &Tokenizer, skip_special_tokens: bool) -> Result<Self> {
        let decoder = Steps::new(tokenizer.get_decoder())?;
        let mut this = Self {
            lead: decoder.lead(),
            trail: decoder.trail(),
            drops_repeats: decoder.drops_repeats(),
            replaces_each_byte: decoder.has_byte_fallback(),
            ..Self::default()
        };
        let ids = tokenizer.get_vocab(true).into_values();
        let largest = ids.max().unwrap_or(0);
        if largest > LARGEST_ID {
            return Err(Error::unsupported(format!("token id {largest} is above {LARGEST_ID}")));
        }
        for id in 0..=largest {
            let is_special =
                |token: &String| tokenizer.get_added_vocabulary().is_special_token(token);
            let piece = match tokenizer.id_to_token(id) {
                Some(token) if skip_special_tokens && is_special(&token) => {
                    this.left_out.insert(this.table.len(), token);
                    None
                }
                token => token.map(|token| this.take_apart(&token, &decoder)).transpose()?,
            };
            this.table.push(piece);
        }
        Ok(this)
    }

    fn take_apart(&mut self, token: &str, decoder: &Steps<'_>) -> Result<Piece> {
        let later = decoder.read(token, false)?;
        let first = decoder.read(token, true)?;
        let is_same = first == later;
        let later = self.store(&later)?;
        let first = if is_same { later } else { self.store(&first)? };
        Ok(Piece { first, later })
    }

    fn store(&mut self, bytes: &[u8]) -> Result<Span> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        match (u32::try_from(start), u32::try_from(self.bytes.len())) {
            (Ok(start), Ok(end)) => Ok(Span { start, end }),
            _ => Err(Error::unsupported("the vocabulary is larger than 4 GiB")),
        }
    }

    /// The text that `new` adds behind `context`.
    ///
    /// What a later token could still change is held back until that token comes, or until
    /// `is_final`, when a character that was never finished reads U+FFFD.
    pub(crate) fn text(&self, context: &[i64], new: &[i64], is_final: bool) -> String {
        let mut text = Text { pieces: self, bytes: Vec::new(), last: None };
        text.extend(context);
        let given = self.settled(&text.bytes);
        text.extend(new);
        let bytes = &text.bytes;
        let start = given.max(self.lead_length(bytes));
        let end =
            if is_final { bytes.len() - self.trail_length(bytes) } else { self.settled(bytes) };
        self.characters(bytes.get(start..end).unwrap_or_default())
    }

    /// The bytes of one token in the middle of a text; of one that texts leave out, how it is
    /// spelled; none of an id that no token has.
    pub(crate) fn token(&self, id: i64) -> &[u8] {
        let Ok(id) = usize::try_from(id) else { return &[] };
        match self.table.get(id) {
            Some(Some(piece)) => self.slice(piece.later),
            _ => self.left_out.get(&id).map_or(&[], String::as_bytes),
        }
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// Up to where no later token changes the text of `bytes`.
    fn settled(&self, bytes: &[u8]) -> usize {
        let end = bytes.len() - unfinished(bytes);
        end - self.trail_length(&bytes[..end])
    }

    fn lead_length(&self, bytes: &[u8]) -> usize {
        self.lead.as_ref().map_or(0, |trim| trim.at_front(bytes))
    }

    fn trail_length(&self, bytes: &[u8]) -> usize {
        self.trail.as_ref().map_or(0, |trim| trim.at_end(bytes))
    }

    fn characters(&self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            let count = match chunk.invalid().len() {
                length if self.replaces_each_byte => length,
                length => length.min(1),
            };
            text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
        }
        text
    }
}

/// The length of the unfinished character at the end of `bytes`.
///
/// Only the last three bytes matter, so it does not matter where `bytes` begins.
fn unfinished(bytes: &[u8]) -> usize {
    let is_lead = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let Some(lead) = tail.iter().rposition(is_lead) else {
        return 0;
    };
    match std::str::from_utf8(&tail[lead..]) {
        Err(error) if error.error_len().is_none() => tail.len() - lead,
        _ => 0,
    }
}

/// A text while tokens are put behind it.
struct Text<'a> {
    pieces: &'a Pieces,
    bytes: Vec<u8>,
    /// The last token that was not left out.
    last: Option<usize>,
}

impl Text<'_> {
    fn extend(&mut self, ids: &[i64]) {
        for id in ids {
            self.push(*id);
        }
    }

    fn push(&mut self, id: i64) {
        let Ok(id) = usize::try_from(id) else { return };
        let Some(Some(piece)) = self.pieces.table.get(id) else {
            return;
        };
        if self.pieces.drops_repeats && self.last == Some(id) {
            return;
        }
        let span = if self.last.is_none() { piece.first } else { piece.later };
        self.last = Some(id);
        self.bytes.extend_from_slice(self.pieces.slice(span));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::decoder_steps::byte_of_symbol;

    /// How many tokens the decoder shows before the new ones.
    const WINDOW: usize = 16;

    fn tokenizer(model: &Value, decoder: &Value) -> Tokenizer {
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "model": model, "decoder": decoder,
            "added_tokens": [
                {"id": 0, "content": "<s>", "single_word": false, "lstrip": false,
                 "rstrip": false, "normalized": false, "special": true},
                {"id": 1, "content": "<tool call>", "single_word": false, "lstrip": false,
                 "rstrip": false, "normalized": false, "special": false},
            ],
        });
        Tokenizer::from_bytes(file.to_string()).unwrap()
    }

    fn bpe(tokens: &[&str]) -> Value {
        let all = ["<s>", "<tool call>"].iter().chain(tokens).enumerate();
        let vocab: Value = all
            .map(|(id, token)| ((*token).to_owned(), json!(id)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({"type": "BPE", "vocab": vocab, "merges": []})
    }

    fn sentence_piece(decoder: &Value) -> Tokenizer {
        let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
        let words = ["▁", "▁▁", "▁the", "▁a", "b", "é", "▁crate", "s", ".", "日本", "🦀"];
        let tokens: Vec<&str> = words.into_iter().chain(bytes.iter().map(String::as_str)).collect();
        tokenizer(&bpe(&tokens), decoder)
    }

    fn llama_decoder() -> Value {
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]})
    }

    fn metaspace() -> Tokenizer {
        sentence_piece(
            &json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
        )
    }

    fn word_piece() -> Tokenizer {
        let words =
            ["un", "##able", "to", "##s", ",", ".", "'", "n't", "do", "not", "café", "##日"];
        tokenizer(&bpe(&words), &json!({"type": "WordPiece", "prefix": "##", "cleanup": true}))
    }

    fn old_bpe() -> Tokenizer {
        let words = ["un", "able</w>", "to</w>", "s", ".</w>", "é</w>"];
        tokenizer(&bpe(&words), &json!({"type": "BPEDecoder", "suffix": "</w>"}))
    }

    fn speech() -> Tokenizer {
        let decoder = json!({"type": "CTC", "pad_token": "<s>", "word_delimiter_token": "|", "cleanup": true});
        tokenizer(&bpe(&["|", "H", "E", "L", "O"]), &decoder)
    }

    fn byte_level() -> Tokenizer {
        let mut symbols: Vec<String> = (0..0x144_u32)
            .filter_map(char::from_u32)
            .filter(|symbol| byte_of_symbol(*symbol).is_some())
            .map(String::from)
            .collect();
        assert_eq!(symbols.len(), 256);
        symbols.extend(["Ġthe", "Ġ", "ĠðŁ", "Ġcrab", "æĹ", "¥æ", "ľ¬"].map(String::from));
        let tokens: Vec<&str> = symbols.iter().map(String::as_str).collect();
        let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        tokenizer(&bpe(&tokens), &decoder)
    }

    fn ferris() -> Tokenizer {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let file = root.join("model_repository/ferris/1/tokenizer.json");
        Tokenizer::from_bytes(fs::read(file).unwrap()).unwrap()
    }

    /// The text of `ids` in as many parts as `splits` says, each from its window alone.
    fn in_parts(pieces: &Pieces, ids: &[u32], splits: &[usize]) -> String {
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let mut ends: Vec<usize> = splits.iter().map(|split| split % (ids.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(ids.len());
        let mut start = 0_usize;
        let mut text = String::new();
        for (index, end) in ends.iter().enumerate() {
            let context = &ids[start.saturating_sub(WINDOW)..start];
            let new = &ids[start..*end];
            let is_final = index + 1 == ends.len();
            text += &pieces.text(context, new, is_final);
            start = *end;
        }
        text
    }

    fn whole(pieces: &Pieces, ids: &[u32]) -> String {
        pieces.text(&[], &ids.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(), true)
    }

    /// What the tokenizer itself makes of `ids`; its old BPE decoder does not survive no tokens.
    fn reference(tokenizer: &Tokenizer, ids: &[u32], skip_special_tokens: bool) -> String {
        let is_left_out = |id: &u32| skip_special_tokens && *id == 0;
        if ids.iter().all(is_left_out) {
            return String::new();
        }
        tokenizer.decode(ids, skip_special_tokens).unwrap()
    }

    /// A tokenizer and its pieces, with special tokens left out and with them.
    struct Case {
        tokenizer: Tokenizer,
        pieces: [Pieces; 2],
    }

    impl Case {
        fn new(tokenizer: Tokenizer) -> Self {
            let pieces = [true, false].map(|skip| Pieces::new(&tokenizer, skip).unwrap());
            Self { tokenizer, pieces }
        }

        fn check(&self, picks: &[usize], splits: &[usize]) {
            let size = self.tokenizer.get_vocab_size(true);
            let ids: Vec<u32> = picks.iter().map(|pick| (pick % size) as u32).collect();
            for (pieces, skip_special_tokens) in self.pieces.iter().zip([true, false]) {
                let expected = whole(pieces, &ids);
                assert_eq!(in_parts(pieces, &ids, splits), expected);
                let theirs = reference(&self.tokenizer, &ids, skip_special_tokens);
                // A run of byte tokens that is partly valid loses its valid characters there.
                if !(pieces.replaces_each_byte && theirs.contains(char::REPLACEMENT_CHARACTER)) {
                    assert_eq!(expected, theirs);
                }
            }
        }
    }

    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let no_decoder = tokenizer(&bpe(&["to", "be", "or"]), &Value::Null);
        let llama = sentence_piece(&llama_decoder());
        [byte_level(), metaspace(), llama, word_piece(), old_bpe(), speech(), no_decoder, ferris()]
            .map(Case::new)
            .into()
    });

    static FERRIS: LazyLock<Case> = LazyLock::new(|| Case::new(ferris()));
    static LLAMA: LazyLock<Case> = LazyLock::new(|| Case::new(sentence_piece(&llama_decoder())));

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn parts_of_any_tokens_make_the_text_that_the_tokenizer_makes(
            picks in prop::collection::vec(any::<usize>(), 0..40),
            splits in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            for case in &*CASES {
                case.check(&picks, &splits);
            }
        }

        #[test]
        fn a_text_survives_every_split_of_its_tokens(
            text in "([ a-zé日🦀\n.,']|  |the |crate){0,40}",
            splits in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let encoding = FERRIS.tokenizer.encode_fast(text.as_str(), false).unwrap();
            prop_assert_eq!(in_parts(&FERRIS.pieces[0], encoding.get_ids(), &splits), text);
        }

        #[test]
        fn byte_fallback_reads_any_text_in_any_parts(
            text in "[a-zé日🦀\u{10FFFF}]{1,12}",
            splits in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let id = |byte| LLAMA.tokenizer.token_to_id(&format!("<0x{byte:02X}>")).unwrap();
            let ids: Vec<u32> = text.bytes().map(id).collect();
            prop_assert_eq!(in_parts(&LLAMA.pieces[0], &ids, &splits), text);
        }
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let tokenizer = byte_level();
        let pieces = Pieces::new(&tokenizer, true).unwrap();
        let id = |symbols: &str| i64::from(tokenizer.token_to_id(symbols).unwrap());
        let (first, second, third) = (id("æĹ"), id("¥æ"), id("ľ¬"));
        assert_eq!(pieces.text(&[], &[first], false), "");
        assert_eq!(pieces.text(&[first], &[second], false), "日");
        assert_eq!(pieces.text(&[first, second], &[third], false), "本");
        assert_eq!(pieces.text(&[first, second], &[], true), "\u{FFFD}");
    }

    #[test]
    fn a_token_alone_has_the_bytes_that_it_adds_to_a_text_or_its_own_name() {
        let tokenizer = byte_level();
        let id = |symbols: &str| i64::from(tokenizer.token_to_id(symbols).unwrap());
        let pieces = Pieces::new(&tokenizer, true).unwrap();
        assert_eq!(pieces.token(id("Ġthe")), b" the");
        assert_eq!(pieces.token(id("¥æ")), &"日本".as_bytes()[2..4]);
        assert_eq!(pieces.token(id("<s>")), b"<s>");
        assert_eq!(Pieces::new(&tokenizer, false).unwrap().token(id("<s>")), b"<s>");
        for id in [-1, i64::MIN, i64::MAX, 1 << 30] {
            assert_eq!(pieces.token(id), b"");
        }
        let metaspace = metaspace();
        let the = i64::from(metaspace.token_to_id("▁the").unwrap());
        assert_eq!(Pieces::new(&metaspace, true).unwrap().token(the), b" the");
    }

    #[test]
    fn only_the_first_token_of_a_text_loses_its_space() {
        for tokenizer in [metaspace(), sentence_piece(&llama_decoder())] {
            let pieces = Pieces::new(&tokenizer, true).unwrap();
            let the = i64::from(tokenizer.token_to_id("▁the").unwrap());
            assert_eq!(pieces.text(&[], &[the], false), "the");
            assert_eq!(pieces.text(&[0], &[the], false), "the");
            assert_eq!(pieces.text(&[the], &[the], false), " the");
        }
    }

    #[test]
    fn ids_that_no_token_has_add_nothing() {
        let pieces = Pieces::new(&byte_level(), true).unwrap();
        let ids = [-1, i64::MIN, i64::MAX, 1 << 30, 0];
        assert_eq!(pieces.text(&ids, &ids, true), "");
    }

    #[test]
    fn a_decoder_that_rewrites_the_joined_text_is_refused() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Fuse"},
            {"type": "Replace", "pattern": {"String": "ab"}, "content": "c"},
        ]});
        let error = Pieces::new(&sentence_piece(&decoder), true).unwrap_err();
        assert!(error.message().contains("token by token"), "{error}");
    }
}
