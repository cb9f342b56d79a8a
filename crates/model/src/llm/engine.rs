//! The generation loop: admit requests, step every sequence by a token, emit, retire.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use consort_stage::{Error, Job, Jobs, JobsClosed};

use super::adapters::AdapterId;
use super::decoder::{Decoder, Row, Slot};
use super::guidance::Guidance;
use super::request::Limits;
use super::response::{Finish, Outputs};
use super::runs::Runs;
use super::sampler::Pick;
use super::sequence::{Due, Sequence};
use super::steps::Steps;
use super::waiting::Waiting;

/// How long the loop rests when every caller reads too slowly or has a guide compiled: far below what a reader notices,
/// and long enough to cost nothing.
const REST: Duration = Duration::from_millis(1);

/// How much of a step's tokens is left to prompts at least, however many sequences take theirs: a
/// quarter.
const PROMPTS_SHARE: usize = 4;

/// How many tokens of prompts have the logits behind them read in a step: on a card reading a row
/// of them and adding it up takes longer than computing it, and others wait meanwhile.
const MOST_TOLD: usize = 128;

/// A decoder and the sequences in it.
pub(crate) struct Engine {
    decoder: Box<dyn Decoder>,
    limits: Limits,
    outputs: Outputs,
    guidance: Guidance,
    runs: Arc<Runs>,
    steps: Steps,
    waiting: Waiting,
    /// The sequences that have a slot, in the order they were given it.
    active: Vec<Sequence>,
    free: Vec<Slot>,
    /// What one step works with, kept from step to step.
    step: Step,
}

/// What one step works with.
#[derive(Default)]
struct Step {
    /// The sequences that take a token.
    decoding: Vec<usize>,
    /// The same as the decoder is told.
    rows: Vec<Row>,
    /// The sequences that are over, and the errors of those that failed.
    over: Vec<(usize, Option<Error>)>,
}

impl Engine {
    /// An engine without sequences.
    pub(crate) fn new(
        decoder: Box<dyn Decoder>,
        limits: Limits,
        outputs: Outputs,
        (guidance, runs): (Guidance, Arc<Runs>),
    ) -> Self {
        Self {
            free: (0..decoder.slots()).rev().collect(),
            decoder,
            waiting: Waiting::new(limits.max_queue_size()),
            limits,
            outputs,
            guidance,
            runs,
            steps: Steps::default(),
            active: Vec::new(),
            step: Step::default(),
        }
    }

    /// The same, its steps called so in traces.
    pub(crate) fn named(self, steps: Steps) -> Self {
        Self { steps, ..self }
    }

    /// Works until no request will come any more and every admitted one is answered.
    pub(crate) fn run(&mut self, jobs: &mut Jobs) {
        self.begin_afresh();
        loop {
            let closed = self.receive(jobs).is_err();
            self.admit();
            if closed && self.active.is_empty() && self.waiting.is_empty() {
                return;
            }
            if !self.step() && !self.is_idle() {
                thread::sleep(REST);
            }
        }
    }

    /// Fails and forgets what is left of a run before this one, which then ended in a panic.
    fn begin_afresh(&mut self) {
        for sequence in self.active.drain(..).chain(self.waiting.drain()) {
            sequence.fail(Error::internal("the model broke down beside this request"));
        }
        self.step = Step::default();
        self.runs.end();
        self.free = (0..self.decoder.slots()).rev().collect();
        for slot in &self.free {
            self.decoder.release(*slot);
        }
    }

    /// Takes in the requests that came, and waits for one when there is nothing to do. One that
    /// cannot be done is answered at once.
    fn receive(&mut self, jobs: &mut Jobs) -> Result<(), JobsClosed> {
        while self.waiting.has_room() {
            let job = if self.is_idle() { Some(jobs.wait()?) } else { jobs.poll()? };
            let Some(job) = job else {
                break;
            };
            for sequence in self.read(job) {
                self.waiting.push(sequence);
            }
        }
        Ok(())
    }

    fn read(&mut self, job: Job) -> Vec<Sequence> {
        Sequence::read(job, &self.limits, &self.outputs, &mut self.guidance)
    }

