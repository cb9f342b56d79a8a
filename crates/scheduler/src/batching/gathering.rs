//! How the instances of a model that share all cores wait for all their callers to come back, and
//! then begin together, each with its share or one of them with all.
//!
//! While they run, what carries requests and answers has no core of its own, so callers who come
//! back one by one are slow, and slow down the runs; while the instances wait they have all of
//! them. That is so on few cores. On four and more the callers' way takes a small part of the cores
//! anyway, and nothing was gained.

use std::time::{Duration, Instant};

use super::contest::Contest;
use super::returning::{Ended, Others, SHORTEST};

/// The longest wait: callers further away than this do not come back together.
const LONGEST: Duration = Duration::from_millis(5);

/// The most cores on which callers are gathered.
const MOST_CORES: usize = 3;

/// The wait for callers is at most this part of their run, so that a third of what is computed is
/// lost while nobody comes.
const PART: u32 = 2;

/// Runs whose begins lie further apart than this part of the longest did not begin together.
const TOGETHER: u32 = 8;

/// At most so many times in a row the instances begin without waiting for callers who have not come
/// back before.
const LONGEST_PAUSE: u32 = 63;

/// What is known of the callers of a model whose instances share all cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    /// As many as may wait.
    most: usize,
    /// How many more times they begin without waiting, after callers have not come back.
    pause: u32,
    /// How many these were last time.
    last_pause: u32,
    round: Option<Round>,
    /// Whether one run for all is sooner over than one on each core.
    contest: Contest,
}

/// The runs that have ended since the instances have begun any.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The rows of the requests that they answered.
    rows: usize,
    /// The rows of those that waited when the first of them ended.
    left: usize,
    /// The longest of them.
    took: Duration,
    /// The begins of the first and of the last of them.
    began_at: (Instant, Instant),
    /// The end of the last of them.
    at: Instant,
    /// Whether somebody has waited for their callers.
    is_waited_for: bool,
    /// How many they are, and how many of them had all cores.
    runs: usize,
    wide: usize,
    /// Whether all of them gave their outputs.
    are_done: bool,
}

impl Round {
    /// The one that begins to end with this run, while so many rows wait.
    fn of(run: Ended, left: usize) -> Self {
        Self {
            rows: 0,
            left,
            took: run.took,
            began_at: (run.began_at(), run.began_at()),
            at: run.at,
            is_waited_for: false,
            runs: 0,
            wide: 0,
            are_done: true,
        }
    }

    /// Adds one of its runs.
    fn add(&mut self, run: Ended, is_wide: bool) {
        let (first, last) = self.began_at;
        self.rows += run.rows;
        self.took = self.took.max(run.took);
        self.began_at = (first.min(run.began_at()), last.max(run.began_at()));
        self.at = run.at;
        self.runs += 1;
        self.wide += usize::from(is_wide);
        self.are_done &= run.is_done;
    }

    /// How long its rows took in one run on all cores (`true`), or in one on each that began
    /// together; `None` where it was neither.
    fn contender(self) -> Option<(bool, Duration)> {
        let (first, last) = self.began_at;
        let is_wide = self.runs == 1 && self.wide == 1;
        let is_narrow = self.wide == 0 && self.runs > 1 && last - first <= self.took / TOGETHER;
        (self.are_done && (is_wide || is_narrow)).then(|| (is_wide, self.at - first))
    }
}

impl Gathering {
    /// Of nobody, where `most` requests may wait; `None` on a machine of so many cores that it is
    /// not worth it.
    pub(crate) fn new(cores: usize, most: usize) -> Option<Self> {
        (cores <= MOST_CORES).then(|| Self {
            most,
            pause: 0,
            last_pause: 0,
            round: None,
            contest: Contest::default(),
        })
    }

    /// Takes note of the end of a run, on all cores or on one instance's, while so many rows wait.
    pub(crate) fn ended(&mut self, run: Ended, is_wide: bool, waiting: usize) {
        let round = self.round.get_or_insert(Round::of(run, waiting));
        round.add(run, is_wide);
    }

    /// Whether so many rows are sooner done in one run on all cores.
    pub(crate) fn is_wide(&self, rows: usize) -> bool {
        self.contest.is_wide(rows)
    }

    /// All rows that there are, of those that wait, of those on their way back and of what `others`
    /// run, and until when an instance waits for them; `None` while it does not.
    pub(crate) fn awaited(&self, others: Others) -> Option<(usize, Instant)> {
        let round = self.round.filter(|_| self.pause == 0)?;
        let wait = (round.took / PART).min(LONGEST);
        // What runs takes as long as what has ended.
        let began_at = others.began_at.filter(|_| others.busy > 0);
        let end = began_at.map_or(round.at, |began_at| round.at.max(began_at + round.took));
        let rows = round.left + round.rows + others.rows;
        let are_several = round.rows + others.rows > 1 && rows <= self.most;
        // Whoever would have to wait longer for the others' runs begins without them.
        let is_soon = end - round.at <= wait;
        (are_several && is_soon && wait >= SHORTEST).then(|| (rows, end + wait))
    }

