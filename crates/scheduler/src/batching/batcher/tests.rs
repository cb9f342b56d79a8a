//! What the batcher decides, by a clock of the test's own.

mod random;

use std::time::Duration;

use consort_config::TimeoutAction;

use super::super::exact::Exact;
use super::super::greedy::{AGE_LIMIT, Greedy};
use super::super::{Expired, Likeness};
use super::*;

const MS: Duration = Duration::from_millis(1);

/// A batcher whose requests have names, and its clock.
struct Bench {
    batcher: Batcher<&'static str>,
    now: Instant,
}

fn exact(preferred: &[usize], delay: Duration) -> Bench {
    bench(Manner::Exact(Exact { preferred: preferred.to_vec(), delay }), 8)
}

fn greedy(max_tokens: usize) -> Bench {
    bench(Manner::Greedy(Greedy { max_tokens }), 8)
}

fn bench(manner: Manner, max_rows: usize) -> Bench {
    Bench { batcher: Batcher::new(manner, max_rows), now: Instant::now() }
}

impl Bench {
    fn comes(&mut self, name: &'static str, rows: usize) -> Place {
        self.adds(name, Entry { rows, ..Entry::at(self.now) })
    }

    fn adds(&mut self, name: &'static str, entry: Entry) -> Place {
        self.batcher.add(entry, name)
    }

    fn long(&mut self, name: &'static str, length: usize) {
        self.adds(name, Entry { length, ..Entry::at(self.now) });
    }

    /// The names that a free instance would run now, when no other is free.
    fn runs(&mut self) -> Vec<&'static str> {
        match self.batcher.decide(self.now, Others::default(), None, None) {
            Decision::Run(names) => names,
            _ => Vec::new(),
        }
    }
}

#[test]
fn a_lone_request_is_never_kept_waiting_unless_a_delay_says_so() {
    for mut bench in [bench(Manner::Alone, 1), greedy(64), exact(&[4], Duration::ZERO)] {
        assert_eq!(
            bench.batcher.decide(bench.now, Others::default(), None, None),
            Decision::Nothing
        );
        bench.comes("a", 1);
        assert_eq!(bench.runs(), ["a"]);
    }
    let mut patient = exact(&[4], 5 * MS);
    patient.comes("a", 1);
    let due_at = patient.now + 5 * MS;
    assert_eq!(
        patient.batcher.decide(patient.now, Others::default(), None, None),
        Decision::WaitUntil(due_at)
    );
    patient.now = due_at;
    assert_eq!(patient.runs(), ["a"]);
}

#[test]
fn a_preferred_size_is_run_at_once_and_the_rest_waits() {
    let mut bench = exact(&[2, 4], 5 * MS);
    for name in ["a", "b", "c", "d", "e"] {
        bench.comes(name, 1);
    }
    assert_eq!(bench.runs(), ["a", "b", "c", "d"]);
    assert_eq!(bench.runs(), Vec::<&str>::new());
    bench.now += 5 * MS;
    assert_eq!(bench.runs(), ["e"]);
}

#[test]
fn what_has_waited_long_enough_takes_everybody_along() {
    let mut bench = exact(&[2, 4], 5 * MS);
    bench.comes("a", 1);
    bench.now += 5 * MS;
    bench.comes("b", 1);
    bench.comes("c", 1);
    assert_eq!(bench.runs(), ["a", "b", "c"]);
}

#[test]
fn a_request_counts_for_its_rows_and_is_never_split() {
    let mut bench = exact(&[8], 5 * MS);
    bench.comes("a", 3);
    bench.comes("b", 6);
    assert_eq!(bench.runs(), ["a"], "b would be a ninth row, so a goes alone");
    bench.comes("c", 2);
    assert_eq!(bench.runs(), ["b", "c"]);
}

#[test]
fn one_that_passes_the_preferred_sizes_sends_those_before_it() {
    let mut bench = exact(&[4], 5 * MS);
    bench.comes("a", 3);
    assert_eq!(bench.runs(), Vec::<&str>::new());
    bench.comes("b", 2);
    assert_eq!(bench.runs(), ["a"]);
}

#[test]
fn in_strict_order_an_unlike_request_closes_the_batch() {
    let unlike = Likeness::with_shape(7);
    let mut bench = exact(&[8], Duration::ZERO);
    bench.comes("a", 1);
    bench.adds("b", Entry { likeness: unlike.clone(), ..Entry::at(bench.now) });
    bench.comes("c", 1);
    assert_eq!([bench.runs(), bench.runs(), bench.runs()], [["a"], ["b"], ["c"]]);
    let mut bench = greedy(64);
    bench.comes("a", 1);
    bench.adds("b", Entry { likeness: unlike, ..Entry::at(bench.now) });
    bench.comes("c", 1);
    assert_eq!(bench.runs(), ["a", "c"]);
}

#[test]
fn nobody_old_is_overtaken() {
    let mut bench = greedy(64);
    bench.comes("a", 1);
    bench.adds("b", Entry { likeness: Likeness::with_shape(7), ..Entry::at(bench.now) });
    bench.now += AGE_LIMIT;
    bench.comes("c", 1);
    assert_eq!(bench.runs(), ["a"]);
}

