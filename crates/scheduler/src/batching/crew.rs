//! The instances of a model at its queue: which of them may take what, and which is told of it.
//!
//! Where several instances share the cores there may be a wide one beside them that has the threads
//! of all. It runs a request that comes while nothing else runs and nobody else is expected, and
//! all that are gathered where one run is sooner over than one on each of the others.

use std::time::{Duration, Instant};

use super::{Batcher, Decision, Ended, Entry, Gathering, Hold, Others, Place};

/// How long the others leave all cores to a run of the wide instance: many times what runs of no
/// more than the budget of tokens take, so that only one that hangs is not waited for.
const LONGEST_WIDE: Duration = Duration::from_millis(500);

/// What waits for the instances of a model, and what they are doing.
#[derive(Debug)]
pub(crate) struct Crew<T> {
    pub(crate) batcher: Batcher<T>,
    /// What the instances are doing, the wide one apart; what the idle ones are about to take does
    /// not wait.
    narrow: Others,
    wide: Wide,
    /// How they wait for their callers; `None` where they do not share the cores.
    gathering: Option<Gathering>,
    /// What an instance waits for, while one does.
    hold: Option<Hold>,
    is_closed: bool,
}

/// What the wide instances are doing, two of them while one takes another's place.
#[derive(Clone, Copy, Debug)]
struct Wide {
    /// Those that wait for a request, or for callers to come back.
    waiting: usize,
    /// The rows of those that run what all callers asked.
    rows: usize,
    /// Until then the others leave all cores to it.
    until: Instant,
}

/// An instance: what it is, what it runs, and what it ran before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    /// Whether it has the threads of all the others.
    pub(crate) is_wide: bool,
    /// The rows of the batch that it has taken; 0 while it has none, or a lone request's on a wide
    /// one.
    rows: usize,
    /// The run that it ended last.
    last: Option<Ended>,
}

/// What an instance is to do.
#[derive(Debug)]
pub(crate) enum Turn<T> {
    /// Run these together, in this order.
    Run(Vec<T>),
    /// Ask again then, or when told.
    WaitUntil(Instant),
    /// The same, but not as one that is free: callers are on the way to it.
    Hold(Hold),
    /// Ask again when told.
    Wait,
    /// The same; one of the others is to be told, as what waits is for them.
    Leave,
}

/// Which instance is told that a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// None: whoever ends a wait looks at what is there.
    Nobody,
    Wide,
    Narrow,
}

impl Post {
    /// A new instance's.
    pub(crate) fn new(is_wide: bool) -> Self {
        Self { is_wide, rows: 0, last: None }
    }

    /// Notes the run that the instance has ended; `None` when nobody was there any more.
    pub(crate) fn ended(&mut self, run: Option<Ended>) {
        self.last = run;
    }
}

impl<T> Crew<T> {
    /// Nobody, with nothing to do. `cores` as in the rules; where there are any, all callers are
    /// waited for as long as there is room for `most` requests.
    pub(crate) fn new(batcher: Batcher<T>, cores: Option<usize>, most: usize) -> Self {
        let gathering = cores.and_then(|cores| Gathering::new(cores, most));
        let narrow = Others::default();
        let wide = Wide { waiting: 0, rows: 0, until: Instant::now() };
        Self { batcher, narrow, wide, gathering, hold: None, is_closed: false }
    }

    /// Adds a request, and says which instance is to be told.
    pub(crate) fn add(&mut self, entry: Entry, payload: T) -> (Place, Told) {
        let (now, expires_at) = (entry.queued_at, entry.expires_at());
        let place = self.batcher.add(entry, payload);
        // An instance waits for others only as long as nobody's time runs out.
        let is_in_time = |hold: Hold| expires_at.is_none_or(|at| hold.until < at);
        let told = match self.hold {
            Some(hold) if self.batcher.rows() < hold.rows && is_in_time(hold) => Told::Nobody,
            _ if self.wide.waiting > 0 && self.is_for_wide(now) => Told::Wide,
            _ => Told::Narrow,
        };
        (place, told)
    }

    /// How many requests may come beyond what the queue holds, as they do not wait.
    pub(crate) fn idle(&self) -> usize {
        if self.wide.rows > 0 { 0 } else { self.narrow.idle }
    }

    /// From now on nobody comes any more, nor is waited for.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Counts a batch of so many requests and rows as running on the instance from `now` on.
    pub(crate) fn take(&mut self, now: Instant, post: &mut Post, requests: usize, rows: usize) {
        // Whoever waits besides takes what is left; nobody need come for that.
        self.hold = None;
        if !post.is_wide {
            self.narrow.rows += rows;
            self.narrow.busy += 1;
            self.narrow.began_at = Some(now);
        } else if requests > 1 {
            self.wide.rows += rows;
            self.wide.until = now + LONGEST_WIDE;
        } else {
            // Others run beside a request that was alone.
            return;
        }
        post.rows = rows;
    }

