//! A whole model in simulated time: instances of different speeds, callers who leave, deadlines and
//! answers in order. Every request has one end, at its time, and no instance rests beside work.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use consort_stage::{Response, Result};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::order::{Answer, Order};

const MAX_ROWS: usize = 8;
const DELAY: Duration = Duration::from_millis(4);

/// What one caller asks, in milliseconds from the beginning.
#[derive(Clone, Debug)]
struct Asked {
    comes_at: u32,
    rows: usize,
    length: usize,
    shape: i64,
    level: u64,
    /// How long it may wait, and whether it is put off then.
    timeout: Option<(u32, bool)>,
    deadline: Option<u32>,
    /// How long its caller stays.
    leaves: Option<u32>,
}

#[derive(Clone, Debug)]
struct Setup {
    manner: Manner,
    keeps_order: bool,
    /// For each instance: what a run takes, and what each padded row adds, in milliseconds.
    speeds: Vec<(u32, u32)>,
}

fn asked() -> impl Strategy<Value = Asked> {
    use proptest::option::weighted;
    let times = (
        0..150_u32,
        weighted(0.3, (1..25_u32, any::<bool>())),
        weighted(0.2, 1..40_u32),
        weighted(0.2, 0..40_u32),
    );
    let sizes = (1..=4_usize, 1..40_usize, 0..2_i64, 0..3_u64);
    (times, sizes).prop_map(|((comes_at, timeout, deadline, leaves), sizes)| {
        let (rows, length, shape, level) = sizes;
        Asked { comes_at, rows, length, shape, level, timeout, deadline, leaves }
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    let preferred = proptest::collection::vec(1..=MAX_ROWS, 1..3);
    let delay = prop_oneof![Just(Duration::ZERO), Just(DELAY)];
    let manner = prop_oneof![
        Just(Manner::Alone),
        Just(Manner::Greedy(Greedy { max_tokens: 64 })),
        (preferred, delay).prop_map(|(preferred, delay)| Manner::Exact(Exact { preferred, delay })),
    ];
    let speeds = proptest::collection::vec((1..12_u32, 0..4_u32), 1..4);
    (manner, any::<bool>(), speeds).prop_map(|(manner, keeps_order, speeds)| {
        // As in configurations: only strict batching promises an order.
        let keeps_order = keeps_order && matches!(manner, Manner::Exact(_));
        Setup { manner, keeps_order, speeds }
    })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done(usize),
    Leaves(usize),
    Comes(usize),
    /// The time of a request is up, or an instance wanted to be asked again.
    Passes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Left,
    Expired(Expired),
}

/// One request on its way.
struct Open {
    entry: Entry,
    place: Place,
    answer: Option<Answer>,
}

struct World {
    setup: Setup,
    asked: Vec<Asked>,
    now: Instant,
    batcher: Batcher<usize>,
    order: Order,
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    /// What each instance runs.
    running: Vec<Option<Vec<usize>>>,
    /// The last run of each instance, which is not over while it runs.
    last: Vec<Option<Ended>>,
    open: BTreeMap<usize, Open>,
    ends: BTreeMap<usize, End>,
    receivers: BTreeMap<usize, oneshot::Receiver<Result<Response>>>,
    /// The answers in the order in which callers had them.
    heard: Vec<usize>,
    /// The requests in the order in which they began.
    begun: Vec<usize>,
    /// In the order of their coming.
    came: Vec<usize>,
}

impl World {
    fn new(setup: Setup, mut asked: Vec<Asked>) -> Self {
        if setup.keeps_order {
            for request in &mut asked {
                request.level = 0;
                request.timeout = request.timeout.map(|(after, _)| (after, false));
            }
        }
        let now = Instant::now();
        let mut world = Self {
            batcher: Batcher::new(setup.manner.clone(), MAX_ROWS),
            running: vec![None; setup.speeds.len()],
            last: vec![None; setup.speeds.len()],
            setup,
            now,
            order: Order::default(),
            events: BinaryHeap::new(),
            open: BTreeMap::new(),
            ends: BTreeMap::new(),
            receivers: BTreeMap::new(),
            heard: Vec::new(),
            begun: Vec::new(),
            came: Vec::new(),
            asked,
        };
        for number in 0..world.asked.len() {
            world.at(now + world.asked[number].comes_at * MS, Event::Comes(number));
        }
        world
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.events.push(Reverse((at, event)));
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        while let Some(Reverse((at, event))) = self.events.pop() {
            prop_assert!(at >= self.now, "time goes on");
            self.now = at;
            match event {
                Event::Comes(number) => self.comes(number),
                Event::Leaves(number) => self.leaves(number),
                Event::Done(instance) => self.done(instance)?,
                Event::Passes => {}
            }
            self.pull()?;
            self.listen();
        }
        Ok(())
    }

    fn comes(&mut self, number: usize) {
        let now = self.now;
        let asked = self.asked[number].clone();
        let action = |is_put_off| {
            if is_put_off { TimeoutAction::Delay } else { TimeoutAction::Reject }
        };
        let entry = Entry {
            rows: asked.rows,
            length: asked.length,
            likeness: Likeness::with_shape(asked.shape),
            level: asked.level,
            timeout: asked.timeout.map(|(after, delays)| (now + after * MS, action(delays))),
            deadline: asked.deadline.map(|after| now + after * MS),
            ..entry(now)
        };
        let (sender, receiver) = oneshot::channel();
        let answer = if self.setup.keeps_order {
            Answer::in_order(sender, &self.order)
        } else {
            Answer::at_once(sender)
        };
        let expiries = [entry.timeout.map(|(at, _)| at), entry.deadline];
        expiries.into_iter().flatten().for_each(|at| self.at(at, Event::Passes));
        if let Some(after) = asked.leaves {
            self.at(now + after * MS, Event::Leaves(number));
        }
        let place = self.batcher.add(entry.clone(), number);
        self.open.insert(number, Open { entry, place, answer: Some(answer) });
        self.receivers.insert(number, receiver);
        self.came.push(number);
    }

    fn leaves(&mut self, number: usize) {
        let Some(open) = self.open.get(&number) else { return };
        self.receivers.remove(&number);
        // One that runs is over with its run; its answer is nobody's then.
        if self.batcher.remove(open.place).is_some() {
            self.open.remove(&number);
            self.ends.insert(number, End::Left);
        }
    }

    fn done(&mut self, instance: usize) -> Result<(), TestCaseError> {
        for number in self.running[instance].take().unwrap_or_default() {
            let open = self.open.remove(&number);
            prop_assert!(open.is_some(), "{number} ended while it ran");
            if let Some(answer) = open.and_then(|open| open.answer) {
                answer.send(Ok(Response::default()));
            }
            let is_heard = self.receivers.contains_key(&number);
            let end = if is_heard { End::Answered } else { End::Left };
            prop_assert_eq!(self.ends.insert(number, end), None);
        }
        Ok(())
    }

    /// As instances do: those whose time is up are refused first, then every free instance asks.
    fn pull(&mut self) -> Result<(), TestCaseError> {
        for (why, number) in self.batcher.expire(self.now) {
            let open = self.open.remove(&number).unwrap();
            let due_at = match why {
                Expired::Timeout => open.entry.timeout.map(|(at, _)| at),
                Expired::Deadline => open.entry.deadline,
            };
            prop_assert_eq!(due_at, Some(self.now), "{} was refused early or late", number);
            drop(open.answer);
            self.receivers.remove(&number);
            prop_assert_eq!(self.ends.insert(number, End::Expired(why)), None);
        }
        while let Some(free) = self.running.iter().position(Option::is_none) {
            let others = self.others();
            match self.batcher.decide(self.now, others, self.last[free]) {
                Decision::Run(batch) => self.begin(free, batch)?,
                Decision::Hold(until) => {
                    prop_assert!(matches!(self.setup.manner, Manner::Greedy(_)));
                    prop_assert!(others.idle == 0, "an instance waits beside an idle one");
                    let took = self.last[free].map_or(Duration::ZERO, |last| last.took);
                    let longest = (took / 8).min(Duration::from_millis(2));
                    prop_assert!(until > self.now && until <= self.now + longest);
                    self.at(until, Event::Passes);
                    break;
                }
                Decision::WaitUntil(at) => {
                    let is_patient = matches!(&self.setup.manner, Manner::Exact(exact) if !exact.delay.is_zero());
                    prop_assert!(is_patient, "an instance rests beside work");
                    prop_assert!(at > self.now && at <= self.now + DELAY);
                    self.at(at, Event::Passes);
                    break;
                }
                Decision::Nothing => {
                    prop_assert_eq!(self.batcher.len(), 0);
                    break;
                }
            }
        }
        Ok(())
    }

    /// What the instances do beside a free one.
    fn others(&self) -> Others {
        let busy: Vec<_> = self.running.iter().flatten().collect();
        let entries = busy.iter().copied().flatten().map(|number| &self.open[number].entry);
        let rows = entries.map(|entry| entry.rows).sum();
        Others { idle: self.running.len() - busy.len() - 1, busy: busy.len(), rows }
    }

    fn begin(&mut self, instance: usize, batch: Vec<usize>) -> Result<(), TestCaseError> {
        let entries: Vec<_> = batch.iter().map(|number| &self.open[number].entry).collect();
        let rows: usize = entries.iter().map(|entry| entry.rows).sum();
        prop_assert!(batch.len() == 1 || rows <= MAX_ROWS);
        for (number, entry) in batch.iter().zip(&entries) {
            prop_assert!(entry.likeness == entries[0].likeness);
            prop_assert!(entry.deadline.is_none_or(|at| at > self.now), "{number} is too late");
            let is_refused = |(at, action)| action == TimeoutAction::Reject && at <= self.now;
            prop_assert!(!entry.timeout.is_some_and(is_refused), "{number} waited too long");
        }
        let (fixed, each) = self.setup.speeds[instance];
        let takes = fixed + each * rows as u32;
        self.begun.extend(&batch);
        self.running[instance] = Some(batch);
        let (took, at) = (takes * MS, self.now + takes * MS);
        self.last[instance] = Some(Ended { rows, took, at });
        self.at(self.now + takes * MS, Event::Done(instance));
        Ok(())
    }

    /// Notes the answers that have come since; those of one moment by the order of their coming.
    fn listen(&mut self) {
        for number in &self.came {
            let Some(receiver) = self.receivers.get_mut(number) else { continue };
            if receiver.try_recv().is_ok() {
                self.heard.push(*number);
                self.receivers.remove(number);
            }
        }
    }

    /// What must hold once everything is over.
    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.open.is_empty() && self.batcher.len() == 0);
        prop_assert_eq!(self.ends.len(), self.asked.len(), "each has one end");
        let answered = self.ends.values().filter(|end| **end == End::Answered).count();
        prop_assert_eq!(self.heard.len(), answered, "each answer is heard once");
        let came = |number: &usize| self.came.iter().position(|other| other == number);
        if self.setup.keeps_order {
            let places: Vec<_> = self.heard.iter().map(came).collect();
            prop_assert!(places.is_sorted(), "answers overtook one another: {:?}", self.heard);
        }
        if matches!(self.setup.manner, Manner::Greedy(_)) {
            return Ok(());
        }
        // Of one level and with no time-out they begin as they came.
        for level in 0..3 {
            let begun = self.begun.iter().filter(|number| {
                let asked = &self.asked[**number];
                asked.level == level && asked.timeout.is_none()
            });
            let places: Vec<_> = begun.map(came).collect();
            prop_assert!(places.is_sorted(), "level {} began out of order", level);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_request_ends_once_at_its_time_and_in_its_order(
        setup in setup(),
        asked in proptest::collection::vec(asked(), 1..60),
    ) {
        let mut world = World::new(setup, asked);
        world.run()?;
        world.check()?;
    }
}
