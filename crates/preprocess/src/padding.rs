//! How the token rows of one batch come to one length.

use consort_config::Settings;
use consort_stage::{Error, Result};
use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer};

/// The parameters that this file reads.
pub(crate) const PARAMETERS: [&str; 4] =
    ["padding", "padding_side", "pad_token", "pad_to_multiple_of"];

/// The usual names of the pad token, for a tokenizer that does not say which it is.
const PAD_TOKENS: [&str; 4] = ["[PAD]", "<pad>", "<|pad|>", "<|endoftext|>"];

/// The length that the rows of a batch are padded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// None: the rows must have one length already.
    Own,
    /// The longest row.
    Longest,
    /// This, whatever the rows are.
    Fixed(usize),
}

/// What stands where a row is shorter than its batch.
#[derive(Clone, Debug)]
pub(crate) struct Padding {
    target: Target,
    multiple: usize,
    /// The id of the pad token.
    pub(crate) id: u32,
    /// The token type of the pad token.
    pub(crate) type_id: u32,
    /// Whether the padding stands before the tokens.
    pub(crate) is_left: bool,
}

impl Padding {
    /// The padding that parameters and tokenizer ask for; `max_length` is where texts are cut.
    pub(crate) fn new(
        settings: &Settings,
        tokenizer: &Tokenizer,
        is_batching: bool,
        max_length: Option<usize>,
    ) -> Result<Self> {
        let own = tokenizer.get_padding();
        let default = if is_batching { "longest" } else { "none" };
        let target = match settings.get("padding").unwrap_or(default) {
            "none" => Target::Own,
            "longest" => Target::Longest,
            "max_length" => Target::Fixed(fixed_length(own, max_length)?),
            other => {
                return Err(Error::invalid(format!(
                    "parameter `padding` must be `longest`, `max_length` or `none`, not `{other}`"
                )));
            }
        };
        let own_multiple = own.and_then(|own| own.pad_to_multiple_of);
        Ok(Self {
            target,
            multiple: settings.parse_or("pad_to_multiple_of", own_multiple.unwrap_or(1))?.max(1),
            id: pad_id(settings, tokenizer)?,
            type_id: own.map_or(0, |own| own.pad_type_id),
            is_left: is_left(settings, own)?,
        })
    }

    /// The common length of rows that are this long.
    pub(crate) fn length(&self, rows: impl Iterator<Item = usize> + Clone) -> Result<usize> {
        let longest = rows.clone().max().unwrap_or(0);
        let target = match self.target {
            Target::Longest => longest,
            Target::Fixed(length) if longest <= length => length,
            Target::Fixed(length) => {
                return Err(Error::invalid(format!(
                    "a text has {longest} tokens, but its row only {length}; \
                     let parameter `truncation` be `true`, or raise `max_length`"
                )));
            }
            Target::Own => {
                let shortest = rows.min().unwrap_or(0);
                if shortest != longest {
                    return Err(Error::invalid(format!(
                        "the texts of a batch have from {shortest} to {longest} tokens; \
                         set parameter `padding` to `longest`"
                    )));
                }
                return Ok(longest);
            }
        };
        Ok(target.next_multiple_of(self.multiple))
    }
}

fn fixed_length(own: Option<&PaddingParams>, max_length: Option<usize>) -> Result<usize> {
    let own = own.and_then(|own| match own.strategy {
        PaddingStrategy::Fixed(length) => Some(length),
        PaddingStrategy::BatchLongest => None,
    });
    max_length.or(own).ok_or_else(|| {
        Error::invalid("parameter `padding` is `max_length`, but no parameter `max_length` says it")
    })
}

fn pad_id(settings: &Settings, tokenizer: &Tokenizer) -> Result<u32> {
    if let Some(token) = settings.get("pad_token") {
        return tokenizer.token_to_id(token).ok_or_else(|| {
            Error::invalid(format!("parameter `pad_token` is `{token}`, which is no token"))
        });
    }
    if let Some(own) = tokenizer.get_padding() {
        return Ok(own.pad_id);
    }
    // Without any, 0 does: the attention mask tells padding from text.
    Ok(PAD_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token)).unwrap_or(0))
}

fn is_left(settings: &Settings, own: Option<&PaddingParams>) -> Result<bool> {
    match settings.get("padding_side") {
        Some("left") => Ok(true),
        Some("right") => Ok(false),
        None => Ok(own.is_some_and(|own| matches!(own.direction, PaddingDirection::Left))),
        Some(other) => Err(Error::invalid(format!(
            "parameter `padding_side` must be `left` or `right`, not `{other}`"
        ))),
    }
}
