//! What comes before a text: its prompt, as it was sent or as the model tells it.

use std::sync::Arc;

use consort_stage::{Error, Response};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;

use super::log_probs::Token;
use super::prompt::Prompt;
use super::prompt_log_probs;
use super::sampling::Sampling;

/// The text of a prompt, and its tokens where they are told.
pub(super) type Told = Arc<(String, Vec<Token>)>;

/// What comes before a text.
#[derive(Default)]
pub(super) enum Echo {
    /// Nothing, or nothing more.
    #[default]
    Nothing,
    /// The prompt as it was sent.
    Sent(Arc<Prompt>),
    /// The prompt as the model tells it with the first response, which the other choices are given too.
    Told(Arc<Prompt>, Option<oneshot::Sender<Told>>),
    /// The prompt as another choice is told it.
    Shared(Shared<oneshot::Receiver<Told>>),
}

impl Echo {
    /// Those of the choices of a prompt.
    pub(super) fn of_choices(prompt: &Arc<Prompt>, sampling: &Sampling) -> Vec<Self> {
        let (sender, receiver) = oneshot::channel();
        let (mut sender, receiver) = (Some(sender), receiver.shared());
        let echo = |choice| {
            if sampling.prompt_log_probs.is_none() {
                Self::Sent(Arc::clone(prompt))
            } else if sampling.asks_of_prompt(choice) {
                Self::Told(Arc::clone(prompt), sender.take())
            } else {
                Self::Shared(receiver.clone())
            }
        };
        (0..sampling.choices).map(echo).collect()
    }

    /// What a response tells, if it is the one that does.
    pub(super) fn read(&mut self, response: &Response) -> Result<Option<Told>, Error> {
        let Self::Told(prompt, sender) = self else { return Ok(None) };
        let told = Arc::new(prompt_log_probs::read(response, prompt)?);
        if let Some(sender) = sender.take() {
            // There may be no other choice, or none any more.
            let _ = sender.send(Arc::clone(&told));
        }
        *self = Self::Nothing;
        Ok(Some(told))
    }

    /// Whether another choice is still to say what comes before the text.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// What there is without another response: what was sent, and what another choice has been told,
    /// for which the end of a text waits.
    pub(super) async fn take(&mut self, is_end: bool) -> Result<Option<Told>, Error> {
        let told = match self {
            Self::Nothing | Self::Told(..) => return Ok(None),
            // Copied no sooner than this, for a model may refuse a prompt that is long.
            Self::Sent(prompt) => match &**prompt {
                Prompt::Text(text) => Ok(Arc::new((text.clone(), Vec::new()))),
                Prompt::Tokens(_) => return Ok(None),
            },
            Self::Shared(told) if is_end => told.await,
            Self::Shared(told) => match told.now_or_never() {
                Some(told) => told,
                None => return Ok(None),
            },
        };
        *self = Self::Nothing;
        told.map(Some).map_err(|_| Error::internal("no choice was told the tokens of the prompt"))
    }
}
