//! Lets those who want to change the same model take turns, whatever happens to other models.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// One queue for each name that anybody waits for.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>);

/// The turn of one caller, which ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits until all who came before for `name` have had their turn.
    pub async fn of(&self, name: &Arc<str>) -> Turn {
        let queue = {
            let mut queues = self.0.lock();
            // Names come from callers, so none may stay once nobody waits for it.
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            queues.entry(name.clone()).or_default().clone()
        };
        Turn { _held: queue.lock_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn only_those_of_the_same_name_wait_for_one_another() {
        let turns = Turns::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = turns.of(&a).await;
        assert!(turns.of(&b).now_or_never().is_some());
        let mut second = Box::pin(turns.of(&a));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        second.await;
        drop(turns.of(&b).await);
        assert_eq!(turns.0.lock().len(), 1, "names that nobody waits for are forgotten");
    }
}
