//! A whole model in simulated time: instances of different speeds, told as threads at a queue are,
//! callers who leave, deadlines and answers in order. Every request has one end, at its time, and no
//! instance rests beside work that is for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use consort_config::TimeoutAction;
use consort_stage::{Response, Result};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::batching::exact::Exact;
use crate::batching::greedy::Greedy;
use crate::batching::{Expired, Manner};
use crate::order::{Answer, Order};

const MAX_ROWS: usize = 8;
const DELAY: Duration = Duration::from_millis(4);

/// The longest wait for another's run to end, and for its callers.
const LONGEST_HOLD: Duration = Duration::from_millis(5 + 5);

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
    /// How often one that is answered asks again, and how long after.
    again: (u32, u32),
}

#[derive(Clone, Debug)]
struct Setup {
    manner: Manner,
    keeps_order: bool,
    /// For each instance: what a run takes, and what each padded row adds, in milliseconds.
    speeds: Vec<(u32, u32)>,
    /// The same for a wide instance, the last of all, where there is one.
    wide: Option<(u32, u32)>,
    /// The cores, where an instance that is alone has all of them.
    cores: Option<usize>,
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
    let again = prop_oneof![Just((0, 0)), (0..30_u32, 0..4_u32)];
    (times, sizes, again).prop_map(|((comes_at, timeout, deadline, leaves), sizes, again)| {
        let (rows, length, shape, level) = sizes;
        Asked { comes_at, rows, length, shape, level, timeout, deadline, leaves, again }
    })
}

