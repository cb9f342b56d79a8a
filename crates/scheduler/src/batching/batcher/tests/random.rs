//! Whatever comes, leaves and runs out of time: nothing is lost, doubled or against the rules.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MAX_ROWS: usize = 8;
const MAX_TOKENS: usize = 64;
const DELAY: Duration = Duration::from_millis(3);

/// Something that happens, a number of milliseconds after what happened before.
#[derive(Clone, Copy, Debug)]
enum Event {
    Comes {
        rows: usize,
        length: usize,
        shape: i64,
        level: u64,
        timeout: Option<(u32, bool)>,
    },
    /// The caller of an earlier request leaves.
    Leaves(usize),
    /// An instance is free.
    Pulls {
        others: usize,
    },
}

fn event() -> impl Strategy<Value = (u32, Event)> {
    let timeout = proptest::option::weighted(0.3, (1..20_u32, any::<bool>()));
    let comes = (1..=4_usize, 1..40_usize, 0..2_i64, 0..3_u64, timeout);
    let comes = comes.prop_map(|(rows, length, shape, level, timeout)| Event::Comes {
        rows,
        length,
        shape,
        level,
        timeout,
    });
    let event = prop_oneof![
        6 => comes,
        1 => (0..64_usize).prop_map(Event::Leaves),
        3 => (0..3_usize).prop_map(|others| Event::Pulls { others }),
    ];
    (prop_oneof![8 => 0..3_u32, 1 => 0..200_u32], event)
}

fn manner() -> impl Strategy<Value = Manner> {
    let preferred = proptest::collection::vec(1..=MAX_ROWS, 1..3);
    let delay = prop_oneof![Just(Duration::ZERO), Just(DELAY)];
    prop_oneof![
        Just(Manner::Alone),
        Just(Manner::Greedy(Greedy { max_tokens: MAX_TOKENS })),
        (preferred, delay).prop_map(|(preferred, delay)| Manner::Exact(Exact { preferred, delay })),
    ]
}

/// The batcher, and what is known of every request that came.
struct World {
    batcher: Batcher<usize>,
    manner: Manner,
    now: Instant,
    came: Vec<(Entry, Place)>,
    /// Those neither run nor left nor expired.
    open: BTreeSet<usize>,
    /// Those that were put off; they have no order among the others any more.
    put_off: BTreeSet<usize>,
}

impl World {
    fn meets(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Comes { rows, length, shape, level, timeout } => {
                let action =
                    |delays| if delays { TimeoutAction::Delay } else { TimeoutAction::Reject };
                let timeout =
                    timeout.map(|(after, delays)| (self.now + after * MS, action(delays)));
                let likeness = Likeness::with_shape(shape);
                let entry = Entry { rows, length, likeness, level, timeout, ..Entry::at(self.now) };
                let number = self.came.len();
                let place = self.batcher.add(entry.clone(), number);
                self.came.push((entry, place));
                self.open.insert(number);
            }
            Event::Leaves(number) => {
                if let Some((_, place)) = self.came.get(number) {
                    let left = self.batcher.remove(*place);
                    prop_assert_eq!(left, self.open.take(&number));
                }
            }
            Event::Pulls { others } => self.pulls(others)?,
        }
        Ok(())
    }

    fn pulls(&mut self, others: usize) -> Result<(), TestCaseError> {
        for (_, number) in self.batcher.expire(self.now) {
            let (at, action) = self.came[number].0.timeout.unwrap();
            prop_assert!(at <= self.now && action == TimeoutAction::Reject);
            prop_assert!(self.open.remove(&number), "{number} ran out of time twice");
        }
        let is_put_off = |number: &usize| matches!(self.came[*number].0.timeout, Some((at, _)) if at <= self.now);
        self.put_off = self.open.iter().copied().filter(is_put_off).collect();
        let others = Others { idle: others, ..Others::default() };
        match self.batcher.decide(self.now, others, None, None) {
            Decision::Nothing => prop_assert!(self.open.is_empty()),
            Decision::WaitUntil(at) => {
                prop_assert!(at > self.now && at <= self.now + DELAY);
                prop_assert!(matches!(self.manner, Manner::Exact(_)), "only a delay may hold");
            }
            Decision::Hold(_) => prop_assert!(false, "nothing has been run before"),
            Decision::Run(batch) => self.runs(&batch)?,
        }
        Ok(())
    }

    fn runs(&mut self, batch: &[usize]) -> Result<(), TestCaseError> {
        prop_assert!(!batch.is_empty());
        let entries: Vec<_> = batch.iter().map(|number| &self.came[*number].0).collect();
        let rows: usize = entries.iter().map(|entry| entry.rows).sum();
        let longest = entries.iter().map(|entry| entry.length).max().unwrap();
        if batch.len() > 1 {
            prop_assert!(self.manner != Manner::Alone && rows <= MAX_ROWS);
            prop_assert!(entries.iter().all(|entry| entry.likeness == entries[0].likeness));
            if matches!(self.manner, Manner::Greedy(_)) {
                prop_assert!(rows * longest <= MAX_TOKENS, "{rows} rows of {longest}");
            }
        }
        let order =
            |number: &usize| (self.came[*number].0.level, self.put_off.contains(number), *number);
        prop_assert!(batch.is_sorted_by_key(order), "{batch:?} is out of order");
        let first = self.open.iter().min_by_key(|number| order(number));
        prop_assert_eq!(Some(&batch[0]), first, "the first in line is always taken");
        let last = batch.iter().max_by_key(|number| order(number)).unwrap();
        let overtaken = self
            .open
            .iter()
            .filter(|number| order(number) < order(last) && !batch.contains(number));
        for number in overtaken {
            prop_assert!(matches!(self.manner, Manner::Greedy(_)), "{number} was overtaken");
            let age = self.now - self.came[*number].0.queued_at;
            prop_assert!(age < AGE_LIMIT, "{number} was overtaken at {age:?}");
        }
        for number in batch {
            prop_assert!(self.open.remove(number), "{number} is run twice or was gone");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_request_is_run_once_or_leaves_and_every_batch_keeps_the_rules(
        manner in manner(),
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let mut world = World {
            batcher: Batcher::new(manner.clone(), MAX_ROWS),
            manner,
            now: Instant::now(),
            came: Vec::new(),
            open: BTreeSet::new(),
            put_off: BTreeSet::new(),
        };
        for (after, event) in events {
            world.now += after * MS;
            world.meets(event)?;
        }
        let mut turns = 0;
        while !world.open.is_empty() {
            world.now += DELAY;
            world.pulls(0)?;
            turns += 1;
            prop_assert!(turns < 1000, "{:?} never run", world.open);
        }
        prop_assert_eq!(world.batcher.len(), 0);
    }
}
