//! Decides which sequence has which slot and what runs next, without a clock, a lock or a thread.

mod expiry;
mod seats;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use consort_config::Strategy;
use consort_stage::{CorrelationId, SequencePlace};

use super::choice::{Candidate, Choice, Limits};
use super::exchange::{Admitted, Arrival, Decision, Key, Lapse, Refusal, Row};
use super::lane::{Lane, Stay};
use super::line::{Form, Kept, Line, Turn, Waiting};

/// What a model's configuration says about its sequences.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// The instances of the model.
    pub(crate) instances: usize,
    /// The rows of the largest batch; 1 for a model that does not batch.
    pub(crate) rows: usize,
    /// How sequences share the batch.
    pub(crate) strategy: Strategy,
    /// Whether each request is a sequence of its own, over when its run is.
    pub(crate) is_iterative: bool,
    /// How long a sequence may stay silent before its slot is given away.
    pub(crate) max_idle: Duration,
    /// How many requests may wait.
    pub(crate) queue_size: usize,
    /// The sizes of a state that a sequence begins with.
    pub(crate) initial_form: Form,
}

impl Policy {
    /// The sequences that may be live on each instance.
    fn slots(&self) -> usize {
        match &self.strategy {
            Strategy::Direct { .. } => self.rows,
            Strategy::Oldest { max_candidate_sequences, .. } => max_candidate_sequences.get(),
        }
    }
}

/// The sequences of a model.
#[derive(Debug)]
pub(crate) struct Core<T, S> {
    policy: Policy,
    lanes: Vec<Lane>,
    lines: HashMap<CorrelationId, Line<T, S>>,
    /// The sequences without a slot, the one that has waited longest first.
    backlog: VecDeque<CorrelationId>,
    waiting: usize,
    next_number: u64,
    /// No sequence is due to be given up before.
    alarm: Option<Instant>,
    lapsed: Vec<(T, Lapse)>,
    woken: Vec<usize>,
    is_closed: bool,
}

impl<T, S: Clone> Core<T, S> {
    /// A model without any sequence.
    pub(crate) fn new(policy: Policy) -> Self {
        let instances = policy.instances;
        let mut core = Self {
            lanes: Vec::new(),
            policy,
            lines: HashMap::new(),
            backlog: VecDeque::new(),
            waiting: 0,
            next_number: 0,
            alarm: None,
            lapsed: Vec::new(),
            woken: Vec::new(),
            is_closed: false,
        };
        for _ in 0..instances {
            core.add_lane();
        }
        core
    }

    /// Takes in a request, which then waits behind those of its sequence that came before; one that is
    /// refused is given back with the reason.
    pub(crate) fn submit(
        &mut self,
        arrival: Arrival<T>,
        now: Instant,
    ) -> Result<Admitted, Box<(Refusal, T)>> {
        self.expire(now);
        let SequencePlace { id, is_start, is_end } = arrival.place;
        let is_open = self.lines.get(&id).map(Line::is_open);
        if let Some(refusal) = self.refusal(is_start, is_open) {
            return Err(Box::new((refusal, arrival.request)));
        }
        let number = self.next_number;
        self.next_number += 1;
        self.waiting += 1;
        let times_out_at = arrival.times_out_at;
        let waiting = Waiting {
            number,
            request: arrival.request,
            form: arrival.form,
            is_start,
            is_end,
            closes: is_end || self.policy.is_iterative,
            arrived_at: now,
            times_out_at,
            deadline: arrival.deadline,
        };
        self.enqueue(&id, waiting, now);
        Ok(Admitted { key: Key { id, number }, cuts_off: is_start && is_open == Some(true) })
    }

    /// Why a request is not taken in that starts a sequence or goes on with one, if there is one and
    /// it is open.
    fn refusal(&self, is_start: bool, is_open: Option<bool>) -> Option<Refusal> {
        if self.is_closed {
            return Some(Refusal::Closed);
        }
        if !is_start && is_open != Some(true) {
            return Some(Refusal::NotStarted);
        }
        (self.waiting >= self.policy.queue_size).then_some(Refusal::Full)
    }

    fn enqueue(&mut self, id: &CorrelationId, waiting: Waiting<T>, now: Instant) {
        let times_out_at = waiting.times_out_at;
        if let Some(line) = self.lines.get_mut(id) {
            line.push(waiting, now);
            match line.seat {
                Some((lane, _)) => self.woken.push(lane),
                None => self.ring_at(times_out_at),
            }
            return;
        }
        self.lines.insert(id.clone(), Line::new([waiting].into(), now));
        self.backlog.push_back(id.clone());
        self.ring_at(times_out_at);
        self.seat_waiting();
    }

    /// Takes out a request whose caller has gone, unless it runs or is over.
    pub(crate) fn cancel(&mut self, key: &Key) -> Option<T> {
        let removed = self.lines.get_mut(&key.id)?.remove(key.number)?;
        self.waiting -= 1;
        self.drop_if_over(&key.id);
        Some(removed)
    }

