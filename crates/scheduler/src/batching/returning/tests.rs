//! How long an instance waits, and for how many.

use super::*;

const MS: Duration = Duration::from_millis(1);
const NOBODY: Others = Others { idle: 0, holding: 0, busy: 0, rows: 0, began_at: None };

fn ended(rows: usize, micros: u64) -> Ended {
    Ended { rows, took: Duration::from_micros(micros), at: Instant::now(), is_done: true }
}

/// The rows that an instance waits for after `last` when `waiting` are there.
fn rows(others: Others, waiting: usize, last: Ended) -> usize {
    last.awaited(others, others.share(waiting, Some(last))).map_or(0, |(rows, _)| rows)
}

#[test]
fn callers_are_waited_for_a_part_of_their_run() {
    let wait = |last: Ended| last.awaited(NOBODY, 8).map(|(_, until)| until - last.at);
    assert_eq!(wait(ended(8, 8_000)), Some(MS));
    assert_eq!(wait(ended(2, 80_000)), Some(LONGEST));
    assert_eq!(wait(ended(8, 400)), None);
}

#[test]
fn a_lone_caller_is_not_waited_for() {
    assert_eq!(rows(NOBODY, 1, ended(1, 9_000)), 1);
    assert_eq!(rows(Others { idle: 1, ..NOBODY }, 1, ended(1, 9_000)), 0);
}

#[test]
fn the_only_instance_waits_for_as_many_as_it_answered() {
    assert_eq!(rows(NOBODY, 1, ended(16, 9_000)), 16);
}

#[test]
fn busy_instances_come_to_share_their_callers_fairly() {
    let busy = Others { busy: 1, rows: 1, ..NOBODY };
    let last = ended(15, 9_000);
    assert_eq!(busy.share(3, Some(last)), 8);
    assert_eq!(rows(busy, 3, last), 8);
    // One that ran a single row beside fifteen waits for its part of them.
    let crowded = Others { busy: 1, rows: 15, ..NOBODY };
    assert_eq!(crowded.share(1, Some(ended(1, 9_000))), 8);
}

#[test]
fn free_instances_share_what_waits() {
    let idle = Others { idle: 1, busy: 1, rows: 9, ..NOBODY };
    assert_eq!(idle.share(4, Some(ended(9, 9_000))), 2);
    let holding = Others { holding: 1, ..NOBODY };
    assert_eq!(holding.share(16, Some(ended(8, 9_000))), 8);
}
