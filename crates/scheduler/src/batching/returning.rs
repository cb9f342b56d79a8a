//! How long an instance waits for the callers it has just answered to come back.
//!
//! Callers who ask again once they are answered come back one after another, within the time that
//! their answers take to reach them. Whoever takes the first of them runs it alone and keeps the
//! others waiting; a short wait puts them into one run again. It is short beside the run before,
//! and there is none for a caller who was alone.

use std::time::{Duration, Instant};

/// The wait is at most this part of the run before: what may be lost when nobody comes back.
const PART: u32 = 8;

/// The longest wait: callers further away than this do not come back together.
const LONGEST: Duration = Duration::from_millis(2);

/// Below this a wait is not worth the switch to another thread and back.
const SHORTEST: Duration = Duration::from_micros(100);

/// The run that an instance has just ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// The rows of the requests that it answered.
    pub(crate) rows: usize,
    pub(crate) took: Duration,
    pub(crate) at: Instant,
}

/// What the other instances of a model are doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Others {
    /// Those that wait for a request.
    pub(crate) idle: usize,
    /// Those that run a batch.
    pub(crate) busy: usize,
    /// The rows of these batches.
    pub(crate) rows: usize,
}

impl Others {
    /// An instance's fair part of the rows that wait. While all the others run, those that run and
    /// those on their way back from the run it has ended are shared fairly too.
    pub(crate) fn share(self, waiting: usize, ended: Option<Ended>) -> usize {
        if self.idle > 0 || self.busy == 0 {
            return waiting.div_ceil(self.idle + 1);
        }
        let back = ended.map_or(0, |ended| ended.rows);
        (self.rows + waiting.max(back)).div_ceil(self.busy + 1)
    }

    /// The rows that are worth waiting a moment for, `share` being the fair part.
    pub(crate) fn worthwhile(self, share: usize, ended: Ended) -> usize {
        match self {
            Self { idle: 0, busy: 0, .. } => ended.rows,
            Self { idle: 0, .. } => share,
            // Whoever comes is taken by an instance that has nothing to do.
            _ => 0,
        }
    }
}

impl Ended {
    /// Until when to wait for callers who come back; `None` for no time at all.
    pub(crate) fn hold(self) -> Option<Instant> {
        let wait = (self.took / PART).min(LONGEST);
        (wait >= SHORTEST).then(|| self.at + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(rows: usize, micros: u64) -> Ended {
        Ended { rows, took: Duration::from_micros(micros), at: Instant::now() }
    }

    #[test]
    fn callers_are_waited_for_a_part_of_their_run() {
        let run = ended(8, 8_000);
        assert_eq!(run.hold(), Some(run.at + Duration::from_millis(1)));
        let long = ended(2, 80_000);
        assert_eq!(long.hold(), Some(long.at + LONGEST));
        assert_eq!(ended(8, 400).hold(), None);
    }

    #[test]
    fn a_lone_caller_is_not_waited_for() {
        let nobody = Others::default();
        assert_eq!(nobody.worthwhile(nobody.share(1, Some(ended(1, 9_000))), ended(1, 9_000)), 1);
        let idle = Others { idle: 1, ..nobody };
        assert_eq!(idle.worthwhile(idle.share(1, Some(ended(1, 9_000))), ended(1, 9_000)), 0);
    }

    #[test]
    fn the_only_instance_waits_for_as_many_as_it_answered() {
        let nobody = Others::default();
        let last = ended(16, 9_000);
        assert_eq!(nobody.worthwhile(nobody.share(1, Some(last)), last), 16);
    }

    #[test]
    fn busy_instances_come_to_share_their_callers_fairly() {
        let busy = Others { idle: 0, busy: 1, rows: 1 };
        let last = ended(15, 9_000);
        assert_eq!(busy.share(3, Some(last)), 8);
        assert_eq!(busy.worthwhile(8, last), 8);
        // One that ran a single row beside fifteen waits for its part of them.
        let crowded = Others { idle: 0, busy: 1, rows: 15 };
        assert_eq!(crowded.share(1, Some(ended(1, 9_000))), 8);
    }

    #[test]
    fn idle_instances_share_what_waits() {
        let others = Others { idle: 1, busy: 1, rows: 9 };
        assert_eq!(others.share(4, Some(ended(9, 9_000))), 2);
    }
}
