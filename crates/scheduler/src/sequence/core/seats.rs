//! Which instances there are, and which sequence has a slot on which of them.

use super::Core;
use crate::sequence::lane::{Lane, Stay};

impl<T, S: Clone> Core<T, S> {
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
    /// Gives the free slots to the sequences that have waited longest, the emptiest instance first.
    pub(super) fn seat_waiting(&mut self) {
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
}