    /// Counts the instance's batch as ended, when it had one.
    pub(crate) fn leave(&mut self, post: &mut Post) {
        let rows = std::mem::take(&mut post.rows);
        if rows == 0 {
            return;
        }
        if post.is_wide {
            self.wide.rows -= rows;
        } else {
            self.narrow.rows -= rows;
            self.narrow.busy -= 1;
        }
        if let Some((gathering, run)) = self.gathering.as_mut().zip(post.last) {
            // Some of those that it has answered may be back already.
            let left = self.batcher.rows_since_before(run.at);
            gathering.ended(run, post.is_wide, left);
        }
    }

    /// Counts the instance as free.
    pub(crate) fn rest(&mut self, post: &Post) {
        *self.idle_of(post) += 1;
    }

    /// Counts it as free no longer.
    pub(crate) fn rise(&mut self, post: &Post) {
        *self.idle_of(post) -= 1;
    }

    /// Counts the instance as one that waits for callers.
    pub(crate) fn hold(&mut self, post: &Post, hold: Hold) {
        if let Some(gathering) = self.gathering.as_mut().filter(|_| hold.is_for_all) {
            gathering.waits();
        }
        *self.holding_of(post) += 1;
        // What the least demanding waits for is told.
        self.hold = Some(self.hold.filter(|other| other.rows < hold.rows).unwrap_or(hold));
    }

    /// Counts it as such no longer.
    pub(crate) fn release(&mut self, post: &Post) {
        *self.holding_of(post) -= 1;
        if self.narrow.holding == 0 {
            self.hold = None;
        }
    }

    /// What the instance is to do, which is free. Requests whose time is up must have been taken out
    /// before.
    pub(crate) fn turn(&mut self, now: Instant, post: &Post) -> Turn<T> {
        if self.batcher.len() == 0 {
            return Turn::Wait;
        }
        match post.is_wide {
            true if self.is_for_wide(now) => self.decide(now, Others::default(), None),
            true => Turn::Leave,
            // It looks at what waits when its run is over.
            false if self.wide.rows > 0 && now < self.wide.until && !self.is_closed => {
                Turn::WaitUntil(self.wide.until)
            }
            false => self.decide(now, self.narrow, post.last),
        }
    }

    /// Whether what waits, and who is expected, is for an instance that has every core.
    fn is_for_wide(&self, now: Instant) -> bool {
        self.wide.rows == 0 && (self.is_alone(now) || self.narrow.busy == 0 && self.is_one_run(now))
    }

    /// Whether all are sooner done in one run.
    fn is_one_run(&self, now: Instant) -> bool {
        let Some(gathering) = &self.gathering else { return false };
        let rows = self.expected(now).unwrap_or(0).max(self.batcher.rows());
        gathering.is_wide(rows) && self.batcher.is_one_run(rows, now)
    }

    /// The rows of all callers, while some of them are expected.
    fn expected(&self, now: Instant) -> Option<usize> {
        let (rows, until) = self.gathering.as_ref()?.awaited(self.narrow)?;
        (now < until).then_some(rows)
    }

    /// Whether one request waits, beside which nothing runs and nobody is expected.
    fn is_alone(&self, now: Instant) -> bool {
        self.batcher.len() == 1
            && self.narrow.busy + self.narrow.holding == 0
            && self.expected(now).is_none()
    }

    fn decide(&mut self, now: Instant, others: Others, last: Option<Ended>) -> Turn<T> {
        let waiting = self.batcher.rows();
        let awaited = self.gathering.as_ref().and_then(|gathering| gathering.awaited(others));
        match self.batcher.decide(now, others, last, awaited) {
            Decision::Run(batch) => {
                if let Some(gathering) = &mut self.gathering {
                    gathering.begins(waiting, self.narrow);
                }
                Turn::Run(batch)
            }
            // Nobody comes any more, so there is nothing to wait for.
            Decision::WaitUntil(at) | Decision::Hold(Hold { until: at, .. }) if self.is_closed => {
                match self.batcher.decide(at, others, None, None) {
                    Decision::Run(batch) => Turn::Run(batch),
                    _ => Turn::Wait,
                }
            }
            Decision::WaitUntil(at) => Turn::WaitUntil(at),
            Decision::Hold(hold) => Turn::Hold(hold),
            Decision::Nothing => Turn::Wait,
        }
    }

    fn idle_of(&mut self, post: &Post) -> &mut usize {
        if post.is_wide { &mut self.wide.waiting } else { &mut self.narrow.idle }
    }

    fn holding_of(&mut self, post: &Post) -> &mut usize {
        if post.is_wide { &mut self.wide.waiting } else { &mut self.narrow.holding }
    }
}

#[cfg(test)]
mod tests;