/// One of several callers who ask the same again and again.
fn asked_again() -> impl Strategy<Value = Asked> {
    (0..3_u32, 1..=2_usize, 0..3_u32).prop_map(|(comes_at, rows, after)| Asked {
        comes_at,
        rows,
        length: 4,
        shape: 0,
        level: 0,
        timeout: None,
        deadline: None,
        leaves: None,
        again: (60, after),
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
    let speed = || (1..12_u32, 0..4_u32);
    let speeds = proptest::collection::vec(speed(), 1..4);
    let wide = proptest::option::of(speed());
    let cores = proptest::option::of(1..5_usize);
    (manner, any::<bool>(), speeds, wide, cores).prop_map(
        |(manner, keeps_order, speeds, wide, cores)| {
            // As in configurations: only strict batching promises an order, and it has no wide
            // instance.
            let is_exact = matches!(manner, Manner::Exact(_));
            let wide = wide.filter(|_| !is_exact);
            Setup { manner, keeps_order: keeps_order && is_exact, speeds, wide, cores }
        },
    )
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Done(usize),
    Leaves(usize),
    Comes(usize),
    /// The time of a request is up.
    Passes,
    /// An instance that has not been told since this many tellings wanted to be asked again.
    Asks(usize, u64),
}

/// What an instance does.
#[derive(Clone, Debug)]
enum Doing {
    /// Waits as one that is free, and perhaps for a moment.
    Rests(Option<Instant>),
    /// Waits for callers.
    Holds,
    Runs(Vec<usize>),
}

struct Instance {
    post: Post,
    doing: Doing,
    speed: (u32, u32),
    /// How often it was told, or asked by itself.
    tellings: u64,
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
    crew: Crew<usize>,
    order: Order,
    events: BinaryHeap<Reverse<(Instant, Event)>>,
    instances: Vec<Instance>,
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
        let batcher = Batcher::new(setup.manner.clone(), MAX_ROWS);
        let crew = Crew::new(batcher, setup.cores, 100);
        let narrow = setup.speeds.iter().map(|speed| (*speed, false));
        let speeds: Vec<_> = narrow.chain(setup.wide.map(|speed| (speed, true))).collect();
        let mut world = Self {
            crew,
            instances: Vec::new(),
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
        for (speed, is_wide) in speeds {
            let post = Post::new(is_wide);
            world.crew.rest(&post);
            let doing = Doing::Rests(None);
            world.instances.push(Instance { post, doing, speed, tellings: 0 });
        }
        for number in 0..world.asked.len() {
            world.at(now + world.asked[number].comes_at * MS, Event::Comes(number));
        }
        world
    }

    /// Everything that is asked, to its end.
    fn play(setup: Setup, asked: Vec<Asked>) -> Result<(), TestCaseError> {
        let mut world = Self::new(setup, asked);
        world.run()?;
        world.check()
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.events.push(Reverse((at, event)));
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        while let Some(Reverse((at, event))) = self.events.pop() {
            prop_assert!(at >= self.now, "time goes on");
            self.now = at;
            self.expire()?;
            match event {
                Event::Comes(number) => self.comes(number)?,
                Event::Leaves(number) => self.leaves(number),
                Event::Done(instance) => self.done(instance)?,
                Event::Passes => {}
                Event::Asks(instance, tellings) => {
                    if self.instances[instance].tellings == tellings {
                        self.rise(instance)?;
                    }
                }
            }
            self.listen();
            self.nobody_rests_beside_work()?;
        }
        Ok(())
    }

    fn comes(&mut self, number: usize) -> Result<(), TestCaseError> {
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
            ..Entry::at(now)
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
        self.receivers.insert(number, receiver);
        self.came.push(number);
        let (place, told) = self.crew.add(entry.clone(), number);
        self.open.insert(number, Open { entry, place, answer: Some(answer) });
        match told {
            Told::Nobody => Ok(()),
            Told::Wide => self.tell(true),
            Told::Narrow => self.tell(false),
        }
    }

    fn leaves(&mut self, number: usize) {
        let Some(open) = self.open.get(&number) else { return };
        self.receivers.remove(&number);
        // One that runs is over with its run; its answer is nobody's then.
        if self.crew.batcher.remove(open.place).is_some() {
            self.open.remove(&number);
            self.ends.insert(number, End::Left);
        }
    }

    fn done(&mut self, instance: usize) -> Result<(), TestCaseError> {
        let doing = std::mem::replace(&mut self.instances[instance].doing, Doing::Rests(None));
        let Doing::Runs(batch) = doing else { panic!("{instance} runs") };
        for number in batch {
            let open = self.open.remove(&number);
            prop_assert!(open.is_some(), "{number} ended while it ran");
            if let Some(answer) = open.and_then(|open| open.answer) {
                answer.send(Ok(Response::default()));
            }
            let is_heard = self.receivers.contains_key(&number);
            let end = if is_heard { End::Answered } else { End::Left };
            if end == End::Answered {
                self.asks_again(number);
            }
            prop_assert_eq!(self.ends.insert(number, end), None);
        }
        self.crew.leave(&mut self.instances[instance].post);
        self.ask(instance)
    }

    /// Whoever was answered may have another question.
    fn asks_again(&mut self, number: usize) {
        let asked = self.asked[number].clone();
        let (times, after) = asked.again;
        if times > 0 {
            self.asked.push(Asked { again: (times - 1, after), ..asked });
            self.at(self.now + after * MS, Event::Comes(self.asked.len() - 1));
        }
    }

    fn expire(&mut self) -> Result<(), TestCaseError> {
        for (why, number) in self.crew.batcher.expire(self.now) {
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
        Ok(())
    }

    /// Wakes one instance of this kind that waits.
    fn tell(&mut self, is_wide: bool) -> Result<(), TestCaseError> {
        let mut there = self.instances.iter();
        let waits =
            |one: &Instance| one.post.is_wide == is_wide && !matches!(one.doing, Doing::Runs(_));
        match there.position(waits) {
            Some(instance) => self.rise(instance),
            None => Ok(()),
        }
    }

    /// An instance that has waited asks what it is to do.
    fn rise(&mut self, instance: usize) -> Result<(), TestCaseError> {
        let Instance { post, doing, .. } = &self.instances[instance];
        match doing {
            Doing::Holds => self.crew.release(post),
            Doing::Rests(_) => self.crew.rise(post),
            Doing::Runs(_) => prop_assert!(false, "{} waits", instance),
        }
        self.ask(instance)
    }

    /// As an instance at the queue does.
    fn ask(&mut self, instance: usize) -> Result<(), TestCaseError> {
        let turn = self.crew.turn(self.now, &self.instances[instance].post);
        let own = &mut self.instances[instance];
        own.tellings += 1;
        match turn {
            Turn::Run(batch) => self.begin(instance, batch),
            Turn::Hold(hold) => {
                prop_assert!(matches!(self.setup.manner, Manner::Greedy(_)));
                prop_assert!(hold.until > self.now && hold.until <= self.now + LONGEST_HOLD);
                prop_assert!(hold.rows > self.crew.batcher.rows());
                self.crew.hold(&own.post, hold);
                own.doing = Doing::Holds;
                let tellings = own.tellings;
                self.at(hold.until, Event::Asks(instance, tellings));
                Ok(())
            }
            Turn::WaitUntil(at) => {
                let is_patient =
                    matches!(&self.setup.manner, Manner::Exact(exact) if !exact.delay.is_zero());
                prop_assert!(
                    is_patient || self.runs_one_for_all(),
                    "an instance rests beside work"
                );
                prop_assert!(at > self.now && (!is_patient || at <= self.now + DELAY));
                self.rest(instance, Some(at));
                let tellings = self.instances[instance].tellings;
                self.at(at, Event::Asks(instance, tellings));
                Ok(())
            }
            Turn::Wait => {
                prop_assert!(self.crew.batcher.len() == 0, "an instance rests beside work");
                self.rest(instance, None);
                Ok(())
            }
            Turn::Leave => {
                prop_assert!(own.post.is_wide && self.crew.batcher.len() > 0);
                self.rest(instance, None);
                self.tell(false)
            }
        }
    }

    fn rest(&mut self, instance: usize, until: Option<Instant>) {
        let own = &mut self.instances[instance];
        own.doing = Doing::Rests(until);
        self.crew.rest(&own.post);
    }

    /// While something waits, every instance that could take it works, or one waits for a moment.
    fn nobody_rests_beside_work(&self) -> Result<(), TestCaseError> {
        let mut narrow = self.instances.iter().filter(|one| !one.post.is_wide);
        let waits = |one: &Instance| matches!(one.doing, Doing::Holds | Doing::Rests(Some(_)));
        let is_seen = self.crew.batcher.len() == 0
            || self.runs_one_for_all()
            || self.instances.iter().any(waits)
            || narrow.all(|one| matches!(one.doing, Doing::Runs(_)));
        prop_assert!(is_seen, "an instance rests beside work");
        Ok(())
    }

    /// Whether a wide instance runs what all callers asked; it looks at what waits after it.
    fn runs_one_for_all(&self) -> bool {
        let mut wide = self.instances.iter().filter(|one| one.post.is_wide);
        wide.any(|one| matches!(&one.doing, Doing::Runs(batch) if batch.len() > 1))
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
        self.begun.extend(&batch);
        let own = &mut self.instances[instance];
        let (fixed, each) = own.speed;
        let took = (fixed + each * rows as u32) * MS;
        let at = self.now + took;
        self.crew.take(self.now, &mut own.post, batch.len(), rows);
        own.post.ended(Some(Ended { rows, took, at, is_done: true }));
        own.doing = Doing::Runs(batch);
        self.at(at, Event::Done(instance));
        if self.crew.batcher.len() > 0 { self.tell(false) } else { Ok(()) }
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
        prop_assert!(self.open.is_empty() && self.crew.batcher.len() == 0);
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
        World::play(setup, asked)?;
    }

    #[test]
    fn callers_who_come_back_are_served_in_one_run_or_in_several(
        setup in setup(),
        asked in proptest::collection::vec(asked_again(), 2..9),
    ) {
        World::play(setup, asked)?;
    }
}
