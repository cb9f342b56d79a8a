//! Which is sooner over for so many rows: one run on the threads of all cores, or one on each core.
//!
//! One run reads the weights once for all rows, but its threads meet at every operator and hand
//! each other what they computed. What that costs depends on where the host has put the cores and
//! can change from one minute to the next, so it is not known but tried.

use std::time::Duration;

/// Rounds of a kind before the other one is tried, at first and at most; the more often it has
/// lost, the more rarely it is tried.
const PAUSE: (u32, u32) = (4, 256);

/// The rounds of a trial. The first does not count, as the caches hold what the other kind uses.
const TRIAL: u32 = 3;

/// The weight of a round in the average is one in so many, while there were so many.
const MEMORY: u32 = 8;

/// What a row takes in a trial that has won, at most, to what it usually takes. A smaller gain would
/// have them change places for no more than noise.
const GAIN: f64 = 0.97;

/// A round of a trial that takes so many times the usual ends it: that is not the caches, which
/// cost the first round some hundredths. One of the usual kind counts as no more than that, unless
/// the one before it took longer: single rounds are held up by whatever else the machine does.
const HOPELESS: f64 = 1.2;

/// Once the usual kind takes so many times the least that it took since the other was tried, that
/// one is tried before its time.
const CHANGED: f64 = 1.1;

/// The usual rounds between noticing that and the trial, in which the average comes to what is.
const SETTLING: u32 = 2 * MEMORY;

/// The usual rounds after a trial in which that is left alone, as what rounds take may change all
/// the time: rows are not all of one length.
const CALM: u32 = 4 * SETTLING;

/// Numbers of rows up to the next power of two are of one size, and the last is for all larger ones.
const SIZES: usize = 8;

/// What the rounds of each size took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contest([Size; SIZES]);

/// The contest at one size.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Whether one run for all is what is usually done.
    is_wide: bool,
    /// What a row takes so, in seconds, on the average.
    usual: f64,
    /// The least that this was since the other kind was tried, once it was an average.
    least: f64,
    /// What a row took in the last usual round.
    last: f64,
    /// The usual rounds since the other kind was tried.
    rounds: u32,
    /// How many there are to be before it is tried again.
    pause: u32,
    /// How many rounds of the other kind there were since, and what a row took in those that count.
    tried: u32,
    took: f64,
}

impl Default for Size {
    fn default() -> Self {
        Self::of(false, f64::INFINITY)
    }
}

impl Contest {
    /// Whether so many rows are to be one run.
    pub(super) fn is_wide(&self, rows: usize) -> bool {
        let size = &self.0[size(rows)];
        size.is_wide != size.is_due()
    }

    /// Takes note of what so many rows took, in one run or in several.
    pub(super) fn note(&mut self, is_wide: bool, rows: usize, took: Duration) {
        if rows > 0 {
            self.0[size(rows)].note(is_wide, took.as_secs_f64() / rows as f64);
        }
    }

    /// Takes note that one run of so many rows failed or was stopped: for now there is none any more.
    pub(super) fn give_up(&mut self, rows: usize) {
        self.0[size(rows)].give_up();
    }
}

impl Size {
    /// The usual kind and what a row takes so, and nothing of the other one.
    fn of(is_wide: bool, usual: f64) -> Self {
        Self {
            is_wide,
            usual,
            least: f64::INFINITY,
            last: 0.0,
            rounds: 0,
            pause: PAUSE.0,
            tried: 0,
            took: 0.0,
        }
    }

    fn note(&mut self, is_wide: bool, took: f64) {
        if is_wide == self.is_wide {
            self.note_usual(took);
            return;
        }
        self.tried += 1;
        if self.tried > 1 {
            self.took += took / f64::from(TRIAL - 1);
        }
        let is_hopeless = self.is_due() && took > HOPELESS * self.usual;
        if is_hopeless || self.tried == TRIAL {
            let has_won = !is_hopeless && self.took < GAIN * self.usual;
            *self = if has_won {
                Self::of(is_wide, self.took)
            } else {
                self.later(self.is_wide, self.usual)
            };
        }
    }

    fn note_usual(&mut self, took: f64) {
        let is_first = self.usual.is_infinite();
        self.rounds = self.rounds.saturating_add(1);
        let weight = f64::from(self.rounds.min(MEMORY)).recip();
        let counted = took.min(self.last.max(HOPELESS * self.usual));
        self.last = took;
        self.usual = if is_first { took } else { self.usual + (counted - self.usual) * weight };
        if self.rounds >= MEMORY {
            self.least = self.least.min(self.usual);
        }
        if self.rounds >= CALM && self.usual > CHANGED * self.least {
            self.rounds = self.rounds.max(self.pause.saturating_sub(SETTLING));
        }
    }

    /// Whether the other kind is to be tried now.
    fn is_due(&self) -> bool {
        self.rounds >= self.pause
    }

    fn give_up(&mut self) {
        let usual = if self.is_wide { f64::INFINITY } else { self.usual };
        *self = self.later(false, usual);
    }

    /// The same with the next trial twice as far away.
    fn later(&self, is_wide: bool, usual: f64) -> Self {
        Self { pause: (2 * self.pause).min(PAUSE.1), ..Self::of(is_wide, usual) }
    }
}

