//! The configuration that an ensemble is served with: its own, and what follows from its steps.

use consort_protocol::{ModelConfig, ModelParameter};
use consort_stage::Signature;

use crate::text_tensors::EXCLUDE_PROMPT;

/// The backend that makes tokens of words, and its parameters for that.
const TOKENIZER: &str = "tokenizer";
const WORD_LISTS: &str = "word_lists";
const WORD_LIST_FORMAT: &str = "word_list_format";
const PLAIN: &str = "plain";

/// The configuration for callers and for ensembles that call this one.
///
/// Whether texts begin without the prompt is what the ensemble says itself, and else what the first
/// of its steps says that says anything: only one that makes text does.
pub(super) fn served_config<'a>(
    own: &ModelConfig,
    signature: &Signature,
    steps: impl IntoIterator<Item = &'a ModelConfig>,
) -> ModelConfig {
    let mut config = own.clone();
    if signature.is_decoupled {
        config.model_transaction_policy.get_or_insert_default().decoupled = true;
    }
    let mut said = steps.into_iter().filter_map(|step| step.parameters.get(EXCLUDE_PROMPT));
    if let Some(said) = said.next() {
        config.parameters.entry(EXCLUDE_PROMPT.to_owned()).or_insert_with(|| said.clone());
    }
    config
}

/// Whether the texts of a model begin without the prompt where a request does not say.
pub(super) fn excludes_prompt(config: &ModelConfig) -> bool {
    let is_true = |ModelParameter { string_value }: &ModelParameter| {
        ["true", "1"].contains(&string_value.trim().to_ascii_lowercase().as_str())
    };
    config.parameters.get(EXCLUDE_PROMPT).is_some_and(is_true)
}

/// Whether stop words become tokens in these steps as they are, so that whoever looks for them in
/// the text finds each at which a model ends: the tokenizer may also take lines of several words.
pub(super) fn lists_plain_words<'a>(steps: impl IntoIterator<Item = &'a ModelConfig>) -> bool {
    steps.into_iter().any(|step| {
        let parameter = |name| step.parameters.get(name).map(|value| value.string_value.trim());
        step.backend == TOKENIZER
            && parameter(WORD_LISTS).is_some()
            && parameter(WORD_LIST_FORMAT).is_none_or(|format| format == PLAIN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain_unless_the_tokenizer_says_otherwise() {
        let tokenizer = |parameters: &[(&str, &str)]| ModelConfig {
            backend: TOKENIZER.into(),
            parameters: parameters
                .iter()
                .map(|(name, value)| {
                    ((*name).into(), ModelParameter { string_value: (*value).into() })
                })
                .collect(),
            ..ModelConfig::default()
        };
        let lists = (WORD_LISTS, "a:b");
        assert!(lists_plain_words([&ModelConfig::default(), &tokenizer(&[lists])]));
        assert!(lists_plain_words([&tokenizer(&[lists, (WORD_LIST_FORMAT, "plain")])]));
        assert!(!lists_plain_words([&tokenizer(&[lists, (WORD_LIST_FORMAT, "csv")])]));
        assert!(!lists_plain_words([&tokenizer(&[])]));
        let other = ModelConfig { backend: "python".into(), ..tokenizer(&[lists]) };
        assert!(!lists_plain_words([&other]));
    }

    fn saying(value: &str) -> ModelConfig {
        let parameter = ModelParameter { string_value: value.to_owned() };
        let parameters = [(EXCLUDE_PROMPT.to_owned(), parameter)].into();
        ModelConfig { parameters, ..ModelConfig::default() }
    }

    #[test]
    fn an_ensembles_text_begins_as_it_says_itself_and_else_as_its_first_step_that_says() {
        let silent = ModelConfig::default();
        for (own, steps, expected) in [
            (&silent, vec![&silent], false),
            (&silent, vec![&silent, &saying("true"), &saying("false")], true),
            (&silent, vec![&saying("False")], false),
            (&saying("True"), vec![&silent], true),
            (&saying("false"), vec![&saying("true")], false),
        ] {
            let served = served_config(own, &Signature::default(), steps);
            assert_eq!(excludes_prompt(&served), expected);
            // An ensemble that calls this one hears the same.
            let outer = served_config(&silent, &Signature::default(), [&served]);
            assert_eq!(excludes_prompt(&outer), expected);
        }
    }
}
