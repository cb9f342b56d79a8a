//! What becomes of sequences, in simulated time.

use std::num::NonZeroUsize;

use consort_config::DynamicBatching;

use super::*;

mod random;

const MS: Duration = Duration::from_millis(1);
const MAX_IDLE: Duration = Duration::from_millis(100);

/// A core in a time of its own, whose requests and states are numbers.
struct World {
    core: Core<u32, u32>,
    now: Instant,
}

/// The request of each row of a batch, and whether it is told to start.
type Rows = Vec<Option<(u32, bool)>>;

impl World {
    fn direct(instances: usize, rows: usize) -> Self {
        let strategy =
            Strategy::Direct { max_queue_delay: Duration::ZERO, minimum_slot_utilization: 0.0 };
        Self::new(instances, rows, strategy)
    }

    fn oldest(instances: usize, rows: usize, candidates: usize) -> Self {
        let max_candidate_sequences = NonZeroUsize::new(candidates).unwrap();
        let batching = DynamicBatching::default();
        Self::new(instances, rows, Strategy::Oldest { max_candidate_sequences, batching })
    }

    fn new(instances: usize, rows: usize, strategy: Strategy) -> Self {
        let policy = Policy {
            instances,
            rows,
            strategy,
            is_iterative: false,
            max_idle: MAX_IDLE,
            queue_size: 8,
            initial_form: Form::default(),
        };
        Self { core: Core::new(policy), now: Instant::now() }
    }

    fn send(&mut self, id: u64, flags: &str, request: u32) -> Result<Admitted, Refusal> {
        self.send_within(id, flags, request, None)
    }

    fn send_within(
        &mut self,
        id: u64,
        flags: &str,
        request: u32,
        timeout: Option<Duration>,
    ) -> Result<Admitted, Refusal> {
        let place = SequencePlace {
            id: CorrelationId::Number(id),
            is_start: flags.contains('s'),
            is_end: flags.contains('e'),
        };
        let arrival = Arrival {
            place,
            request,
            form: Form::default(),
            times_out_at: timeout.map(|timeout| self.now + timeout),
            deadline: None,
        };
        self.core.submit(arrival, self.now).map_err(|refused| refused.0)
    }

    /// What the instance begins to run; empty when it waits.
    fn begin(&mut self, lane: usize) -> Rows {
        match self.core.decide(lane, self.now) {
            Decision::Run(rows) => {
                rows.iter().map(|row| row.as_ref().map(|row| (row.request, row.is_start))).collect()
            }
            Decision::Wait(_) | Decision::Stop => Vec::new(),
        }
    }

    fn end(&mut self, lane: usize) {
        let rows = self.core.lanes[lane].running.len();
        self.core.finish(lane, vec![None; rows], self.now);
    }

    fn run(&mut self, lane: usize) -> Rows {
        let rows = self.begin(lane);
        self.end(lane);
        rows
    }

    fn requests(&mut self, lane: usize) -> Vec<u32> {
        self.run(lane).into_iter().flatten().map(|(request, _)| request).collect()
    }
}

#[test]
fn each_sequence_keeps_its_row_and_silent_rows_are_empty() {
    let mut world = World::direct(1, 4);
    for (id, request) in [(1, 10), (2, 20), (3, 30)] {
        world.send(id, "s", request).unwrap();
    }
    assert_eq!(world.run(0), [Some((10, true)), Some((20, true)), Some((30, true))]);
    world.send(3, "", 31).unwrap();
    assert_eq!(world.run(0), [None, None, Some((31, false))]);
    world.send(3, "e", 32).unwrap();
    world.send(1, "", 11).unwrap();
    assert_eq!(world.run(0), [Some((11, false)), None, Some((32, false))]);
    world.send(1, "", 12).unwrap();
    assert_eq!(world.run(0), [Some((12, false)), None], "the third row was given back");
}

#[test]
fn a_sequence_runs_one_request_at_a_time_in_order_of_arrival() {
    let mut world = World::oldest(1, 4, 4);
    for request in [10, 11, 12] {
        world.send(1, if request == 10 { "s" } else { "" }, request).unwrap();
    }
    world.send(2, "s", 20).unwrap();
    assert_eq!(world.begin(0), [Some((10, true)), Some((20, true))]);
    world.end(0);
    assert_eq!(world.requests(0), [11]);
    assert_eq!(world.requests(0), [12]);
}

