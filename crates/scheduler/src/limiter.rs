//! Lets instances run only while the resources they need are free.

mod turns;

use std::sync::Arc;

use consort_stage::{Batch, BatchBackend, Error, Held, Interrupt, Result, Tensor};
use parking_lot::{Condvar, Mutex};

use self::turns::{Id, Turns};

/// So much of a resource is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supply {
    /// The resource's name.
    pub name: Arc<str>,
    /// How much.
    pub count: u32,
    /// The device that has it; `None` when every device has as much.
    pub device: Option<u32>,
}

/// What one instance needs to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The device it runs on; 0 for a processor.
    pub device: u32,
    /// Its resources.
    pub resources: Vec<Need>,
    /// How much each of its runs counts against it; 0 counts as 1.
    pub priority: u32,
}

/// So much of a resource is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The resource's name.
    pub name: Arc<str>,
    /// How much.
    pub count: u32,
    /// Whether all devices share it.
    pub is_global: bool,
}

/// What the instances of all models share, and whose turn it is.
///
/// Among those that wait the one that ran least goes first, each run counting as its priority.
pub struct Limiter {
    turns: Mutex<Turns>,
    advanced: Condvar,
}

impl Limiter {
    /// A limiter of these supplies; without any, there is as much of a resource as the most needy
    /// instance needs.
    pub fn new(supplies: Vec<Supply>) -> Self {
        Self { turns: Mutex::new(Turns::new(supplies)), advanced: Condvar::new() }
    }

    /// `backend` as one that runs only when it has what it needs.
    ///
    /// Errors when it could never run. Its place among the others ends with it.
    pub fn limit(
        self: &Arc<Self>,
        needs: &Needs,
        backend: Box<dyn BatchBackend>,
    ) -> Result<Box<dyn BatchBackend>> {
        let id = self.turns.lock().join(needs)?;
        let member = Arc::new(Member { limiter: self.clone(), id });
        Ok(Box::new(Limited { member, backend }))
    }
}

/// An instance's place among the others.
struct Member {
    limiter: Arc<Limiter>,
    id: Id,
}

impl Member {
    /// Waits for a turn; `None` when it was told to wait no longer.
    fn wait(self: &Arc<Self>) -> Option<Turn> {
        let Limiter { turns, advanced } = &*self.limiter;
        let mut turns = turns.lock();
        turns.ask(self.id);
        while turns.is_waiting(self.id) {
            advanced.wait(&mut turns);
        }
        turns.is_running(self.id).then(|| Turn(self.clone()))
    }

    /// Ends the wait that is going on, if one is.
    fn withdraw(&self) {
        if self.limiter.turns.lock().withdraw(self.id) {
            self.limiter.advanced.notify_all();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.limiter.turns.lock().leave(self.id);
    }
}

/// A turn; what it takes is given back when it is dropped.
struct Turn(Arc<Member>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.limiter.turns.lock().end(self.0.id);
        self.0.limiter.advanced.notify_all();
    }
}

/// A backend that waits for its turn before each run.
struct Limited {
    member: Arc<Member>,
    backend: Box<dyn BatchBackend>,
}

/// It is never brief: it may have to wait.
impl BatchBackend for Limited {
    fn prepare(&mut self) -> Result<Option<Held>> {
        let turn = self.member.wait().ok_or_else(Error::cancelled)?;
        let held = self.backend.prepare()?;
        // Given back in this order: what the backend holds, and then the turn.
        Ok(Some(Box::new((held, turn))))
    }

    fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
        self.backend.run(batch)
    }

    fn gains_from_threads(&self) -> bool {
        self.backend.gains_from_threads()
    }

    fn keeps_requests_apart(&self) -> bool {
        self.backend.keeps_requests_apart()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        let (member, inner) = (self.member.clone(), self.backend.interrupt());
        Some(Arc::new(move || {
            member.withdraw();
            if let Some(interrupt) = &inner {
                interrupt();
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    use consort_testkit::Particular;

    use super::*;

    /// Tells when it begins and ends when it is told to.
    struct Slow {
        begun: Sender<&'static str>,
        name: &'static str,
        go: Receiver<()>,
    }

    impl BatchBackend for Slow {
        fn run(&mut self, _: Batch) -> Result<Vec<Tensor>> {
            self.begun.send(self.name).unwrap();
            self.go.recv().map_err(|_| Error::internal("broken"))?;
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_backend_stays_what_it_is_while_it_is_limited() {
        let limiter = Arc::new(Limiter::new(Vec::new()));
        let mut limited = limiter.limit(&needs(), Box::new(Particular)).unwrap();
        Particular::assert_batch(&mut *limited);
    }

    fn needs() -> Needs {
        let resource = Need { name: "R".into(), count: 1, is_global: false };
        Needs { resources: vec![resource], ..Needs::default() }
    }

    struct Setup {
        limiter: Arc<Limiter>,
        begun: Receiver<&'static str>,
        sender: Sender<&'static str>,
    }

    impl Setup {
        fn new() -> Self {
            let (sender, begun) = channel();
            Self { limiter: Arc::new(Limiter::new(Vec::new())), begun, sender }
        }

        fn instance(&self, name: &'static str) -> (Box<dyn BatchBackend>, Sender<()>) {
            let (go_sender, go) = channel();
            let slow = Slow { begun: self.sender.clone(), name, go };
            (self.limiter.limit(&needs(), Box::new(slow)).unwrap(), go_sender)
        }

        fn next(&self) -> &'static str {
            self.begun.recv_timeout(Duration::from_secs(20)).unwrap()
        }
    }

    fn run(mut backend: Box<dyn BatchBackend>) -> thread::JoinHandle<Result<Vec<Tensor>>> {
        thread::spawn(move || {
            let _held = backend.prepare()?;
            backend.run(Batch::default())
        })
    }

    #[test]
    fn an_instance_waits_until_another_gives_back_what_it_needs() {
        let setup = Setup::new();
        let (one, go_one) = setup.instance("one");
        let (two, go_two) = setup.instance("two");
        let one = run(one);
        assert_eq!(setup.next(), "one");
        let two = run(two);
        go_two.send(()).unwrap();
        assert!(setup.begun.try_recv().is_err());
        go_one.send(()).unwrap();
        assert_eq!(setup.next(), "two");
        one.join().unwrap().unwrap();
        two.join().unwrap().unwrap();
    }

    #[test]
    fn a_wait_can_be_interrupted_and_the_next_is_whole() {
        let setup = Setup::new();
        let (one, go_one) = setup.instance("one");
        let (mut two, go_two) = setup.instance("two");
        let interrupt = two.interrupt().unwrap();
        // Before the run it does nothing.
        interrupt();
        let one = run(one);
        assert_eq!(setup.next(), "one");
        let waiting = thread::spawn(move || (two.prepare().map(drop), two));
        // As the caller's ticket does: again and again until the run is over.
        while !waiting.is_finished() {
            interrupt();
            thread::yield_now();
        }
        let (cancelled, two) = waiting.join().unwrap();
        assert_eq!(cancelled.unwrap_err().code(), consort_stage::Code::Cancelled);
        go_one.send(()).unwrap();
        one.join().unwrap().unwrap();
        let two = run(two);
        assert_eq!(setup.next(), "two");
        go_two.send(()).unwrap();
        two.join().unwrap().unwrap();
    }

    #[test]
    fn a_run_that_fails_gives_back_what_it_took() {
        let setup = Setup::new();
        let (one, go_one) = setup.instance("one");
        drop(go_one);
        assert!(run(one).join().unwrap().is_err());
        let (two, go_two) = setup.instance("two");
        go_two.send(()).unwrap();
        run(two).join().unwrap().unwrap();
    }
}