#[test]
fn alike_lengths_are_grouped_and_others_left_for_later() {
    let mut bench = greedy(256);
    for (name, length) in [("a", 12), ("b", 200), ("c", 14), ("d", 13), ("e", 60)] {
        bench.long(name, length);
    }
    assert_eq!(bench.runs(), ["a", "c", "d"]);
    assert_eq!(bench.runs(), ["b"]);
    assert_eq!(bench.runs(), ["e"]);
}

#[test]
fn the_nearest_lengths_come_first_into_a_small_budget() {
    let mut bench = greedy(40);
    for (name, length) in [("a", 12), ("b", 18), ("c", 13), ("d", 12)] {
        bench.long(name, length);
    }
    assert_eq!(bench.runs(), ["a", "c", "d"]);
}

#[test]
fn a_batch_keeps_within_its_tokens_but_a_lone_request_need_not() {
    let mut bench = greedy(100);
    for name in ["a", "b", "c"] {
        bench.long(name, 40);
    }
    bench.long("long", 500);
    assert_eq!(bench.runs(), ["a", "b"]);
    assert_eq!(bench.runs(), ["c"]);
    assert_eq!(bench.runs(), ["long"]);
}

#[test]
fn callers_on_their_way_back_are_waited_for_but_briefly() {
    let mut bench = greedy(64);
    let took = Duration::from_millis(8);
    let last = Some(Ended { rows: 2, took, at: bench.now, is_done: true });
    bench.comes("a", 1);
    let until = bench.now + took / 8;
    let alone = Others::default();
    assert_eq!(
        bench.batcher.decide(bench.now, alone, last, None),
        Decision::Hold(Hold { rows: 2, until, is_for_all: false })
    );
    bench.comes("b", 1);
    assert_eq!(bench.batcher.decide(bench.now, alone, last, None), Decision::Run(vec!["a", "b"]));
    bench.comes("c", 1);
    assert_eq!(bench.batcher.decide(until, alone, last, None), Decision::Run(vec!["c"]));
}

#[test]
fn what_cannot_take_more_is_not_held() {
    let mut bench = greedy(64);
    let last =
        Some(Ended { rows: 4, took: Duration::from_millis(80), at: bench.now, is_done: true });
    bench.long("long", 40);
    assert_eq!(
        bench.batcher.decide(bench.now, Others::default(), last, None),
        Decision::Run(vec!["long"])
    );
}

#[test]
fn nobody_s_time_runs_out_while_callers_are_waited_for() {
    let mut bench = greedy(64);
    let last =
        Some(Ended { rows: 2, took: Duration::from_millis(8), at: bench.now, is_done: true });
    bench.adds("a", Entry { deadline: Some(bench.now + MS), ..Entry::at(bench.now) });
    assert_eq!(
        bench.batcher.decide(bench.now, Others::default(), last, None),
        Decision::Run(vec!["a"])
    );
}

#[test]
fn all_callers_are_waited_for_unless_they_are_too_many_for_the_instances() {
    let took = Duration::from_millis(8);
    let mut bench = greedy(64);
    let last = Some(Ended { rows: 4, took, at: bench.now, is_done: true });
    let others = Others { busy: 1, rows: 4, ..Others::default() };
    let until = bench.now + took / 2;
    let awaited = Some((9, until));
    bench.long("a", 12);
    let gather = Decision::Hold(Hold { rows: 9, until, is_for_all: true });
    assert_eq!(bench.batcher.decide(bench.now, others, last, awaited), gather);
    bench.long("b", 16);
    // Nine of 16 tokens are too much for two runs of 64, so each takes its share without them.
    let decision = bench.batcher.decide(bench.now, others, last, awaited);
    let until = bench.now + took / 8;
    assert_eq!(decision, Decision::Hold(Hold { rows: 4, until, is_for_all: false }));
}

#[test]
fn free_instances_share_what_waits() {
    let mut bench = greedy(64);
    for name in ["a", "b", "c", "d"] {
        bench.comes(name, 1);
    }
    let others = Others { idle: 1, ..Others::default() };
    assert_eq!(bench.batcher.decide(bench.now, others, None, None), Decision::Run(vec!["a", "b"]));
    assert_eq!(bench.runs(), ["c", "d"]);
}

#[test]
fn higher_levels_go_first_in_every_manner() {
    for mut bench in [bench(Manner::Alone, 1), greedy(64), exact(&[2], Duration::ZERO)] {
        for (name, level) in [("low", 3), ("high", 1), ("middle", 2)] {
            bench.adds(name, Entry { level, ..Entry::at(bench.now) });
        }
        let mut order = Vec::new();
        while bench.batcher.len() > 0 {
            order.extend(bench.runs());
        }
        assert_eq!(order, ["high", "middle", "low"]);
    }
}

#[test]
fn one_whose_time_is_up_is_in_no_batch() {
    let mut bench = greedy(64);
    let timeout = Some((bench.now + MS, TimeoutAction::Reject));
    bench.adds("a", Entry { timeout, ..Entry::at(bench.now) });
    bench.comes("b", 1);
    bench.now += MS;
    assert_eq!(bench.batcher.expire(bench.now), [(Expired::Timeout, "a")]);
    assert_eq!(bench.runs(), ["b"]);
}