    /// What the instance `lane` does next; it runs nothing now.
    pub(crate) fn decide(&mut self, lane: usize, now: Instant) -> Decision<T, S> {
        self.expire(now);
        self.drop_overdue(lane, now);
        let mut candidates = self.candidates(lane);
        if candidates.is_empty() {
            return self.rest(lane);
        }
        candidates.sort_unstable_by_key(|candidate| candidate.number);
        let limits = Limits {
            strategy: &self.policy.strategy,
            rows: self.policy.rows,
            is_closed: self.is_closed,
        };
        match limits.choose(&candidates, now) {
            Choice::Wait(until) => {
                Decision::Wait(Some(self.alarm.map_or(until, |alarm| alarm.min(until))))
            }
            Choice::Run(slots) => Decision::Run(self.begin(lane, &slots)),
        }
    }

    /// What an instance does that has nothing to run.
    fn rest(&mut self, lane: usize) -> Decision<T, S> {
        let is_over = self.is_closed && self.waiting == 0;
        let lane = &mut self.lanes[lane];
        if is_over || lane.may_go() {
            lane.stay = Stay::Gone;
            return Decision::Stop;
        }
        Decision::Wait(self.alarm)
    }

    fn candidates(&self, lane: usize) -> Vec<Candidate<'_>> {
        let slots = self.lanes[lane].slots.iter().enumerate();
        let candidate = |(slot, id): (usize, &Option<CorrelationId>)| {
            let line = &self.lines[id.as_ref()?];
            let next = line.next()?;
            // A start forgets the state that was kept.
            let kept = line.kept.as_ref().filter(|_| !next.is_start);
            let state = kept.map_or(&self.policy.initial_form, |kept| &kept.form);
            Some(Candidate {
                slot,
                number: next.number,
                arrived_at: next.arrived_at,
                form: [&next.form, state],
            })
        };
        slots.filter_map(candidate).collect()
    }

    /// The rows of a batch of the sequences in `slots`.
    fn begin(&mut self, lane: usize, slots: &[usize]) -> Vec<Option<Row<T, S>>> {
        let ids = &self.lanes[lane].slots;
        let rows: Vec<Option<CorrelationId>> = match self.policy.strategy {
            Strategy::Oldest { .. } => slots.iter().map(|slot| ids[*slot].clone()).collect(),
            Strategy::Direct { .. } => {
                let count = ids.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
                let row = |slot: usize| ids[slot].clone().filter(|_| slots.contains(&slot));
                (0..count).map(row).collect()
            }
        };
        let begun = rows.iter().map(|id| self.begin_row(id.as_ref()?)).collect();
        self.lanes[lane].running = rows;
        begun
    }

    fn begin_row(&mut self, id: &CorrelationId) -> Option<Row<T, S>> {
        let Turn { request, is_start, is_end, kept } = self.lines.get_mut(id)?.begin()?;
        self.waiting -= 1;
        Some(Row { id: id.clone(), request, is_start, is_end, kept })
    }

    /// Notes that what the instance `lane` ran is over.
    ///
    /// `kept` has an entry for each row; `None` leaves the sequence as it was before the run.
    pub(crate) fn finish(
        &mut self,
        lane: usize,
        kept: impl IntoIterator<Item = Option<Kept<S>>>,
        now: Instant,
    ) {
        let running = std::mem::take(&mut self.lanes[lane].running);
        for (id, kept) in running.into_iter().zip(kept) {
            let Some(id) = id else { continue };
            let Some(line) = self.lines.get_mut(&id) else { continue };
            if let Some(rest) = line.end(kept, now) {
                self.remove(&id);
                self.queue_again(id, rest, now);
            }
        }
        if self.is_closed {
            self.drop_idle(now, Duration::ZERO);
        }
        self.ring_at(now.checked_add(self.policy.max_idle));
        self.seat_waiting();
    }

    /// Lets the requests behind the end of a sequence wait for a slot like those of any other.
    fn queue_again(&mut self, id: CorrelationId, rest: VecDeque<Waiting<T>>, now: Instant) {
        let line = Line::new(rest, now);
        let Some(number) = line.first_number() else { return };
        let lines = &self.lines;
        let earlier = |other: &CorrelationId| lines[other].first_number() < Some(number);
        let place = self.backlog.partition_point(earlier);
        self.ring_at(line.times_out_at());
        self.lines.insert(id.clone(), line);
        self.backlog.insert(place, id);
    }

    /// Takes in nothing any more; what waits still runs.
    pub(crate) fn close(&mut self, now: Instant) {
        self.is_closed = true;
        self.drop_idle(now, Duration::ZERO);
        self.seat_waiting();
        self.woken.extend(0..self.lanes.len());
    }

    /// Forgets a sequence and frees its slot.
    fn remove(&mut self, id: &CorrelationId) -> Option<Line<T, S>> {
        let line = self.lines.remove(id)?;
        match line.seat {
            Some((number, slot)) => {
                let lane = &mut self.lanes[number];
                lane.slots[slot] = None;
                if lane.stay == Stay::Retiring {
                    self.woken.push(number);
                }
            }
            None => self.backlog.retain(|waiting| waiting != id),
        }
        Some(line)
    }

    /// The requests that will not run, since it was last asked.
    pub(crate) fn take_lapsed(&mut self) -> Vec<(T, Lapse)> {
        std::mem::take(&mut self.lapsed)
    }

    /// The instances that have something to decide, since it was last asked.
    pub(crate) fn take_woken(&mut self) -> Vec<usize> {
        if self.is_closed && self.waiting == 0 {
            return (0..self.lanes.len()).collect();
        }
        std::mem::take(&mut self.woken)
    }
}

#[cfg(test)]
mod tests;
