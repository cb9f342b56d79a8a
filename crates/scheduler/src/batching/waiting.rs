//! The requests that wait, in the order in which they are served, and when each one's time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use consort_config::TimeoutAction;

use super::Likeness;

/// What is known of a request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// How many rows of a batch it takes, at least 1.
    pub(crate) rows: usize,
    /// Its size along the variable axis; 0 when it has none.
    pub(crate) length: usize,
    /// What it must have in common with others.
    pub(crate) likeness: Likeness,
    /// Its priority level; lower ones are served first.
    pub(crate) level: u64,
    /// When it came.
    pub(crate) queued_at: Instant,
    /// When it has waited too long, and what happens then.
    pub(crate) timeout: Option<(Instant, TimeoutAction)>,
    /// When its caller wants no answer any more.
    pub(crate) deadline: Option<Instant>,
}

/// Where a request stands: level first, those that were put off last, then as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    level: u64,
    is_put_off: bool,
    number: u64,
}

/// Why a request left without having been run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// It has waited as long as its queue allows.
    Timeout,
    /// Its caller's deadline has passed.
    Deadline,
}

/// Requests by place. Adding, finding and removing one takes time logarithmic in their number.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    places: BTreeMap<Place, (Entry, T)>,
    expiries: BTreeSet<(Instant, Place)>,
    levels: BTreeMap<u64, usize>,
    rows: usize,
    next: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            expiries: BTreeSet::new(),
            levels: BTreeMap::new(),
            rows: 0,
            next: 0,
        }
    }
}

impl Entry {
    /// One row that came at `now`, of which nothing else is known.
    #[cfg(test)]
    pub(crate) fn at(now: Instant) -> Self {
        Self {
            rows: 1,
            length: 0,
            likeness: Likeness::default(),
            level: 0,
            queued_at: now,
            timeout: None,
            deadline: None,
        }
    }

    /// When something happens to the entry if nobody takes it.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        let timeout = self.timeout.map(|(at, _)| at);
        timeout.into_iter().chain(self.deadline).min()
    }
}

impl<T> Waiting<T> {
    /// Adds a request behind those of its level.
    pub(crate) fn add(&mut self, entry: Entry, payload: T) -> Place {
        let place = Place { level: entry.level, is_put_off: false, number: self.next };
        self.next += 1;
        self.put(place, entry, payload);
        place
    }

    /// Takes a request out; `None` when it is not there any more.
    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        let put_off = Place { is_put_off: true, ..place };
        let (_, payload) = self.take(place).or_else(|| self.take(put_off))?;
        Some(payload)
    }

    /// Takes out the requests whose time is up, and puts off those that are to be served last.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(Expired, T)> {
        let mut expired = Vec::new();
        while let Some((at, place)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            let Some((mut entry, payload)) = self.take(place) else {
                self.expiries.remove(&(at, place));
                continue;
            };
            if entry.deadline.is_some_and(|deadline| deadline <= now) {
                expired.push((Expired::Deadline, payload));
            } else if matches!(entry.timeout, Some((_, TimeoutAction::Delay))) {
                entry.timeout = None;
                self.put(Place { is_put_off: true, ..place }, entry, payload);
            } else {
                expired.push((Expired::Timeout, payload));
            }
        }
        expired
    }

    /// The requests in the order in which they are served.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.places.iter().map(|(place, (entry, _))| (*place, entry))
    }

    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many requests of a level wait.
    pub(crate) fn len_of(&self, level: u64) -> usize {
        self.levels.get(&level).copied().unwrap_or(0)
    }

    /// The rows of all requests together.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The first moment at which the time of a request is up.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    fn put(&mut self, place: Place, entry: Entry, payload: T) {
        self.expiries.extend(entry.expires_at().map(|at| (at, place)));
        *self.levels.entry(place.level).or_default() += 1;
        self.rows += entry.rows;
        self.places.insert(place, (entry, payload));
    }

    fn take(&mut self, place: Place) -> Option<(Entry, T)> {
        let (entry, payload) = self.places.remove(&place)?;
        if let Some(at) = entry.expires_at() {
            self.expiries.remove(&(at, place));
        }
        if let Some(count) = self.levels.get_mut(&place.level) {
            *count -= 1;
        }
        self.rows -= entry.rows;
        Some((entry, payload))
    }
}

/// The length of the longest request that waits.
pub(crate) fn longest<T>(waiting: &Waiting<T>) -> usize {
    waiting.iter().map(|(_, entry)| entry.length).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn entry(now: Instant, level: u64) -> Entry {
        Entry { level, ..Entry::at(now) }
    }

    fn payloads(waiting: &Waiting<&'static str>) -> Vec<&'static str> {
        waiting.places.values().map(|(_, payload)| *payload).collect()
    }

    #[test]
    fn higher_levels_come_first_and_each_is_served_as_it_came() {
        let (now, mut waiting) = (Instant::now(), Waiting::default());
        for (level, name) in [(2, "c"), (1, "a"), (2, "d"), (1, "b")] {
            waiting.add(entry(now, level), name);
        }
        assert_eq!(payloads(&waiting), ["a", "b", "c", "d"]);
        assert_eq!((waiting.len(), waiting.len_of(1), waiting.rows()), (4, 2, 4));
    }

    #[test]
    fn what_is_removed_is_gone_once() {
        let (now, mut waiting) = (Instant::now(), Waiting::default());
        let place = waiting.add(entry(now, 0), "a");
        assert_eq!(waiting.remove(place), Some("a"));
        assert_eq!(waiting.remove(place), None);
        assert_eq!((waiting.len(), waiting.len_of(0), waiting.rows()), (0, 0, 0));
    }

    #[test]
    fn time_runs_out_for_each_in_its_own_way() {
        let (now, mut waiting) = (Instant::now(), Waiting::default());
        let reject = Some((now + MS, TimeoutAction::Reject));
        let delay = Some((now + MS, TimeoutAction::Delay));
        waiting.add(Entry { timeout: reject, ..entry(now, 1) }, "rejected");
        let late = Entry { timeout: delay, deadline: Some(now + 3 * MS), ..entry(now, 1) };
        let put_off = waiting.add(late, "put off");
        waiting.add(Entry { deadline: Some(now + 2 * MS), ..entry(now, 1) }, "too late");
        waiting.add(entry(now, 1), "patient");
        waiting.add(entry(now, 2), "low");
        assert_eq!(waiting.next_expiry(), Some(now + MS));
        assert!(waiting.expire(now).is_empty());
        assert_eq!(waiting.expire(now + MS), [(Expired::Timeout, "rejected")]);
        assert_eq!(payloads(&waiting), ["too late", "patient", "put off", "low"]);
        assert_eq!(waiting.expire(now + 2 * MS), [(Expired::Deadline, "too late")]);
        assert_eq!(waiting.remove(put_off), Some("put off"));
        assert!(waiting.expire(now + 9 * MS).is_empty());
        assert_eq!(waiting.next_expiry(), None);
    }
}
