//! Makes matchers from guides: the tokens of the vocabulary that may come next in a text.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use consort_stage::{Error, Result};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use super::mask::Mask;
use super::source::Source;
use super::vocabulary;

/// How many guides are remembered in compiled form: those that the callers of one service send
/// again and again.
const REMEMBERED: usize = 16;

/// A vocabulary, and the guides that were compiled for it last.
pub(super) struct Compiler {
    factory: ParserFactory,
    /// The one used last comes first.
    compiled: VecDeque<(Source, Compiled)>,
}

/// A text that has not begun.
pub(super) struct Compiled {
    pub(super) matcher: Matcher,
    pub(super) mask: Mask,
}

/// What the parser says of a grammar that no text can follow to its end, and what that means.
const NO_TEXT: &str = "NoExtensionBias";
const NEVER_WHOLE: &str =
    "no text can ever be whole by it; does a part of it lead to nothing but itself?";

impl Clone for Compiled {
    /// One that learns for itself: what a matcher learns of its grammar counts against its limits.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), mask: self.mask.clone() }
    }
}

impl Compiler {
    /// A compiler for the tokens of a `tokenizer.json`, of which the model knows so many.
    pub(super) fn new(tokenizer: &Path, vocabulary: usize) -> Result<Self> {
        let file = fs::read_to_string(tokenizer).map_err(|error| {
            Error::unsupported(format!("`tokenizer.json` cannot be read: {error}"))
        })?;
        let mut tokens = vocabulary::read(&file, vocabulary)?;
        // The end of a text is a token beyond the vocabulary, so that each request can say itself
        // which tokens end its text.
        tokens.push(Vec::new());
        let info = TokRxInfo::new(tokens.len() as u32, vocabulary as u32);
        let trie = TokTrie::from(&info, &tokens);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new_simple(&environment).map_err(|error| unusable(&error))?;
        Ok(Self::of(factory))
    }

    fn of(mut factory: ParserFactory) -> Self {
        // The texts of errors go to callers, and to the standard error nothing does.
        factory.quiet().limits_mut().verbose_errors = false;
        Self { factory, compiled: VecDeque::new() }
    }

    /// The matcher of a guide, and what its text may begin with.
    pub(super) fn compile(&mut self, source: &Source) -> Result<Compiled> {
        if let Some(place) = self.compiled.iter().position(|(known, _)| known == source)
            && let Some(known) = self.compiled.remove(place)
        {
            let compiled = known.1.clone();
            self.compiled.push_front(known);
            return Ok(compiled);
        }
        let parser = self.factory.create_parser_from_init_ext(
            llguidance::api::GrammarInit::Serialized(source.grammar()?),
            llguidance::Logger::new(0, 0),
            InferenceCapabilities::default(),
            self.factory.limits().clone(),
        );
        let mut matcher = Matcher::new(parser);
        let mask = Mask::next(&mut matcher).map_err(|error| {
            if error.contains(NO_TEXT) {
                source.refused(NEVER_WHOLE)
            } else {
                source.not_compiled(&error)
            }
        })?;
        let compiled = Compiled { matcher, mask };
        self.compiled.truncate(REMEMBERED - 1);
        self.compiled.push_front((source.clone(), compiled.clone()));
        Ok(compiled)
    }
}

fn unusable(error: &impl std::fmt::Display) -> Error {
    Error::internal(format!("the tokens of `tokenizer.json` cannot be put in order: {error}"))
}
