//! Brings one replica to the set of models that callers have loaded, when it joins or comes back.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::control::ask_for;
use crate::probe::look_again;
use crate::replica::Replica;
use crate::wanted::{Numbered, Wanted};

/// How soon it is looked at again after a change at first; while that fails it takes twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A change that keeps failing is tried once in so long.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A change that this replica was told, and may not have carried out.
struct Tried {
    number: u64,
    /// Why it failed; nothing when it did not.
    reason: String,
    pause: Duration,
    next_at: Instant,
}

/// Carries out what `replica` has missed, again and again until it is dropped.
///
/// Each model has a pause of its own, so that one that keeps failing holds up no other.
pub(crate) async fn keep(replica: Arc<Replica>, wanted: Arc<Wanted>) {
    let mut changes = wanted.changes();
    let mut tried: BTreeMap<Arc<str>, Tried> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let due = wanted.due(&replica);
        let now = Instant::now();
        // A load that is about to fail looks as if it were under way, so the pause is kept.
        tried.retain(|model, told| {
            let is_due = |due: &Numbered| due.change.model == *model && due.number == told.number;
            due.iter().any(is_due) || now < told.next_at
        });
        for due in due {
            let model = &due.change.model;
            let before = tried.get(model).filter(|before| before.number == due.number);
            if before.is_some_and(|before| now < before.next_at) {
                continue;
            }
            let told = tell(&replica, &due, before).await;
            tried.insert(model.clone(), told);
        }
        let next_at = tried.values().map(|told| told.next_at).min();
        tokio::select! {
            () = replica.reported.notified() => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = at(next_at) => {}
        }
    }
}

/// Has `replica` carry out a change that it was perhaps told before.
async fn tell(replica: &Replica, due: &Numbered, before: Option<&Tried>) -> Tried {
    let reason = catch_up(replica, due).await.err().unwrap_or_default();
    if !reason.is_empty() && before.is_none_or(|before| before.reason != reason) {
        let stage = &*replica.stage;
        warn!(stage, "a replica has not the models that were asked for: {reason}");
    }
    // Whether one that was carried out was enough is seen at the next look.
    let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
    Tried { number: due.number, reason, pause, next_at: Instant::now() + pause }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn catch_up(replica: &Replica, due: &Numbered) -> Result<(), String> {
    let model = &due.change.model;
    ask_for(replica, &due.change).await.map_err(|error| error.message().to_owned())?;
    replica.has_done(model, due.number);
    let (stage, address) = (&*replica.stage, replica.address);
    info!(stage, %address, model = &**model, "replica was brought to the models of the others");
    look_again(replica, model).await;
    Ok(())
}