    /// Whether there is nobody to work for.
    fn is_idle(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    /// Lets those go that nobody waits for any more, and gives every free slot to the most urgent
    /// request.
    fn admit(&mut self) {
        self.waiting.retire();
        for index in (0..self.active.len()).rev() {
            if self.active[index].is_over() {
                self.remove(index).retire();
            }
        }
        while let Some(slot) = self.free.last().copied()
            && let Some(mut sequence) = self.waiting.pop()
        {
            self.free.pop();
            sequence.place(slot);
            self.active.push(sequence);
        }
    }

    /// Does what is due for each sequence, once; whether anything was.
    ///
    /// Sequences that take a token go first and together. What the step's tokens leave goes to
    /// prompts, in the order they came, so that neither waits for all of the other.
    fn step(&mut self) -> bool {
        let decoded = self.decode();
        let most = self.decoder.prefill_tokens();
        let budget = most.saturating_sub(decoded).max(most / PROMPTS_SHARE).max(1);
        let fed = self.prefill(budget);
        decoded + fed > 0
    }

    /// Feeds the last token of every sequence that has given one; how many those were.
    fn decode(&mut self) -> usize {
        let mut step = std::mem::take(&mut self.step);
        let due = |index: &usize| {
            let sequence = &self.active[*index];
            sequence.due() == Due::Decode && sequence.promise()
        };
        step.decoding.clear();
        step.decoding.extend((0..self.active.len()).filter(due));
        // Those of one adapter are computed together, and in their order.
        step.decoding.sort_by_key(|index| self.active[*index].adapter());
        let decoding = std::mem::take(&mut step.decoding);
        let mut rest = decoding.as_slice();
        while let Some(first) = rest.first() {
            let adapter = self.active[*first].adapter();
            let is_alike = |index: &&usize| self.active[**index].adapter() == adapter;
            let alike = rest.iter().take_while(is_alike).count().min(self.decoder.max_rows());
            let (alike, others) = rest.split_at(alike);
            self.decode_together(adapter, alike, &mut step);
            rest = others;
        }
        // From the last, so that the numbers of the others stay true.
        step.over.sort_unstable_by_key(|(index, _)| *index);
        while let Some((index, error)) = step.over.pop() {
            self.settle(index, error);
        }
        let decoded = decoding.len();
        step.decoding = decoding;
        self.step = step;
        decoded
    }

    /// Feeds the last token of some sequences of one adapter.
    fn decode_together(&mut self, adapter: AdapterId, decoding: &[usize], step: &mut Step) {
        step.rows.clear();
        step.rows.extend(decoding.iter().map(|index| self.active[*index].next_row()));
        // Ends with the step.
        let _shown = self.steps.begin(&decoding.iter().map(|index| &self.active[*index]));
        self.runs.begin(adapter, decoding.iter().map(|index| self.active[*index].caller()));
        let decoded = self.decoder.decode(&step.rows);
        self.runs.end();
        match decoded {
            Ok(()) => {
                for (row, index) in decoding.iter().enumerate() {
                    let sequence = &mut self.active[*index];
                    match advance(&mut *self.decoder, sequence, row) {
                        Ok(None) => {}
                        Ok(Some(_)) => step.over.push((*index, None)),
                        Err(error) => step.over.push((*index, Some(error))),
                    }
                }
            }
            Err(error) => {
                let failed = decoding.iter().map(|index| (*index, Some(error.clone())));
                step.over.extend(failed);
            }
        }
    }

    /// Feeds so many tokens of prompts, the oldest first; how many those were.
    fn prefill(&mut self, budget: usize) -> usize {
        let (mut fed, mut told, mut index) = (0, 0, 0);
        while fed < budget && index < self.active.len() {
            let sequence = &self.active[index];
            let tells = sequence.tells_prompt();
            let waits = sequence.due() != Due::Prefill || tells && told >= MOST_TOLD;
            if waits || !sequence.promise() {
                index += 1;
                continue;
            }
            let most = if tells { self.decoder.told_tokens(MOST_TOLD - told) } else { usize::MAX };
            let piece = self.feed(index, most.min(budget - fed));
            if let Ok((tokens, _)) = piece {
                fed += tokens;
                told += if tells { tokens } else { 0 };
            }
            match piece {
                Ok((_, true)) => {}
                Ok((_, false)) => {
                    self.settle(index, None);
                    continue;
                }
                Err(error) => {
                    self.settle(index, Some(error));
                    continue;
                }
            }
            index += 1;
        }
        fed
    }

    /// Feeds a piece of a sequence's prompt: how many tokens those were, and whether it goes on.
    fn feed(&mut self, index: usize, most: usize) -> Result<(usize, bool), Error> {
        let sequence = &mut self.active[index];
        let slot = sequence.slot();
        if !sequence.has_begun() {
            let held = self.decoder.begin(slot, sequence.reusable(), sequence.adapter())?;
            sequence.begin(held);
        }
        self.runs.begin(sequence.adapter(), std::iter::once(sequence.caller()));
        let piece = sequence.feed(most);
        let fed = piece.tokens.len();
        let prefilled = self.decoder.prefill(slot, piece);
        self.runs.end();
        prefilled?;
        sequence.hear(&mut *self.decoder, fed)?;
        if !sequence.is_fed() {
            sequence.release();
            return Ok((fed, true));
        }
        if sequence.is_prompt_only() {
            sequence.end();
            return Ok((fed, false));
        }
        let finish = advance(&mut *self.decoder, sequence, 0)?;
        Ok((fed, finish.is_none()))
    }

    /// Frees the slot of a sequence that is over, and tells its caller when it failed.
    fn settle(&mut self, index: usize, error: Option<Error>) {
        let sequence = self.remove(index);
        if let Some(error) = error {
            sequence.fail(error);
        }
    }

    fn remove(&mut self, index: usize) -> Sequence {
        let sequence = self.active.remove(index);
        let slot = sequence.slot();
        self.decoder.release(slot);
        self.free.push(slot);
        sequence
    }
}

/// Gives a sequence its next token, from the scores of a row of the last run, where those are not
/// enough by drawing from all, and from all logits where nothing else is; how the sequence ended,
/// if it did.
fn advance(
    decoder: &mut dyn Decoder,
    sequence: &mut Sequence,
    row: usize,
) -> Result<Option<Finish>, Error> {
    let mut picked = sequence.pick(decoder.scores(row)?)?;
    while let Pick::NeedsLots(lots) = picked
        && let Some(drawn) = decoder.draw(row, lots)?
    {
        picked = sequence.pick(drawn)?;
    }
    if matches!(picked, Pick::NeedsLots(_) | Pick::NeedsLogits) {
        picked = sequence.pick(decoder.logits(row)?)?;
    }
    sequence.advance(picked)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use consort_stage::{Reply, Request, Responses, Result, Tensor};
    use futures::StreamExt;

    use super::*;
    use crate::llm::decoder::{Piece, Scores, Token};

    /// Finds token 2 the likeliest, and breaks down over token 1.
    struct Fragile([f32; 4]);

    impl Decoder for Fragile {
        fn slots(&self) -> usize {
            2
        }

        fn max_rows(&self) -> usize {
            1
        }

        fn prefill_tokens(&self) -> usize {
            8
        }

        fn prefill(&mut self, _: Slot, piece: Piece<'_>) -> Result<()> {
            assert!(!piece.tokens.contains(&1), "one");
            Ok(())
        }

        fn logits_behind(&mut self, _: usize) -> Result<&[f32]> {
            Ok(&self.0)
        }

        fn begin(&mut self, _: Slot, _: &[Token], _: AdapterId) -> Result<usize> {
            Ok(0)
        }

        fn decode(&mut self, _: &[Row]) -> Result<()> {
            Ok(())
        }

        fn scores(&mut self, _: usize) -> Result<Scores<'_>> {
            self.0 = [0.0, 0.0, 1.0, 0.0];
            Ok(Scores::Logits(&mut self.0))
        }

        fn release(&mut self, _: Slot) {}
    }

