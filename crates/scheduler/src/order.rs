//! Lets answers out in the order in which their requests came (`preserve_ordering`).

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_stage::{Response, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Where an answer goes.
type Sender = oneshot::Sender<Result<Response>>;

/// The requests of a model that are not answered yet, in the order of their coming.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order(Arc<Mutex<Turns>>);

#[derive(Debug, Default)]
struct Turns {
    next: u64,
    /// An answer that is there waits for those before it.
    open: BTreeMap<u64, Option<(Sender, Result<Response>)>>,
}

/// The way back to the caller of a request; when it is dropped the request is out of the order.
#[derive(Debug)]
pub(crate) struct Answer {
    sender: Option<Sender>,
    turn: Option<Turn>,
}

/// The place of a request in the order.
#[derive(Debug)]
struct Turn {
    order: Order,
    number: u64,
}

impl Answer {
    /// An answer that goes out as soon as it is there.
    pub(crate) fn at_once(sender: Sender) -> Self {
        Self { sender: Some(sender), turn: None }
    }

    /// An answer that goes out behind those of `order` before it.
    pub(crate) fn in_order(sender: Sender, order: &Order) -> Self {
        let mut turns = order.0.lock();
        let number = turns.next;
        turns.next += 1;
        turns.open.insert(number, None);
        Self { sender: Some(sender), turn: Some(Turn { order: order.clone(), number }) }
    }

    /// Gives the answer; a caller that has gone does not want it.
    pub(crate) fn send(mut self, answer: Result<Response>) {
        let Some(sender) = self.sender.take() else { return };
        match &self.turn {
            None => drop(sender.send(answer)),
            Some(turn) => {
                let mut turns = turn.order.0.lock();
                if let Some(open) = turns.open.get_mut(&turn.number) {
                    *open = Some((sender, answer));
                }
            }
        }
    }
}

impl Drop for Turn {
    /// Whoever leaves without an answer holds up nobody.
    fn drop(&mut self) {
        let mut turns = self.order.0.lock();
        if let Some(None) = turns.open.get(&self.number) {
            turns.open.remove(&self.number);
        }
        while let Some(first) = turns.open.first_entry()
            && first.get().is_some()
        {
            if let Some((sender, answer)) = first.remove() {
                drop(sender.send(answer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers<const N: usize>() -> ([Answer; N], [oneshot::Receiver<Result<Response>>; N]) {
        let order = Order::default();
        let pairs = [(); N].map(|()| oneshot::channel());
        let mut receivers = Vec::new();
        let answers = pairs.map(|(sender, receiver)| {
            receivers.push(receiver);
            Answer::in_order(sender, &order)
        });
        (answers, receivers.try_into().unwrap())
    }

    #[test]
    fn an_answer_waits_for_those_before_it() {
        let ([first, second], [mut one, mut two]) = answers();
        second.send(Ok(Response::default()));
        assert!(two.try_recv().is_err());
        first.send(Ok(Response::default()));
        assert!(one.try_recv().is_ok());
        assert!(two.try_recv().is_ok());
    }

    #[test]
    fn who_leaves_holds_up_nobody() {
        let ([first, second, third], [_, mut two, mut three]) = answers();
        third.send(Ok(Response::default()));
        second.send(Ok(Response::default()));
        assert!(two.try_recv().is_err());
        drop(first);
        assert!(two.try_recv().is_ok());
        assert!(three.try_recv().is_ok());
    }
}
