//! Structured output: keeps a text within a schema, a regular expression or a list of choices.
//!
//! Which tokens may come next is computed on threads of its own while the model computes the
//! logits that it applies to. A guide is compiled before its request is given a slot.

mod compiler;
mod ebnf;
mod lark;
mod limits;
mod mask;
mod mistake;
mod source;
mod structural_tag;
mod translated;
mod vocabulary;
mod workers;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use consort_stage::{Error, Result};
use llguidance::api::StopReason;
use llguidance::{CancellationHandle, Matcher};

use self::compiler::{Compiled, Compiler};
pub(crate) use self::mask::Left;
use self::mask::Mask;
pub(crate) use self::source::{GUIDE, Source, TYPE};
use self::workers::{Pending, Workers};
use super::decoder::Token;
use super::fields::wrong;

/// How long a step waits for the tokens that may come next in one of its texts: many times what
/// the limits of the matcher allow on an idle machine, so that only a stuck one meets it.
const LONGEST_MASK: Duration = Duration::from_secs(2);

/// Twice what the recursion over the deepest guide takes that is compiled, where nothing is
/// optimised. Memory is taken only as far as a guide leads.
const COMPILING_STACK: usize = 128 << 20;
/// For what follows a guide, which recurs over little of it.
const MASKING_STACK: usize = 16 << 20;

/// What makes the guides of a model's requests.
pub(crate) struct Guidance {
    /// The model's `tokenizer.json`, or why there is none.
    tokenizer: Result<PathBuf>,
    vocabulary: usize,
    threads: usize,
    /// How many texts there can be at once, each of which has one task at most.
    texts: usize,
    /// Started by the first request that has a guide.
    started: Option<Started>,
}

struct Started {
    /// One thread, so that compiling never takes those that a running step waits for.
    compiling: Workers,
    masking: Arc<Workers>,
    compiler: Arc<Mutex<Option<Compiler>>>,
}

impl Guidance {
    /// Guides over the tokens of a `tokenizer.json` for so many texts at once, followed on so many
    /// threads.
    pub(crate) fn new(
        (tokenizer, vocabulary): (Result<PathBuf>, usize),
        (texts, threads): (usize, usize),
    ) -> Self {
        Self { tokenizer, vocabulary, threads, texts, started: None }
    }

    /// Begins to compile a guide.
    pub(crate) fn guide(&mut self, source: Source) -> Result<Guide> {
        let of_guide = |error: Error| error.of_input(Some(GUIDE));
        let tokenizer = self.tokenizer.clone().map_err(of_guide)?;
        let vocabulary = self.vocabulary;
        let Started { compiling, masking, compiler } = match &mut self.started {
            Some(started) => started,
            none => none.insert(Started::new(self.texts, self.threads)?),
        };
        let compiler = Arc::clone(compiler);
        let compiled = compiling.submit(move || {
            let mut compiler = compiler.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *compiler {
                Some(compiler) => compiler.compile(&source),
                none => {
                    let compiler = Compiler::new(&tokenizer, vocabulary).map_err(of_guide)?;
                    none.insert(compiler).compile(&source)
                }
            }
        })?;
        let state = State::Compiling(compiled);
        Ok(Guide { state, masking: Arc::clone(masking), cancellation: None })
    }
}

impl Started {
    fn new(texts: usize, threads: usize) -> Result<Self> {
        Ok(Self {
            compiling: Workers::start(("guide_compile", COMPILING_STACK), 1, texts)?,
            masking: Arc::new(Workers::start(("guide_mask", MASKING_STACK), threads, texts)?),
            compiler: Arc::default(),
        })
    }
}

/// What keeps one text within its bounds.
pub(crate) struct Guide {
    state: State,
    masking: Arc<Workers>,
    /// What stops the task that is under way, once the guide is compiled.
    cancellation: Option<CancellationHandle>,
}

enum State {
    Compiling(Pending<Result<Compiled>>),
    Masking(Pending<(Matcher, Result<Mask, String>)>),
    Ready(Box<Compiled>),
    /// It failed, or gave up what it had for a moment.
    Lost,
}

impl Guide {
    /// Whether it is compiled; the error of one that cannot be.
    pub(crate) fn is_compiled(&mut self) -> Result<bool> {
        let State::Compiling(result) = &self.state else {
            return Ok(true);
        };
        let mut compiled = match result.take() {
            Ok(compiled) => compiled?,
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Err(broken_down()),
        };
        compiled.matcher = compiled.matcher.into_cancellable();
        self.cancellation = compiled.matcher.cancellation_handle();
        self.state = State::Ready(Box::new(compiled));
        Ok(true)
    }

    /// Makes every token impossible that may not come next; waits for what is still computed,
    /// which the limits of the matcher end within some tens of milliseconds, but not for ever.
    pub(crate) fn restrict(&mut self, logits: &mut [f32], end_ids: &[Token]) -> Result<Left> {
        if let State::Masking(result) = &self.state {
            let (matcher, mask) = result.wait(LONGEST_MASK).map_err(|error| match error {
                RecvTimeoutError::Timeout => lost("the next token takes too long"),
                RecvTimeoutError::Disconnected => broken_down(),
            })?;
            let mask = mask.map_err(|error| lost(&error))?;
            self.state = State::Ready(Box::new(Compiled { matcher, mask }));
        }
        match &self.state {
            State::Ready(compiled) => Ok(compiled.mask.apply(logits, end_ids)),
            _ => Err(broken_down()),
        }
    }

    /// Notes which token came next, and begins to compute which may follow; whether none may,
    /// because the text is whole.
    pub(crate) fn advance(&mut self, token: Token) -> Result<bool> {
        let State::Ready(compiled) = std::mem::replace(&mut self.state, State::Lost) else {
            return Err(broken_down());
        };
        let mut matcher = compiled.matcher;
        matcher.consume_token(token).map_err(|error| lost(&error.to_string()))?;
        match matcher.stop_reason() {
            StopReason::NotStopped => {}
            reason if reason.is_ok() => return Ok(true),
            reason => return Err(lost(&reason.to_string())),
        }
        self.state = State::Masking(self.masking.submit(move || {
            let mask = Mask::next(&mut matcher);
            (matcher, mask)
        })?);
        Ok(false)
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        if let Some(cancellation) = &self.cancellation {
            cancellation.cancel();
        }
    }
}

fn broken_down() -> Error {
    Error::internal(format!("what follows `{GUIDE}` broke down"))
}

/// The error for a guide that cannot be followed any further, which takes more than its limits.
fn lost(reason: &str) -> Error {
    wrong(GUIDE, format!("cannot be followed any further: {}", source::brief(reason)))
}

#[cfg(test)]
mod tests;
