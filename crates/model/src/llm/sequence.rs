//! One text on its way: what it was fed, what it generated, and what its caller has been given.

use std::sync::Arc;

use consort_stage::{Error, Job, Result};
use tracing::Span;

use super::adapters::AdapterId;
use super::caller::Caller;
use super::decoder::{Decoder, Piece, Row, Scores, Slot, Token, Wants};
use super::fields::wrong;
use super::guidance::{GUIDE, Guidance, Guide, Left};
use super::log_probs::LogProbs;
use super::prompt_scores::PromptScores;
use super::raw_logits::RawLogits;
use super::request::{Generation, Limits};
use super::response::{Finish, Outputs, Part};
use super::sampler::{Pick, Sampler};
use super::waiting::Urgency;

/// A sequence that waits for a slot of the decoder, or has one.
pub(crate) struct Sequence {
    slot: Slot,
    urgency: Urgency,
    /// Whether the decoder knows of it.
    has_begun: bool,
    caller: Arc<Caller>,
    /// Which of its caller's texts it is, from 0.
    index: usize,
    outputs: Outputs,
    generation: Arc<Generation>,
    guide: Option<Guide>,
    sampler: Sampler,
    log_probs: LogProbs,
    /// The logits of its tokens, where they are wanted.
    logits: Option<RawLogits>,
    /// What its caller is told of the prompt, until it is.
    of_prompt: Option<PromptScores>,
    /// How many tokens of the prompt the decoder held already.
    cached: usize,
    /// The prompt and everything generated.
    text: Vec<Token>,
    /// How much of the text the decoder was fed.
    fed: usize,
    /// How much of the text the caller was given, the prompt included.
    given: usize,
    /// Whether the prompt is still to be put before the first new tokens.
    owes_prompt: bool,
}

/// What the loop has to do for a sequence next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Feed the rest of its prompt.
    Prefill,
    /// Feed its last token.
    Decode,
}

impl Sequence {
    /// Checks what a job asks for, and gives a sequence for each text that it wants; a job that
    /// cannot be done is answered at once, and gives none.
    pub(crate) fn read(
        job: Job,
        limits: &Limits,
        outputs: &Outputs,
        guidance: &mut Guidance,
    ) -> Vec<Self> {
        if job.request.context.is_expired() {
            job.reply.fail(Error::deadline_exceeded());
            return Vec::new();
        }
        let read = Generation::read(&job.request, limits).and_then(|mut generation| {
            let source = generation.guide.take();
            let guide = |_| source.clone().map(|source| guidance.guide(source)).transpose();
            let guides = (0..generation.texts).map(guide).collect::<Result<Vec<_>>>()?;
            Ok((generation, guides))
        });
        let (generation, guides) = match read {
            Ok(read) => read,
            Err(error) => {
                job.reply.fail(error);
                return Vec::new();
            }
        };
        let urgency = Urgency::new(limits.level(&job.request), job.request.context.deadline);
        let outputs = outputs.wanted_by(&job.request, &generation);
        let caller = Arc::new(Caller::new(job, generation.texts));
        let generation = Arc::new(generation);
        let sequence = |(index, guide)| {
            let generation = Arc::clone(&generation);
            let sampling = generation.sampling.of_text(index);
            Self {
                slot: Slot::MAX,
                urgency,
                has_begun: false,
                caller: Arc::clone(&caller),
                index,
                outputs: outputs.clone(),
                log_probs: LogProbs::new(generation.log_probs),
                logits: generation.wants_logits.then(|| RawLogits::new(limits.vocabulary)),
                // The same for all its texts, so told with the first.
                of_prompt: PromptScores::new(generation.of_prompt, limits.vocabulary)
                    .filter(|_| index == 0),
                cached: 0,
                guide,
                sampler: Sampler::new(sampling, &generation.prompt),
                text: generation.prompt.clone(),
                fed: 0,
                given: generation.prompt.len(),
                owes_prompt: !generation.excludes_prompt,
                generation,
            }
        };
        guides.into_iter().enumerate().map(sequence).collect()
    }

    /// Whether it can be given a slot, which it cannot while its guide is compiled; the error of a
    /// guide that cannot be.
    pub(crate) fn is_ready(&mut self) -> Result<bool> {
        self.guide.as_mut().map_or(Ok(true), Guide::is_compiled)
    }

    /// Whose turn it is while it waits.
    pub(crate) fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// Gives it a slot.
    pub(crate) fn place(&mut self, slot: Slot) {
        self.caller.admit();
        self.slot = slot;
    }