    /// Takes note that an instance waits for them.
    pub(crate) fn waits(&mut self) {
        if let Some(round) = &mut self.round {
            round.is_waited_for = true;
        }
    }

    /// Takes note that an instance begins a run beside `others`, while so many rows wait: whether
    /// those that were waited for have come back, and what the runs took that are over.
    pub(crate) fn begins(&mut self, waiting: usize, others: Others) {
        let Some(round) = self.round.take() else { return };
        if let Some((is_wide, took)) = round.contender().filter(|_| others.busy == 0) {
            self.contest.note(is_wide, round.rows, took);
        } else if round.wide > 0 && !round.are_done {
            self.contest.give_up(round.rows);
        }
        let back = waiting.saturating_sub(round.left);
        if !round.is_waited_for {
            self.pause = self.pause.saturating_sub(1);
        } else if 4 * back >= 3 * round.rows {
            self.last_pause = 0;
        } else {
            self.last_pause = (2 * self.last_pause + 1).min(LONGEST_PAUSE);
            self.pause = self.last_pause;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOBODY: Others = Others { idle: 0, holding: 0, busy: 0, rows: 0, began_at: None };

    fn ended(rows: usize, took: Duration) -> Ended {
        Ended { rows, took, at: Instant::now(), is_done: true }
    }

    fn gathering() -> Gathering {
        Gathering::new(2, 100).unwrap()
    }

    /// How long callers may take to come back from a run.
    fn wait(took: Duration) -> Duration {
        let (mut gathering, run) = (gathering(), ended(8, took));
        gathering.ended(run, false, 0);
        gathering.awaited(NOBODY).map_or(Duration::ZERO, |(_, until)| until - run.at)
    }

    #[test]
    fn everybody_is_waited_for_and_those_of_runs_that_go_on_as_well() {
        let mut gathering = gathering();
        assert_eq!(gathering.awaited(NOBODY), None, "nobody was there before");
        let began_at = Instant::now();
        let run = Ended { at: began_at + 6 * MS, ..ended(8, 8 * MS) };
        gathering.ended(run, false, 1);
        let busy = Others { busy: 1, rows: 7, began_at: Some(began_at), ..NOBODY };
        let (rows, until) = gathering.awaited(busy).unwrap();
        assert_eq!((rows, until - run.at), (16, 2 * MS + 4 * MS), "the other ends in 2 ms");
        gathering.ended(Ended { rows: 7, at: run.at + 2 * MS, ..run }, false, 5);
        assert_eq!(gathering.awaited(NOBODY), Some((16, run.at + 6 * MS)));
        // The first who begins takes the others along.
        gathering.begins(16, NOBODY);
        assert_eq!(gathering.awaited(busy), None);
    }

    #[test]
    fn the_wait_is_short_beside_the_run_and_there_is_none_on_many_cores() {
        assert_eq!(wait(8 * MS), 4 * MS);
        assert_eq!(wait(80 * MS), LONGEST);
        assert_eq!(wait(MS / 10), Duration::ZERO);
        assert!(Gathering::new(3, 100).is_some() && Gathering::new(4, 100).is_none());
    }

    #[test]
    fn nobody_waits_for_one_caller_or_for_more_than_may_wait_or_for_a_run_that_goes_on() {
        let mut gathering = Gathering::new(2, 10).unwrap();
        let run = ended(1, 8 * MS);
        gathering.ended(run, false, 5);
        assert_eq!(gathering.awaited(NOBODY), None);
        let busy = Others { busy: 1, rows: 1, began_at: Some(run.at), ..NOBODY };
        assert_eq!(gathering.awaited(busy), None, "it goes on for 8 ms");
        gathering.ended(run, false, 0);
        assert_eq!(gathering.awaited(NOBODY).unwrap().0, 7);
        gathering.ended(ended(4, 8 * MS), false, 0);
        assert_eq!(gathering.awaited(NOBODY), None, "11 would be more than 10");
    }

    #[test]
    fn callers_who_stay_away_are_waited_for_ever_more_rarely() {
        let mut gathering = gathering();
        let mut runs = |back: usize| {
            gathering.ended(ended(8, 8 * MS), false, 2);
            let waits = gathering.awaited(NOBODY).is_some();
            if waits {
                gathering.waits();
            }
            gathering.begins(2 + back, NOBODY);
            waits
        };
        let waits: Vec<_> = (0..300).filter(|_| runs(3)).collect();
        assert_eq!(waits, [0, 2, 6, 14, 30, 62, 126, 190, 254]);
        while !runs(6) {}
        assert!(runs(3), "three in four were enough");
        assert!(!runs(3));
        assert!(runs(3), "what was doubted before is forgotten");
    }

    #[test]
    fn who_need_not_be_waited_for_says_nothing_about_those_who_must() {
        let mut gathering = gathering();
        for _ in 0..3 {
            gathering.ended(ended(8, 8 * MS), false, 2);
            gathering.begins(3, NOBODY);
        }
        gathering.ended(ended(8, 8 * MS), false, 2);
        assert!(gathering.awaited(NOBODY).is_some());
    }
}
