//! The generation loop: admit requests, step each sequence by a token, emit, retire.

use std::thread;
use std::time::Duration;

use consort_stage::{Error, Jobs, JobsClosed};

use super::decoder::{Decoder, Row, Slot};
use super::request::Limits;
use super::response::Outputs;
use super::sequence::{Due, Sequence};

/// How long the loop rests when every caller reads too slowly: far below what a reader notices,
/// and long enough to cost nothing.
const REST: Duration = Duration::from_millis(1);

/// A decoder and the sequences in it.
pub(crate) struct Engine<D> {
    decoder: D,
    limits: Limits,
    outputs: Outputs,
    active: Vec<Sequence>,
    free: Vec<Slot>,
}

impl<D: Decoder> Engine<D> {
    /// An engine without sequences.
    pub(crate) fn new(decoder: D, limits: Limits, is_batching: bool) -> Self {
        Self {
            free: (0..decoder.slots()).rev().collect(),
            decoder,
            limits,
            outputs: Outputs::new(is_batching),
            active: Vec::new(),
        }
    }

    /// Works until no request will come any more and every admitted one is answered.
    pub(crate) fn run(&mut self, jobs: &mut Jobs) {
        self.begin_afresh();
        loop {
            let closed = self.admit(jobs).is_err();
            if closed && self.active.is_empty() {
                return;
            }
            if !self.step() && !self.active.is_empty() {
                thread::sleep(REST);
            }
        }
    }

    /// Fails and forgets what is left of a run before this one, which then ended in a panic.
    fn begin_afresh(&mut self) {
        for sequence in self.active.drain(..) {
            sequence.fail(Error::internal("the model broke down beside this request"));
        }
        self.free = (0..self.decoder.slots()).rev().collect();
        for slot in &self.free {
            self.decoder.release(*slot);
        }
    }

    /// Gives a slot to each request that waits, and waits for one when there is nothing to do.
    fn admit(&mut self, jobs: &mut Jobs) -> Result<(), JobsClosed> {
        while let Some(slot) = self.free.last().copied() {
            let job = if self.active.is_empty() { Some(jobs.wait()?) } else { jobs.poll()? };
            let Some(job) = job else {
                break;
            };
            if let Some(sequence) = Sequence::admit(job, slot, &self.limits, &self.outputs) {
                self.free.pop();
                self.active.push(sequence);
            }
        }
        Ok(())
    }

    /// Does what is due for each sequence, once; whether anything was.
    fn step(&mut self) -> bool {
        let due: Vec<_> =
            self.active.drain(..).map(|sequence| (sequence.due(), sequence)).collect();
        let mut is_busy = false;
        let mut decoding = Vec::new();
        for (due, sequence) in due {
            is_busy |= due != Due::Wait;
            match due {
                Due::Wait => self.active.push(sequence),
                Due::Retire => self.retire(sequence),
                Due::Prefill => self.prefill(sequence),
                Due::Decode => decoding.push(sequence),
            }
        }
        while !decoding.is_empty() {
            let rest = decoding.split_off(self.decoder.max_rows().min(decoding.len()));
            self.decode(std::mem::replace(&mut decoding, rest));
        }
        is_busy
    }

    /// Feeds one piece of a prompt, so that a long one does not keep the others waiting.
    fn prefill(&mut self, mut sequence: Sequence) {
        let most = self.decoder.prefill_tokens();
        let slot = sequence.slot();
        match self.decoder.prefill(slot, sequence.feed(most)) {
            Ok(_) if !sequence.is_fed() => self.active.push(sequence),
            Ok(logits) => {
                let outcome = sequence.advance(logits);
                self.settle(sequence, outcome.map(|finish| finish.is_some()));
            }
            Err(error) => self.fail(sequence, error),
        }
    }

    /// Feeds the last token of each of some sequences, in one run.
    fn decode(&mut self, mut sequences: Vec<Sequence>) {
        let rows: Vec<_> = sequences
            .iter_mut()
            .flat_map(|sequence| {
                let slot = sequence.slot();
                let tokens = sequence.feed(1).iter();
                tokens.map(move |token| Row { slot, token: *token })
            })
            .collect();
        match self.decoder.decode(&rows) {
            Ok(logits) => {
                let row = logits.len() / rows.len();
                let outcomes: Vec<_> = sequences
                    .iter_mut()
                    .zip(logits.chunks_mut(row))
                    .map(|(sequence, logits)| sequence.advance(logits).map(|end| end.is_some()))
                    .collect();
                for (sequence, outcome) in sequences.into_iter().zip(outcomes) {
                    self.settle(sequence, outcome);
                }
            }
            Err(error) => {
                for sequence in sequences {
                    self.fail(sequence, error.clone());
                }
            }
        }
    }

    /// Keeps a sequence that goes on and frees the slot of one that is over.
    fn settle(&mut self, sequence: Sequence, is_over: Result<bool, Error>) {
        match is_over {
            Ok(false) => self.active.push(sequence),
            Ok(true) => self.free_slot(sequence.slot()),
            Err(error) => self.fail(sequence, error),
        }
    }

    fn fail(&mut self, sequence: Sequence, error: Error) {
        self.free_slot(sequence.slot());
        sequence.fail(error);
    }

    fn retire(&mut self, sequence: Sequence) {
        self.free_slot(sequence.slot());
        sequence.retire();
    }

    fn free_slot(&mut self, slot: Slot) {
        self.decoder.release(slot);
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use consort_stage::{Job, Reply, Request, Responses, Result, Tensor};
    use futures::StreamExt;

    use super::*;
    use crate::llm::decoder::Token;

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

        fn prefill(&mut self, _: Slot, tokens: &[Token]) -> Result<&mut [f32]> {
            assert!(!tokens.contains(&1), "one");
            self.0 = [0.0, 0.0, 1.0, 0.0];
            Ok(&mut self.0)
        }

        fn decode(&mut self, _: &[Row]) -> Result<&mut [f32]> {
            self.0 = [0.0, 0.0, 1.0, 0.0];
            Ok(&mut self.0)
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
        };
        let mut engine = Engine::new(Fragile([0.0; 4]), limits, true);
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
