//! Where long texts are cut.

use consort_config::Settings;
use consort_stage::{Error, Result};
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

/// The parameters that this file reads.
pub(crate) const PARAMETERS: [&str; 2] = ["truncation", "max_length"];

/// Sets `tokenizer` to cut texts as parameters and file ask; gives the length it cuts them to.
pub(crate) fn apply(settings: &Settings, tokenizer: &mut Tokenizer) -> Result<Option<usize>> {
    let own = tokenizer.get_truncation().cloned();
    let max_length = match settings.parse_or("max_length", 0_usize)? {
        0 => own.as_ref().map(|own| own.max_length),
        length => Some(length),
    };
    let is_wanted = settings.switch_or("truncation", max_length.is_some())?;
    let params = match max_length {
        Some(max_length) if is_wanted => {
            check(max_length, own.as_ref(), tokenizer)?;
            let own = own.unwrap_or_default();
            Some(TruncationParams { max_length, ..own })
        }
        None if is_wanted => {
            return Err(Error::invalid(
                "parameter `truncation` is `true`, but no parameter `max_length` says where",
            ));
        }
        _ => None,
    };
    tokenizer
        .with_truncation(params)
        .map_err(|error| Error::invalid(format!("parameter `max_length`: {error}")))?;
    Ok(max_length)
}

/// Refuses a length that leaves no room, on which the tokenizer itself would overflow.
fn check(max_length: usize, own: Option<&TruncationParams>, tokenizer: &Tokenizer) -> Result<()> {
    let added = tokenizer.get_post_processor().map_or(0, |it| it.added_tokens(true));
    let least = added + own.map_or(0, |own| own.stride) + 1;
    if max_length >= least {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "parameter `max_length` is {max_length}, but special tokens and one of the text need {least}"
    )))
}