    /// Its place in the decoder.
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// Whether nobody waits for it any more, or not any longer.
    pub(crate) fn is_over(&self) -> bool {
        self.caller.is_over()
    }

    /// What is to be done for it now; [`promise`](Self::promise) says whether it can be.
    pub(crate) fn due(&self) -> Due {
        let is_behind = self.text.len() - self.fed > 1 || self.fed == 0 || !self.has_begun;
        // What is told of a prompt comes from its pieces, and one alone is given no token.
        let is_told = self.of_prompt.is_some() && self.fed < self.prompt().len();
        if is_behind || is_told || self.is_prompt_only() { Due::Prefill } else { Due::Decode }
    }

    /// Promises its next response room at its caller, until [`advance`](Self::advance) or
    /// [`release`](Self::release); it must wait when there is none.
    pub(crate) fn promise(&self) -> bool {
        self.caller.promise()
    }

    /// Takes the promise back where no response came of it.
    pub(crate) fn release(&self) {
        self.caller.release();
    }

    /// Whether the decoder knows of it.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Notes that the decoder knows of it and holds so many tokens of its prompt.
    pub(crate) fn begin(&mut self, held: usize) {
        (self.has_begun, self.fed, self.cached) = (true, held, held);
    }

    /// The part of its prompt that may be taken over from another's, computed already: none where
    /// the logits behind each token are wanted, which nobody keeps.
    pub(crate) fn reusable(&self) -> &[Token] {
        if self.of_prompt.is_some() { &[] } else { self.prompt() }
    }

    /// The tokens it began with.
    fn prompt(&self) -> &[Token] {
        &self.generation.prompt
    }

    /// The adapter it is computed with.
    pub(crate) fn adapter(&self) -> AdapterId {
        self.generation.adapter
    }

    /// Who waits for it.
    pub(crate) fn caller(&self) -> Arc<Caller> {
        Arc::clone(&self.caller)
    }

    /// Its last token, which the decoder is fed now.
    pub(crate) fn next_row(&mut self) -> Row {
        let token = self.text[self.fed];
        self.fed += 1;
        Row { slot: self.slot, token, wants: self.wants() }
    }

    /// Whether something of its prompt is still to be told, for which the logits behind each token of
    /// it are wanted.
    pub(crate) fn tells_prompt(&self) -> bool {
        self.of_prompt.is_some()
    }

