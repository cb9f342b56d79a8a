//! Chooses which of the sequences that have a request run together, and when.

use std::time::{Duration, Instant};

use consort_config::{DynamicBatching, Strategy};

use super::line::Form;

/// A sequence of one instance whose next request could run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) slot: usize,
    /// The request's place among all of the model.
    pub(super) number: u64,
    pub(super) arrived_at: Instant,
    /// What it must have in common with others of its batch, and what its state must.
    pub(super) form: [&'a Form; 2],
}

/// What an instance should do with its candidates.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Run the next request of the sequences in these slots, the oldest first.
    Run(Vec<usize>),
    /// Wait for more until then.
    Wait(Instant),
}

/// What limits the choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    pub(super) strategy: &'a Strategy,
    /// The largest batch.
    pub(super) rows: usize,
    /// Whether nothing more will come, so that no wait is worth it.
    pub(super) is_closed: bool,
}

impl Limits<'_> {
    /// Chooses among `candidates`, of which there is at least one, oldest first.
    ///
    /// The oldest is always among those chosen, so none waits for ever.
    pub(super) fn choose(&self, candidates: &[Candidate<'_>], now: Instant) -> Choice {
        match self.strategy {
            Strategy::Direct { max_queue_delay, minimum_slot_utilization } => {
                let slots: Vec<_> = alike(candidates).collect();
                let utilization = slots.len() as f32 / self.rows as f32;
                if utilization >= *minimum_slot_utilization {
                    return Choice::Run(slots);
                }
                self.still_waits(candidates, *max_queue_delay, now)
                    .map_or(Choice::Run(slots), Choice::Wait)
            }
            Strategy::Oldest { batching, .. } => self.oldest(batching, candidates, now),
        }
    }

    fn oldest(
        &self,
        batching: &DynamicBatching,
        candidates: &[Candidate<'_>],
        now: Instant,
    ) -> Choice {
        let mut slots: Vec<_> = if batching.preserve_ordering {
            let first = candidates[0].form;
            let alike = candidates.iter().take_while(|candidate| candidate.form == first);
            alike.map(|candidate| candidate.slot).collect()
        } else {
            alike(candidates).collect()
        };
        slots.truncate(self.rows);
        let preferred = &batching.preferred_batch_sizes;
        let reached = preferred.iter().copied().filter(|size| *size <= slots.len()).max();
        let is_enough = slots.len() == self.rows || reached == preferred.iter().copied().max();
        if !is_enough
            && let Some(until) = self.still_waits(candidates, batching.max_queue_delay, now)
        {
            return Choice::Wait(until);
        }
        slots.truncate(reached.unwrap_or(self.rows));
        Choice::Run(slots)
    }

    /// Until when the oldest candidate may be kept waiting, unless that is over.
    fn still_waits(
        &self,
        candidates: &[Candidate<'_>],
        delay: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let until = candidates[0].arrived_at.checked_add(delay)?;
        (until > now && !self.is_closed).then_some(until)
    }
}

/// The slots of those candidates that may share a batch with the oldest.
fn alike(candidates: &[Candidate<'_>]) -> impl Iterator<Item = usize> {
    let first = candidates[0].form;
    candidates.iter().filter(move |candidate| candidate.form == first).map(|one| one.slot)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn choose(strategy: &Strategy, rows: usize, sizes: &[i64], after: u32) -> (Choice, Instant) {
        let start = Instant::now();
        let form = |size: &i64| Form { sizes: vec![*size], ..Form::default() };
        let (forms, none): (Vec<_>, _) = (sizes.iter().map(form).collect(), Form::default());
        let candidate = |(slot, form)| Candidate {
            slot,
            number: slot as u64,
            arrived_at: start + MS * slot as u32,
            form: [form, &none],
        };
        let candidates: Vec<_> = forms.iter().enumerate().map(candidate).collect();
        let limits = Limits { strategy, rows, is_closed: false };
        (limits.choose(&candidates, start + MS * after), start)
    }

    fn direct(delay: u32, minimum_slot_utilization: f32) -> Strategy {
        Strategy::Direct { max_queue_delay: MS * delay, minimum_slot_utilization }
    }

    fn oldest(preferred: &[usize], delay: u32, preserve_ordering: bool) -> Strategy {
        Strategy::Oldest {
            max_candidate_sequences: NonZeroUsize::new(16).unwrap(),
            batching: DynamicBatching {
                preferred_batch_sizes: preferred.to_vec(),
                max_queue_delay: MS * delay,
                preserve_ordering,
                ..DynamicBatching::default()
            },
        }
    }

    #[test]
    fn rows_run_at_once_unless_more_of_them_are_worth_a_wait() {
        assert_eq!(choose(&direct(5, 0.0), 4, &[1], 0).0, Choice::Run(vec![0]));
        let (choice, start) = choose(&direct(5, 0.5), 4, &[1], 4);
        assert_eq!(choice, Choice::Wait(start + MS * 5));
        assert_eq!(choose(&direct(5, 0.5), 4, &[1], 5).0, Choice::Run(vec![0]));
        assert_eq!(choose(&direct(5, 0.5), 4, &[1, 1], 1).0, Choice::Run(vec![0, 1]));
    }

    #[test]
    fn what_is_shaped_otherwise_waits_for_a_batch_of_its_own() {
        assert_eq!(choose(&direct(0, 0.0), 4, &[1, 2, 1], 3).0, Choice::Run(vec![0, 2]));
        assert_eq!(choose(&oldest(&[4], 0, false), 4, &[1, 2, 1], 3).0, Choice::Run(vec![0, 2]));
        assert_eq!(choose(&oldest(&[4], 0, true), 4, &[1, 2, 1], 3).0, Choice::Run(vec![0]));
    }

    #[test]
    fn the_largest_preferred_size_that_is_reached_runs() {
        let strategy = oldest(&[2, 4], 5, false);
        let (choice, start) = choose(&strategy, 8, &[1, 1, 1], 4);
        assert_eq!(choice, Choice::Wait(start + MS * 5));
        assert_eq!(choose(&strategy, 8, &[1, 1, 1], 5).0, Choice::Run(vec![0, 1]));
        assert_eq!(choose(&strategy, 8, &[1; 5], 4).0, Choice::Run(vec![0, 1, 2, 3]));
        assert_eq!(choose(&strategy, 8, &[1], 5).0, Choice::Run(vec![0]));
        assert_eq!(choose(&oldest(&[], 5, false), 1, &[1, 1], 0).0, Choice::Run(vec![0]));
    }
}
