//! Decides which sequence has which slot and what runs next, without a clock, a lock or a thread.

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

    /// Adds an instance and gives its number, the lowest that none has.
    pub(crate) fn add_lane(&mut self) -> usize {
        let added = Lane::new(self.policy.slots());
        let gone = self.lanes.iter().position(|lane| lane.stay == Stay::Gone);
        let number = gone.unwrap_or(self.lanes.len());
        match self.lanes.get_mut(number) {
            Some(lane) => *lane = added,
            None => self.lanes.push(added),
        }
        self.seat_waiting();
        number
    }

    /// Gives no further sequence to an instance, which goes when those that it has are over.
    pub(crate) fn retire(&mut self, lane: usize) {
        if let Some(retiring) = self.lanes.get_mut(lane)
            && retiring.stay == Stay::Serving
        {
            retiring.stay = Stay::Retiring;
            self.woken.push(lane);
        }
    }
    /// Takes in a request, which then waits behind those of its sequence that came before.
    pub(crate) fn submit(
        &mut self,
        arrival: Arrival<T>,
        now: Instant,
    ) -> Result<Admitted, Refusal> {
        self.expire(now);
        let SequencePlace { id, is_start, is_end } = arrival.place;
        let is_open = self.lines.get(&id).map(Line::is_open);
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        if !is_start && is_open != Some(true) {
            return Err(Refusal::NotStarted);
        }
        if self.waiting >= self.policy.queue_size {
            return Err(Refusal::Full);
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

    /// Gives up the sequences that have been silent or without a slot for too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.alarm.is_none_or(|alarm| alarm > now) {
            return;
        }
        let times_out_at = |line: &Line<T, S>| line.times_out_at();
        let is_late = |id: &&CorrelationId| {
            times_out_at(&self.lines[*id]).is_some_and(|times_out_at| times_out_at <= now)
        };
        let late: Vec<_> = self.backlog.iter().filter(is_late).cloned().collect();
        for id in late {
            if let Some(line) = self.remove(&id) {
                self.waiting -= line.waiting();
                self.lapsed.extend(line.into_requests().map(|request| (request, Lapse::NoSlot)));
            }
        }
        self.drop_idle(now, self.policy.max_idle);
        self.seat_waiting();
        self.alarm = self.next_alarm();
    }

    fn next_alarm(&self) -> Option<Instant> {
        let no_slot = self.backlog.iter().filter_map(|id| self.lines[id].times_out_at()).min();
        let lines = self.lines.values();
        let idle_since = lines.filter_map(Line::idle_since).min();
        let idle = idle_since.and_then(|since| since.checked_add(self.policy.max_idle));
        no_slot.into_iter().chain(idle).min()
    }

    fn drop_idle(&mut self, now: Instant, max_idle: Duration) {
        let is_idle = |line: &Line<T, S>| {
            line.idle_since().is_some_and(|since| now.saturating_duration_since(since) >= max_idle)
        };
        let idle = self.lines.iter().filter(|(_, line)| is_idle(line));
        let idle: Vec<_> = idle.map(|(id, _)| id.clone()).collect();
        for id in idle {
            self.remove(&id);
        }
    }

    /// Takes out the requests at the front of the sequences of `lane` whose deadline has passed.
    fn drop_overdue(&mut self, lane: usize, now: Instant) {
        for slot in 0..self.lanes[lane].slots.len() {
            while let Some(id) = self.lanes[lane].slots[slot].clone()
                && let Some(number) = self.lines[&id].overdue(now)
                && let Some(request) = self.cancel(&Key { id, number })
            {
                self.lapsed.push((request, Lapse::Deadline));
            }
        }
    }

    fn drop_if_over(&mut self, id: &CorrelationId) {
        if self.lines.get(id).is_some_and(Line::is_over) {
            self.remove(id);
            self.seat_waiting();
        }
    }

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

    /// Gives the free slots to the sequences that have waited longest, the emptiest instance first.
    fn seat_waiting(&mut self) {
        while !self.backlog.is_empty()
            && let Some((lane, slot)) = self.free_slot()
            && let Some(id) = self.backlog.pop_front()
        {
            if let Some(line) = self.lines.get_mut(&id) {
                line.seat = Some((lane, slot));
            }
            self.lanes[lane].slots[slot] = Some(id);
            self.woken.push(lane);
        }
    }

    fn free_slot(&self) -> Option<(usize, usize)> {
        let lanes = self.lanes.iter().enumerate();
        let serving = lanes.filter(|(_, lane)| lane.stay == Stay::Serving);
        let (index, lane) = serving.min_by_key(|(_, lane)| lane.taken())?;
        lane.slots.iter().position(Option::is_none).map(|slot| (index, slot))
    }

    fn ring_at(&mut self, at: Option<Instant>) {
        self.alarm = self.alarm.into_iter().chain(at).min();
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
