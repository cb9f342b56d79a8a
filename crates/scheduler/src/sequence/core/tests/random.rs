//! Whatever comes, leaves and falls silent: order is kept, and nothing is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{any, prop, prop_assert, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::*;

/// Something that happens to a model.
#[derive(Clone, Debug)]
enum Event {
    /// A request of the sequence, perhaps its start or end, perhaps with a time-out.
    Send { id: u64, flags: &'static str, timeout_ms: Option<u64> },
    /// A caller leaves: of all requests ever taken in, the one at this share of their number.
    Leave(prop::sample::Index),
    /// The instance begins what it may, or ends what it runs.
    Turn(usize),
    /// Time goes by.
    Pass(u64),
}

fn event() -> impl proptest::strategy::Strategy<Value = Event> {
    let flags = prop::sample::select(vec!["", "", "", "s", "s", "e", "se"]);
    let timeout_ms = prop::option::weighted(0.2, 1_u64..80);
    prop_oneof![
        6 => (1_u64..6, flags, timeout_ms)
            .prop_map(|(id, flags, timeout_ms)| Event::Send { id, flags, timeout_ms }),
        1 => any::<prop::sample::Index>().prop_map(Event::Leave),
        5 => (0_usize..2).prop_map(Event::Turn),
        2 => (0_u64..60).prop_map(Event::Pass),
    ]
}

/// What must be true of every run, followed from outside.
#[derive(Default)]
struct Witness {
    sent: Vec<(u64, Key)>,
    /// The requests that are neither answered nor given up, by number.
    open: BTreeSet<u32>,
    ran: Vec<u32>,
    running: [Vec<u32>; 2],
    /// The instance and row of each live sequence.
    seats: BTreeMap<u64, (usize, usize)>,
}

impl Witness {
    fn begins(&mut self, lane: usize, is_direct: bool, rows: &[Option<(u32, bool)>]) {
        for (row, request) in rows.iter().enumerate() {
            let Some((request, is_start)) = *request else { continue };
            let id = self.sent[request as usize].0;
            let running = self.running.iter().flatten();
            assert!(
                running.copied().all(|other| self.sent[other as usize].0 != id),
                "two requests of one sequence ran at once"
            );
            let earlier = |other: &u32| *other < request && self.sent[*other as usize].0 == id;
            assert!(!self.open.iter().any(earlier), "request {request} overtook its own sequence");
            assert!(self.open.contains(&request), "request {request} ran twice");
            let seat = (lane, if is_direct { row } else { 0 });
            let known = self.seats.insert(id, seat);
            assert!(is_start || known == Some(seat), "a live sequence changed its place");
            self.running[lane].push(request);
        }
    }

    fn ends(&mut self, lane: usize) {
        for request in self.running[lane].drain(..) {
            assert!(self.open.remove(&request), "request {request} was given up while it ran");
            self.ran.push(request);
        }
    }

    fn lapses(&mut self, lapsed: Vec<(u32, Lapse)>) {
        for (request, _) in lapsed {
            assert!(self.open.remove(&request), "request {request} was answered twice");
        }
    }
}

fn step(world: &mut World, witness: &mut Witness, is_direct: bool, event: &Event) {
    match *event {
        Event::Send { id, flags, timeout_ms } => {
            let request = witness.sent.len() as u32;
            let timeout = timeout_ms.map(Duration::from_millis);
            if let Ok(admitted) = world.send_within(id, flags, request, timeout) {
                witness.sent.push((id, admitted.key));
                witness.open.insert(request);
            }
        }
        Event::Leave(ref index) if !witness.sent.is_empty() => {
            let request = index.index(witness.sent.len());
            if let Some(left) = world.core.cancel(&witness.sent[request].1) {
                assert_eq!(left as usize, request);
                assert!(witness.open.remove(&left), "what was over was cancelled");
            }
        }
        Event::Leave(_) => {}
        Event::Turn(lane) if world.core.lanes[lane].running.is_empty() => {
            let rows = world.begin(lane);
            witness.begins(lane, is_direct, &rows);
        }
        Event::Turn(lane) => {
            world.end(lane);
            witness.ends(lane);
        }
        Event::Pass(ms) => world.now += Duration::from_millis(ms),
    }
    witness.lapses(world.core.take_lapsed());
    let seated: Vec<_> =
        world.core.lanes.iter().flat_map(|lane| lane.slots.iter().flatten()).collect();
    let lines = world.core.lines.values().filter(|line| line.seat.is_some()).count();
    assert_eq!(seated.len(), lines, "a slot was shared or lost");
    let waiting: usize = world.core.lines.values().map(Line::waiting).sum();
    assert_eq!(world.core.waiting, waiting);
}

proptest! {
    #[test]
    fn sequences_keep_their_order_and_place_and_every_request_has_one_fate(
        is_direct in any::<bool>(),
        events in prop::collection::vec(event(), 1..200),
    ) {
        let mut world = if is_direct { World::direct(2, 2) } else { World::oldest(2, 2, 2) };
        let mut witness = Witness::default();
        for event in events {
            step(&mut world, &mut witness, is_direct, &event);
        }
        world.core.close(world.now);
        for turn in 0..1000 {
            step(&mut world, &mut witness, is_direct, &Event::Turn(turn % 2));
        }
        prop_assert!(witness.open.is_empty(), "lost: {:?}", witness.open);
        for lane in 0..2 {
            prop_assert!(matches!(world.core.decide(lane, world.now), Decision::Stop));
        }
    }
}
