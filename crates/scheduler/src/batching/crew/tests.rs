//! Who takes what, by a clock of the test's own.

mod simulated;

use super::*;
use crate::batching::greedy::Greedy;
use crate::batching::{Likeness, Manner};

const MS: Duration = Duration::from_millis(1);

/// Two narrow instances and a wide one, all free.
struct Model {
    crew: Crew<u32>,
    narrow: [Post; 2],
    wide: Post,
    now: Instant,
    came: u32,
}

fn model() -> Model {
    let batcher = Batcher::new(Manner::Greedy(Greedy { max_tokens: 256 }), 64);
    let mut crew = Crew::new(batcher, Some(2), 100);
    let (narrow, wide) = ([Post::new(false); 2], Post::new(true));
    for post in narrow.iter().chain([&wide]) {
        crew.rest(post);
    }
    Model { crew, narrow, wide, now: Instant::now(), came: 0 }
}

impl Model {
    /// So many requests of 12 tokens come; what each of them tells.
    fn come(&mut self, count: usize) -> Vec<Told> {
        (0..count).map(|_| self.comes(Entry { length: 12, ..Entry::at(self.now) })).collect()
    }

    fn comes(&mut self, entry: Entry) -> Told {
        self.came += 1;
        self.crew.add(entry, self.came).1
    }

    fn turn(&mut self, which: usize) -> Turn<u32> {
        let post = self.narrow[which];
        self.crew.turn(self.now, &post)
    }

    /// A free instance is told and takes what it is given; how many rows these are.
    fn takes(&mut self, which: usize) -> usize {
        self.crew.rise(&self.narrow[which]);
        self.begins(which)
    }

    /// The same for one that waits for callers.
    fn goes_on(&mut self, which: usize) -> usize {
        self.crew.release(&self.narrow[which]);
        self.begins(which)
    }

    fn begins(&mut self, which: usize) -> usize {
        let Turn::Run(batch) = self.turn(which) else { return 0 };
        self.crew.take(self.now, &mut self.narrow[which], batch.len(), batch.len());
        batch.len()
    }

    /// The instance ends its run, which took eight milliseconds.
    fn ends(&mut self, which: usize) {
        let post = &mut self.narrow[which];
        post.ended(Some(Ended { rows: post.rows, took: 8 * MS, at: self.now, is_done: true }));
        self.crew.leave(post);
    }

    /// Both end their runs, and rest.
    fn end(&mut self) {
        self.ends(0);
        self.ends(1);
        self.narrow.iter().for_each(|post| self.crew.rest(post));
    }

    /// The instance is to wait for callers, and does: for how many rows, how long and for whom.
    fn holds(&mut self, which: usize) -> (usize, Duration, bool) {
        let Turn::Hold(hold) = self.turn(which) else { panic!("{which} waits for callers") };
        self.crew.hold(&self.narrow[which], hold);
        (hold.rows, hold.until - self.now, hold.is_for_all)
    }

    fn wide_turn(&mut self) -> Turn<u32> {
        self.crew.turn(self.now, &self.wide)
    }

    fn wide_begins(&mut self) -> usize {
        let Turn::Run(batch) = self.wide_turn() else { return 0 };
        self.crew.take(self.now, &mut self.wide, batch.len(), batch.len());
        batch.len()
    }

    fn wide_ends(&mut self, took: Duration, is_done: bool) {
        let rows = self.wide.rows;
        self.wide.ended(Some(Ended { rows, took, at: self.now, is_done }));
        self.crew.leave(&mut self.wide);
    }

    /// Sixteen callers have come back so often that one run for all is to be tried.
    fn before_one_run_for_all() -> Self {
        let mut model = Self::with_sixteen_callers();
        // What a round took is noted when the next one begins.
        for _ in 0..4 {
            model.end();
            model.come(16);
            assert_eq!([model.takes(0), model.takes(1)], [8, 8]);
            model.now += 8 * MS;
        }
        model.end();
        model
    }

    /// The same, and it goes on.
    fn in_one_run_for_all() -> Self {
        let mut model = Self::before_one_run_for_all();
        model.come(16);
        model.crew.rise(&model.wide);
        assert_eq!(model.wide_begins(), 16);
        model
    }

    /// Sixteen callers have come to both, eight milliseconds ago.
    fn with_sixteen_callers() -> Self {
        let mut model = model();
        model.come(16);
        assert_eq!([model.takes(0), model.takes(1)], [8, 8]);
        model.now += 8 * MS;
        model
    }

    /// The same, and both have just ended their runs.
    fn after_a_run_of_sixteen() -> Self {
        let mut model = Self::with_sixteen_callers();
        model.ends(0);
        model.ends(1);
        model
    }
}

#[test]
fn the_instances_wait_for_all_their_callers_and_begin_together() {
    let mut model = Model::with_sixteen_callers();
    assert_eq!(model.come(1), [Told::Narrow]);
    model.now += MS;
    model.ends(0);
    assert_eq!(model.holds(0), (17, 4 * MS, true));
    assert_eq!(model.come(8), [Told::Nobody; 8]);
    model.ends(1);
    assert_eq!(model.holds(1), (17, 4 * MS, true));
    model.now += 2 * MS;
    assert_eq!(model.come(7), [Told::Nobody; 7]);
    assert_eq!(model.come(1), [Told::Narrow], "all are there");
    assert_eq!([model.goes_on(1), model.goes_on(0)], [9, 8]);
}

