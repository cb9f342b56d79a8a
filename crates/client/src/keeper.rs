//! Brings one replica to the set of models that callers have loaded, when it joins or comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::control::ask_for;
use crate::probe::look_again;
use crate::replica::Replica;
use crate::wanted::{Numbered, Wanted};

/// How soon it is looked at again after a change at first; while that fails it takes twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A change that keeps failing is tried once in so long.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Carries out what `replica` has missed, again and again until it is dropped.
pub(crate) async fn keep(replica: Arc<Replica>, wanted: Arc<Wanted>) {
    let mut changes = wanted.changes();
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        changes.mark_unchanged();
        let due = wanted.due(&replica);
        if due.is_empty() {
            (pause, said) = (FIRST_PAUSE, String::new());
            tokio::select! {
                () = replica.reported.notified() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
            continue;
        }
        for due in due {
            let Err(reason) = catch_up(&replica, &due).await else { continue };
            if said != reason {
                let stage = &*replica.stage;
                warn!(stage, "a replica has not the models that were asked for: {reason}");
                said = reason;
            }
        }
        // Whether that was enough is seen at the next look.
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
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