#[test]
fn sequences_spread_over_the_instances_and_stay_where_they_are() {
    let mut world = World::direct(2, 2);
    world.send(1, "s", 10).unwrap();
    world.send(2, "s", 20).unwrap();
    assert_eq!(world.requests(0), [10]);
    assert_eq!(world.requests(1), [20]);
    world.send(1, "", 11).unwrap();
    assert_eq!(world.requests(1), [0_u32; 0]);
    assert_eq!(world.requests(0), [11]);
}

#[test]
fn a_request_must_start_its_sequence_before_others_follow() {
    let mut world = World::direct(1, 1);
    assert_eq!(world.send(1, "", 10).unwrap_err(), Refusal::NotStarted);
    world.send(1, "s", 10).unwrap();
    world.send(1, "e", 11).unwrap();
    assert_eq!(world.send(1, "", 12).unwrap_err(), Refusal::NotStarted);
    assert!(!world.send(1, "s", 13).unwrap().cuts_off);
    assert!(world.send(1, "s", 14).unwrap().cuts_off);
}

#[test]
fn a_start_on_a_live_sequence_begins_it_anew() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    world.begin(0);
    let kept = Kept { state: 7, form: Form::default() };
    world.core.finish(0, [Some(kept)], world.now);
    world.send(1, "", 11).unwrap();
    let Decision::Run(rows) = world.core.decide(0, world.now) else { panic!("it should run") };
    assert_eq!(rows[0].as_ref().unwrap().kept.as_ref().unwrap().state, 7);
    world.core.finish(0, [None], world.now);
    assert!(world.send(1, "s", 12).unwrap().cuts_off);
    let Decision::Run(rows) = world.core.decide(0, world.now) else { panic!("it should run") };
    let row = rows[0].as_ref().unwrap();
    assert!(row.is_start && row.kept.is_none());
}

#[test]
fn sequences_without_a_slot_wait_for_the_end_of_another_in_order() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    world.send(2, "se", 20).unwrap();
    world.send(3, "se", 30).unwrap();
    world.send(1, "e", 11).unwrap();
    world.send(1, "se", 12).unwrap();
    for request in [10, 11, 20, 30, 12] {
        assert_eq!(world.requests(0), [request], "the same id waits like any other");
    }
}

#[test]
fn no_more_requests_wait_than_there_is_room_for() {
    let mut world = World::direct(1, 1);
    for request in 0..8 {
        world.send(u64::from(request) + 1, "s", request).unwrap();
    }
    assert_eq!(world.send(9, "s", 9).unwrap_err(), Refusal::Full);
    world.begin(0);
    world.send(9, "s", 9).unwrap();
}

#[test]
fn a_silent_sequence_loses_its_slot() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    world.send(2, "s", 20).unwrap();
    world.run(0);
    let Decision::Wait(Some(until)) = world.core.decide(0, world.now) else {
        panic!("it should wait")
    };
    assert_eq!(until, world.now + MAX_IDLE);
    world.now += MS * 99;
    assert_eq!(world.requests(0), [0_u32; 0]);
    world.now = until;
    assert_eq!(world.requests(0), [20]);
    assert_eq!(world.send(1, "", 11).unwrap_err(), Refusal::NotStarted);
}

#[test]
fn a_sequence_whose_request_runs_long_is_not_silent() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    world.begin(0);
    world.now += MAX_IDLE * 3;
    world.core.expire(world.now);
    world.send(1, "", 11).unwrap();
    world.end(0);
    assert_eq!(world.requests(0), [11]);
}

#[test]
fn a_sequence_that_gets_no_slot_in_time_is_given_up_whole() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    world.begin(0);
    world.send(2, "s", 20).unwrap();
    world.send_within(2, "", 21, Some(MS * 5)).unwrap();
    world.send_within(3, "s", 30, Some(MS * 9)).unwrap();
    world.now += MS * 5;
    world.core.expire(world.now);
    assert_eq!(world.core.take_lapsed(), [(20, Lapse::NoSlot), (21, Lapse::NoSlot)]);
    assert_eq!(world.send(2, "", 22).unwrap_err(), Refusal::NotStarted);
    world.send(3, "", 31).unwrap();
}

#[test]
fn a_caller_that_leaves_frees_its_place_and_keeps_the_order() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    let left = world.send(1, "", 11).unwrap().key;
    world.send(1, "", 12).unwrap();
    assert_eq!(world.core.cancel(&left), Some(11));
    assert_eq!(world.core.cancel(&left), None);
    assert_eq!(world.requests(0), [10]);
    assert_eq!(world.requests(0), [12]);
}