#[test]
fn who_is_back_before_the_run_was_noted_is_counted_once() {
    let mut model = Model::with_sixteen_callers();
    model.narrow[0].ended(Some(Ended { rows: 8, took: 8 * MS, at: model.now, is_done: true }));
    model.now += MS / 4;
    model.come(2);
    model.crew.leave(&mut model.narrow[0]);
    assert_eq!(model.holds(0).0, 16);
}

#[test]
fn who_waits_in_vain_runs_what_is_there_and_takes_the_others_along() {
    let mut model = Model::after_a_run_of_sixteen();
    model.come(6);
    assert_eq!([model.holds(0).0, model.holds(1).0], [16, 16]);
    model.now += 4 * MS;
    assert_eq!([model.goes_on(0), model.goes_on(1)], [3, 3]);
    // Six of sixteen came: the next time each waits but briefly, for its own share.
    model.now += 8 * MS;
    model.come(2);
    model.ends(0);
    assert_eq!(model.holds(0), (3, MS, false));
}

#[test]
fn whose_time_would_run_out_ends_the_wait() {
    let mut model = Model::after_a_run_of_sixteen();
    model.come(1);
    model.holds(0);
    let hurried = Entry { length: 12, deadline: Some(model.now + MS), ..Entry::at(model.now) };
    assert_eq!(model.comes(hurried), Told::Narrow);
    assert_eq!(model.goes_on(0), 2);
}

#[test]
fn a_lone_request_is_for_the_wide_instance_unless_others_are_expected() {
    let mut model = model();
    assert_eq!(model.come(1), [Told::Wide]);
    let wide = model.wide;
    model.crew.rise(&wide);
    assert!(matches!(model.crew.turn(model.now, &wide), Turn::Run(batch) if batch.len() == 1));
    model.crew.take(model.now, &mut model.wide, 1, 1);
    assert_eq!(model.come(2), [Told::Narrow; 2], "it runs");

    let mut model = Model::after_a_run_of_sixteen();
    model.narrow.iter().for_each(|post| model.crew.rest(post));
    assert_eq!(model.come(1), [Told::Narrow], "fifteen more are on their way");
    assert!(matches!(model.crew.turn(model.now, &model.wide), Turn::Leave));
    model.crew.rise(&model.narrow[0]);
    assert_eq!(model.holds(0), (16, 4 * MS, true));

    let mut model = Model::after_a_run_of_sixteen();
    model.narrow.iter().for_each(|post| model.crew.rest(post));
    model.now += 5 * MS;
    assert_eq!(model.come(1), [Told::Wide], "nobody has come for long");
}

#[test]
fn one_run_for_all_is_tried_and_nobody_runs_anything_beside_it() {
    let mut model = Model::before_one_run_for_all();
    assert_eq!(model.come(1), [Told::Wide], "it waits for the others");
    model.crew.rise(&model.wide);
    let Turn::Hold(hold) = model.wide_turn() else { panic!("it waits") };
    assert_eq!((hold.rows, hold.until - model.now), (16, 4 * MS));
    model.crew.hold(&model.wide, hold);
    assert_eq!(model.come(14), [Told::Nobody; 14]);
    assert_eq!(model.come(1), [Told::Wide], "all are there");
    model.crew.release(&model.wide);
    assert_eq!(model.wide_begins(), 16);
    assert_eq!(model.come(2), [Told::Narrow; 2]);
    let hung_at = model.now + LONGEST_WIDE;
    assert!(matches!(model.turn(0), Turn::WaitUntil(at) if at == hung_at));
    assert_eq!(model.crew.idle(), 0, "they wait, although nothing runs on these instances");

    model.now += 6 * MS;
    model.wide_ends(6 * MS, true);
    let Turn::Hold(hold) = model.wide_turn() else { panic!("it waits") };
    assert_eq!((hold.rows, hold.until - model.now), (18, 3 * MS));
    model.now += 4 * MS;
    assert!(matches!(model.wide_turn(), Turn::Leave), "few came back");
    assert_eq!([model.takes(0), model.takes(1)], [1, 1]);
}

#[test]
fn one_run_for_all_that_hangs_keeps_the_others_for_half_a_second() {
    let mut model = Model::in_one_run_for_all();
    model.come(2);
    model.now += LONGEST_WIDE;
    assert_eq!([model.takes(0), model.takes(1)], [1, 1]);
}

#[test]
fn one_run_for_all_that_fails_is_not_the_sooner_one() {
    let mut model = Model::in_one_run_for_all();
    model.now += MS;
    model.wide_ends(MS, false);
    model.come(16);
    assert!(matches!(model.wide_turn(), Turn::Run(_)), "it is noted with the next begin");
    model.come(16);
    assert!(matches!(model.wide_turn(), Turn::Leave));
}

#[test]
fn what_would_not_be_taken_whole_is_not_one_run() {
    let mut model = Model::before_one_run_for_all();
    for shape in 0..16 {
        let likeness = Likeness::with_shape(shape % 2);
        model.comes(Entry { length: 12, likeness, ..Entry::at(model.now) });
    }
    assert!(matches!(model.wide_turn(), Turn::Leave));
    assert_eq!(model.takes(0), 8);
}

#[test]
fn once_closed_whoever_is_free_takes_what_waits() {
    let mut model = Model::after_a_run_of_sixteen();
    model.come(1);
    model.holds(0);
    model.crew.close();
    assert_eq!(model.goes_on(0), 1);
}
