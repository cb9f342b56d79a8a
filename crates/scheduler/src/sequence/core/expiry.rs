//! Gives up what has waited too long: sequences for a slot, slots for a request, requests for a run.

use std::time::{Duration, Instant};

use consort_stage::CorrelationId;

use super::Core;
use crate::sequence::exchange::{Key, Lapse};
use crate::sequence::line::Line;

impl<T, S: Clone> Core<T, S> {
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

    pub(super) fn drop_idle(&mut self, now: Instant, max_idle: Duration) {
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
    pub(super) fn drop_overdue(&mut self, lane: usize, now: Instant) {
        for slot in 0..self.lanes[lane].slots.len() {
            while let Some(id) = self.lanes[lane].slots[slot].clone()
                && let Some(number) = self.lines[&id].overdue(now)
                && let Some(request) = self.cancel(&Key { id, number })
            {
                self.lapsed.push((request, Lapse::Deadline));
            }
        }
    }

    pub(super) fn drop_if_over(&mut self, id: &CorrelationId) {
        if self.lines.get(id).is_some_and(Line::is_over) {
            self.remove(id);
            self.seat_waiting();
        }
    }

    /// Has what waits looked at again then, at the latest.
    pub(super) fn ring_at(&mut self, at: Option<Instant>) {
        self.alarm = self.alarm.into_iter().chain(at).min();
    }
}