    fn job(prompt: i32) -> (Job, Responses) {
        let (reply, responses) = Reply::channel(64);
        let tensor = |name: &str, value| Tensor::from_vec(name, &[1, 1], vec![value]);
        let inputs = vec![tensor("input_ids", prompt), tensor("request_output_len", 40)];
        (Job { request: Request { inputs, ..Request::default() }, reply }, responses)
    }

    #[test]
    fn a_run_after_a_panic_fails_what_was_left_and_has_every_slot_again() {
        let limits = Limits {
            context: 64,
            vocabulary: 4,
            end_ids: vec![3],
            default_max_tokens: 4,
            is_decoupled: true,
            max_logits_bytes: 0,
            adapters: Vec::new(),
            priorities: None,
        };
        let outputs = Outputs::new(std::iter::once("output_ids".into()), true);
        let guidance = Guidance::new((Err(Error::not_found("no tokenizer")), 4), (2, 1));
        let runs = Arc::new(Runs::bare());
        let mut engine =
            Engine::new(Box::new(Fragile([0.0; 4])), limits, outputs, (guidance, runs));
        let (sender, mut jobs) = Jobs::channel(4);
        let ((bystander, beside), (fatal, over)) = (job(0), job(1));
        sender.try_send(bystander).unwrap();
        sender.try_send(fatal).unwrap();
        let run = AssertUnwindSafe(|| engine.run(&mut jobs));
        assert!(catch_unwind(run).is_err());

        let (sender, mut jobs) = Jobs::channel(4);
        let (mut waiting, mut answered) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (job, responses) = job(0);
            sender.try_send(job).unwrap();
            waiting.push(responses);
        }
        drop(sender);
        engine.run(&mut jobs);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for responses in [beside, over] {
            let last = runtime.block_on(responses.collect::<Vec<_>>()).pop().unwrap();
            assert!(last.unwrap_err().message().contains("broke down"));
        }
        for responses in waiting {
            answered.extend(runtime.block_on(responses.collect::<Vec<_>>()).pop().unwrap());
        }
        assert_eq!(answered.len(), 2);
    }
}
