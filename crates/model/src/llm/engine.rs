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