    /// The tokens to feed next, at most so many.
    pub(crate) fn feed(&mut self, most: usize) -> Piece<'_> {
        let tells_each = self.tells_prompt();
        let start = self.fed;
        self.fed = self.text.len().min(start.saturating_add(most));
        let wants = (self.is_fed() && !self.is_prompt_only()).then(|| self.wants());
        Piece { tokens: &self.text[start..self.fed], wants, tells_each }
    }

    /// Notes the logits behind each of the tokens that were fed last, so many.
    pub(crate) fn hear(&mut self, decoder: &mut dyn Decoder, tokens: usize) -> Result<()> {
        let Some(of_prompt) = &mut self.of_prompt else { return Ok(()) };
        for place in 0..tokens {
            let next = self.text.get(self.fed - tokens + place + 1).copied();
            of_prompt.note(decoder.logits_behind(place)?, next);
        }
        Ok(())
    }

    /// Whether the decoder was fed all of it.
    pub(crate) fn is_fed(&self) -> bool {
        self.fed == self.text.len()
    }

    /// Whether it is over with its prompt, of which alone something is wanted.
    pub(crate) fn is_prompt_only(&self) -> bool {
        self.generation.max_tokens == 0
    }

    /// Ends it behind its prompt.
    pub(crate) fn end(&mut self) {
        self.caller.release();
        self.give(Some(Finish::Length));
    }

    /// Picks the next token by its scores.
    pub(crate) fn pick(&mut self, scores: Scores<'_>) -> Result<Pick> {
        let picked = match scores {
            Scores::Likeliest(token) => token.map(Pick::Token),
            Scores::Top(tokens) => self.sampler.pick_from(tokens).map(Pick::Token),
            Scores::Draw(tokens) => self.sampler.draw_from(tokens),
            Scores::Drawn(drawn) => Some(self.sampler.pick_drawn(drawn)),
            Scores::Logits(logits) => {
                self.see(logits);
                if let Some(guide) = &mut self.guide
                    && guide.restrict(logits, &self.generation.end_ids)? == Left::End
                {
                    return Ok(Pick::End);
                }
                self.sampler.pick(logits).map(Pick::Token)
            }
        };
        picked.ok_or_else(|| self.no_token())
    }

    /// Takes what was picked and gives the caller what is ready.
    ///
    /// The sequence is over when this gives how it ended.
    pub(crate) fn advance(&mut self, picked: Pick) -> Result<Option<Finish>> {
        self.caller.release();
        let finish = match picked {
            Pick::Token(token) => self.extend(token)?,
            Pick::End => Some(Finish::Stop),
            _ => return Err(Error::internal("all logits were not enough to pick")),
        };
        let is_ready = self.generation.is_streaming && self.ready() > self.given;
        if is_ready || finish.is_some() {
            self.give(finish);
        }
        Ok(finish)
    }

    /// Ends it with an error.
    pub(crate) fn fail(self, error: Error) {
        self.caller.fail(error);
    }

    /// Ends it because nobody waits for it, or not any longer.
    pub(crate) fn retire(self) {
        self.caller.retire();
    }

    /// What the next token is picked from: whatever changes the logits, or asks for them, needs
    /// those of all tokens.
    fn wants(&self) -> Wants {
        let is_held = !self.generation.words.bad.is_empty() || self.is_too_short();
        let is_told = self.logits.is_some() || self.log_probs.are_wanted();
        let is_free = !is_held && !is_told && self.guide.is_none();
        if is_free { self.sampler.wants() } else { Wants::Logits }
    }

    /// Whether nothing may end it yet.
    fn is_too_short(&self) -> bool {
        self.generated().len() < self.generation.min_tokens
    }

    /// Notes the logits of the next token, and changes them by what the request says.
    fn see(&mut self, logits: &mut [f32]) {
        let Generation { end_ids, words, .. } = &*self.generation;
        self.log_probs.see(logits);
        if let Some(raw) = &mut self.logits {
            raw.see(logits);
        }
        self.sampler.penalise(logits);
        let early = end_ids.iter().copied().filter(|_| self.is_too_short());
        for token in words.forbidden(&self.text).chain(early) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Appends the next token, unless it ends the text.
    fn extend(&mut self, token: Token) -> Result<Option<Finish>> {
        let Generation { end_ids, words, .. } = &*self.generation;
        self.sampler.note(token);
        if end_ids.contains(&token) {
            return Ok(Some(Finish::Stop));
        }
        self.text.push(token);
        self.log_probs.note(token);
        if let Some(raw) = &mut self.logits {
            raw.note();
        }
        let is_whole = self.guide.as_mut().map_or(Ok(false), |guide| guide.advance(token))?;
        let stop = words.stop_length(self.generated());
        if stop > 0 && !words.keeps_stop {
            self.text.truncate(self.text.len() - stop);
        }
        if stop > 0 || is_whole {
            return Ok(Some(Finish::Stop));
        }
        let is_full = self.generated().len() >= self.generation.max_tokens;
        Ok(is_full.then_some(Finish::Length))
    }

    /// The error when every token is impossible.
    fn no_token(&self) -> Error {
        if self.guide.is_some() {
            let generated = self.generated().len();
            let how = format!(
                "allows no token after {generated} of them that the model has and neither \
                 `bad_words_list` nor a bias forbids"
            );
            return wrong(GUIDE, how);
        }
        self.generation.no_token()
    }

    /// Which of its tokens comes next, counted from 1.
    pub(crate) fn next_token(&self) -> usize {
        self.generated().len() + 1
    }

    /// The span of its request, when it is traced.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.caller.span()
    }

    fn generated(&self) -> &[Token] {
        &self.text[self.generation.prompt.len()..]
    }

    /// How much of the text can be given, without what may yet become a stop word.
    fn ready(&self) -> usize {
        self.text.len() - self.generation.words.held_length(self.generated())
    }

    /// Gives the caller what is ready, and at the end all there is.
    fn give(&mut self, finish: Option<Finish>) {
        let end = finish.map_or_else(|| self.ready(), |_| self.text.len());
        let prompt = self.generation.prompt.len();
        let start = if std::mem::take(&mut self.owes_prompt) { 0 } else { self.given };
        let of_prompt = self.of_prompt.take();
        let logits = self.logits.as_ref().map(|logits| logits.waiting(end - prompt));
        let response = self.outputs.response(Part {
            text: &self.text[..end],
            new: end - start,
            generated: end - prompt,
            cached: self.cached,
            log_probs: self.log_probs.spoken(self.given - prompt, end - prompt),
            logits: logits.unwrap_or_default(),
            of_prompt: of_prompt.as_ref().map(|scores| scores.part(&self.text[..prompt])),
            index: self.index,
            finish,
        });
        self.given = end;
        if let Some(logits) = &mut self.logits {
            logits.forget(end - prompt);
        }
        self.caller.give(response, finish.is_some());
    }
}
