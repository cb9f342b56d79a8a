//! Sends the requests of a sequence one after another, because streams overtake one another.

use std::collections::HashMap;
use std::sync::Arc;

use consort_stage::CorrelationId;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Line, OwnedMutexGuard};

/// Who waits behind whom, for each sequence that has a request under way.
#[derive(Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<CorrelationId, Arc<Line<()>>>>>);

/// The right to send; it ends when it is dropped.
pub(crate) struct Turn {
    turns: Arc<Mutex<HashMap<CorrelationId, Arc<Line<()>>>>>,
    id: CorrelationId,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until every earlier request of the sequence is answered, in order of arrival.
    pub(crate) async fn wait(&self, id: &CorrelationId) -> Turn {
        let line = self.0.lock().entry(id.clone()).or_default().clone();
        // Made before the wait, so that one who leaves while waiting is cleared away too.
        let mut turn = Turn { turns: self.0.clone(), id: id.clone(), held: None };
        turn.held = Some(line.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        drop(self.held.take());
        // Whoever waits has the line too; without one it is only the map's.
        if turns.get(&self.id).is_some_and(|line| Arc::strong_count(line) == 1) {
            turns.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn requests_of_one_sequence_go_one_after_another_and_leave_nothing_behind() {
        let turns = Turns::default();
        let (one, other) = (CorrelationId::Number(1), CorrelationId::Number(2));
        let first = turns.wait(&one).await;
        let mut second = Box::pin(turns.wait(&one));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(turns.wait(&other).now_or_never().is_some());
        drop(first);
        drop(second.await);
        assert!(turns.0.lock().is_empty());
    }
}