/// Which of the sizes a number of rows is of.
fn size(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize).min(SIZES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many rounds of 16 rows, of the kind that is asked for; which were one run.
    fn rounds(contest: &mut Contest, count: usize, wide: f64, narrow: f64) -> Vec<usize> {
        let round = |_: &usize| {
            let is_wide = contest.is_wide(16);
            let took = if is_wide { wide } else { narrow };
            contest.note(is_wide, 16, Duration::from_secs_f64(took / 1e3));
            is_wide
        };
        (0..count).filter(round).collect()
    }

    #[test]
    fn the_sooner_kind_is_found_soon_and_the_other_tried_ever_more_rarely() {
        let mut contest = Contest::default();
        let wide = rounds(&mut contest, 200, 12.0, 11.0);
        assert_eq!(wide, [4, 5, 6, 15, 16, 17, 34, 35, 36, 69, 70, 71, 136, 137, 138]);
        let mut contest = Contest::default();
        let wide = rounds(&mut contest, 200, 14.0, 11.0);
        assert_eq!(wide, [4, 13, 30, 63, 128], "one round is enough to see that");
        let mut contest = Contest::default();
        let wide = rounds(&mut contest, 200, 10.0, 11.0);
        assert_eq!(wide.len(), 200 - 4 - 5 * 3, "five trials in vain of one on each");
    }

    #[test]
    fn it_is_noticed_when_the_other_becomes_the_sooner() {
        let mut contest = Contest::default();
        rounds(&mut contest, 5_000, 14.0, 11.0);
        let wide = rounds(&mut contest, 1_000, 10.0, 11.0);
        assert!(wide[0] <= PAUSE.1 as usize && wide.len() > 400, "{wide:?}");
        let wide = rounds(&mut contest, 1_000, 14.0, 11.0);
        assert!(wide.len() <= PAUSE.1 as usize, "{wide:?}");
    }

    /// One run for all has long been the sooner, and so many rounds have gone by since the last trial.
    fn settled(since: u32) -> Contest {
        let mut contest = Contest::default();
        rounds(&mut contest, 5_000, 10.0, 11.0);
        while contest.0[size(16)].rounds != since {
            rounds(&mut contest, 1, 10.0, 11.0);
        }
        contest
    }

    /// The rounds until one on each is tried, once these are the times, and all that were one run.
    fn until_narrow(contest: &mut Contest, wide: f64, narrow: f64) -> (usize, Vec<usize>) {
        let all = PAUSE.1 as usize;
        let was_wide = rounds(contest, all, wide, narrow);
        let first = (0..all).find(|round| !was_wide.contains(round));
        (first.expect("it is tried in this time"), was_wide)
    }

    #[test]
    fn the_other_is_tried_soon_when_the_usual_becomes_slow() {
        for (wide, narrow) in [(11.8, 11.0), (20.0, 16.0)] {
            let (first, was_wide) = until_narrow(&mut settled(CALM), wide, narrow);
            assert!((SETTLING as usize..2 * SETTLING as usize).contains(&first), "{was_wide:?}");
            assert!(was_wide.len() < 64, "and it wins: {was_wide:?}");
        }
        let mut contest = Contest::default();
        rounds(&mut contest, 5_000, 14.0, 11.0);
        let wide = rounds(&mut contest, PAUSE.1 as usize, 14.0, 11.5);
        assert!(wide.len() <= 1, "it has hardly changed: {wide:?}");
    }

    #[test]
    fn what_changes_all_the_time_brings_no_trial_after_another() {
        let (first, _) = until_narrow(&mut settled(MEMORY), 11.8, 11.0);
        assert_eq!(first, (CALM - MEMORY + SETTLING) as usize);
    }

    #[test]
    fn single_slow_rounds_bring_no_trial() {
        let mut contest = Contest::default();
        rounds(&mut contest, 5_000, 10.0, 11.0);
        let wide = (0..PAUSE.1).filter(|round| {
            let took = if round % 4 == 0 { 30.0 } else { 10.0 };
            rounds(&mut contest, 1, took, 11.0) == [0]
        });
        assert_eq!(wide.count(), (PAUSE.1 - TRIAL) as usize, "but the one that is due anyway");
    }

    #[test]
    fn one_run_that_fails_is_given_up_until_the_next_trial() {
        let mut contest = Contest::default();
        rounds(&mut contest, 4, 10.0, 11.0);
        assert!(contest.is_wide(16));
        contest.give_up(16);
        assert!(rounds(&mut contest, 8, 10.0, 11.0).is_empty());
        assert_eq!(rounds(&mut contest, 5, 10.0, 11.0), [0, 1, 2, 3, 4], "it wins");
        contest.give_up(16);
        assert!(rounds(&mut contest, 8, 10.0, 11.0).is_empty(), "also where it was usual");
    }

    #[test]
    fn slow_rounds_that_are_no_trial_put_none_off() {
        let mut contest = Contest::default();
        rounds(&mut contest, 7, 10.0, 11.0);
        for _ in 1..TRIAL {
            contest.note(false, 16, Duration::from_millis(20));
        }
        assert_eq!(rounds(&mut contest, 5, 10.0, 11.0), [0, 1, 2, 3], "the next is due as before");
    }

    #[test]
    fn sizes_know_nothing_of_one_another() {
        let mut contest = Contest::default();
        rounds(&mut contest, 10, 10.0, 11.0);
        assert!(contest.is_wide(16) && contest.is_wide(31));
        assert!(!contest.is_wide(15) && !contest.is_wide(32) && !contest.is_wide(usize::MAX));
        contest.note(true, 0, Duration::ZERO);
        assert!(!contest.is_wide(0));
    }
}