#[test]
fn the_request_behind_a_start_that_was_cancelled_starts() {
    let mut world = World::direct(1, 1);
    let left = world.send(1, "s", 10).unwrap().key;
    world.send(1, "", 11).unwrap();
    world.core.cancel(&left).unwrap();
    assert_eq!(world.run(0), [Some((11, true))]);
}

#[test]
fn a_sequence_whose_only_request_was_cancelled_is_gone() {
    let mut world = World::direct(1, 1);
    let left = world.send(1, "s", 10).unwrap().key;
    world.send(2, "s", 20).unwrap();
    world.core.cancel(&left).unwrap();
    assert_eq!(world.requests(0), [20]);
    assert_eq!(world.send(1, "", 11).unwrap_err(), Refusal::NotStarted);
}

#[test]
fn a_cancelled_new_start_leaves_the_old_sequence_ended() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    world.begin(0);
    let left = world.send(1, "s", 11).unwrap().key;
    world.core.cancel(&left).unwrap();
    assert_eq!(world.send(1, "", 12).unwrap_err(), Refusal::NotStarted);
    world.end(0);
    world.send(2, "s", 20).unwrap();
    assert_eq!(world.requests(0), [20]);
}

#[test]
fn a_request_past_its_deadline_is_not_run() {
    let mut world = World::direct(1, 1);
    let place =
        SequencePlace { id: CorrelationId::Text("a".into()), is_start: true, is_end: false };
    let arrival = Arrival {
        place,
        request: 10,
        form: Form::default(),
        times_out_at: None,
        deadline: Some(world.now + MS),
    };
    world.core.submit(arrival, world.now).unwrap();
    world.now += MS;
    assert_eq!(world.requests(0), [0_u32; 0]);
    assert_eq!(world.core.take_lapsed(), [(10, Lapse::Deadline)]);
}

#[test]
fn what_waits_still_runs_after_the_last_request_was_taken_in() {
    let mut world = World::direct(2, 1);
    for id in 1..=4 {
        world.send(id, "s", id as u32).unwrap();
    }
    world.begin(0);
    world.core.close(world.now);
    assert_eq!(world.send(5, "s", 5).unwrap_err(), Refusal::Closed);
    let mut ran = world.requests(1);
    ran.extend(world.requests(1));
    assert_eq!(ran, [2, 3]);
    world.end(0);
    ran.extend(world.requests(0));
    ran.extend(world.requests(1));
    assert_eq!(ran, [2, 3, 4]);
    assert_eq!(world.core.take_woken(), [0, 1]);
    for lane in 0..2 {
        assert!(matches!(world.core.decide(lane, world.now), Decision::Stop));
    }
}

#[test]
fn an_instance_that_is_added_takes_the_sequences_that_wait_for_a_slot() {
    let mut world = World::direct(1, 1);
    world.send(1, "s", 10).unwrap();
    world.send(2, "s", 20).unwrap();
    assert_eq!(world.begin(0), [Some((10, true))]);
    let added = world.core.add_lane();
    assert_eq!(added, 1);
    assert_eq!(world.begin(added), [Some((20, true))]);
}

#[test]
fn an_instance_that_retires_stays_until_its_sequences_are_over() {
    let mut world = World::direct(2, 1);
    world.send(1, "s", 10).unwrap();
    world.send(2, "s", 20).unwrap();
    world.send(3, "s", 30).unwrap();
    for (lane, request) in [(0, 10), (1, 20)] {
        assert_eq!(world.begin(lane), [Some((request, true))]);
        world.core.finish(lane, [None], world.now);
    }
    world.core.retire(0);
    world.core.take_woken();
    assert!(matches!(world.core.decide(0, world.now), Decision::Wait(_)));
    world.send(1, "e", 11).unwrap();
    assert_eq!(world.begin(0), [Some((11, false))]);
    world.core.finish(0, [None], world.now);
    assert!(matches!(world.core.decide(0, world.now), Decision::Stop));
    assert!(world.begin(1).is_empty(), "sequence 3 still waits for a slot");
    assert_eq!(world.core.add_lane(), 0, "the place is free again");
    assert_eq!(world.begin(0), [Some((30, true))]);
}

#[test]
fn an_instance_that_retires_goes_when_its_last_sequence_falls_silent() {
    let mut world = World::direct(2, 1);
    world.send(1, "s", 10).unwrap();
    assert_eq!(world.begin(0), [Some((10, true))]);
    world.core.finish(0, [None], world.now);
    world.core.retire(0);
    world.core.take_woken();
    world.now += MAX_IDLE;
    world.core.expire(world.now);
    assert_eq!(world.core.take_woken(), [0]);
    assert!(matches!(world.core.decide(0, world.now), Decision::Stop));
}
