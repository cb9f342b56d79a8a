//! Loads and unloads reach every replica, those included that were not there at the time.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use consort_client::Fleet;
use consort_repository::{Change, Models, State};
use consort_stage::{Code, Error, Result};
use tokio::sync::watch;

use crate::fake::Fake;
use crate::models::{Listed, addresses, options, ready_fleet, until};

/// A service that knows `m` and has not loaded it, and `own`, by which it is told from others.
fn unloaded(own: &str) -> Fake {
    let fake = Fake::start(&[own, "m"]);
    fake.state.forget("m");
    fake
}

/// A fleet of these services once it has heard of each of their own models.
async fn fleet_that_knows(fakes: &[&Fake], own: &[&str]) -> Arc<Fleet> {
    let fleet = ready_fleet(fakes).await;
    until(|| own.iter().all(|model| fleet.get(model, None).is_ok())).await;
    fleet
}

async fn load(fleet: &Fleet) -> Result<()> {
    load_model(fleet, "m").await
}

async fn load_model(fleet: &Fleet, model: &str) -> Result<()> {
    fleet.control(Change::load(model, Some("{}".into()), Vec::new())?).await
}

async fn unload(fleet: &Fleet) -> Result<()> {
    fleet.control(Change::unload("m", false)?).await
}

fn changes(fake: &Fake) -> Vec<String> {
    fake.state.changes.lock().clone()
}

#[tokio::test]
async fn a_change_reaches_every_replica_that_knows_the_model_and_is_seen_at_once() {
    let (one, two, stranger) = (unloaded("one"), unloaded("two"), Fake::start(&["other"]));
    let fleet = fleet_that_knows(&[&one, &two, &stranger], &["one", "two", "other"]).await;
    assert!(fleet.get("m", None).is_err());
    load(&fleet).await.unwrap();
    assert!(fleet.get("m", None).is_ok());
    assert_eq!([changes(&one), changes(&two)], [["load m 1"], ["load m 1"]]);
    assert!(changes(&stranger).is_empty());
    unload(&fleet).await.unwrap();
    assert_eq!(fleet.get("m", None).err().map(|error| error.code()), Some(Code::NotFound));
    let rows = fleet.index().into_iter().filter(|row| &*row.name == "m");
    let rows: Vec<_> = rows.map(|row| (row.state, row.reason)).collect();
    assert_eq!(rows, [(State::Unavailable, "unloaded".to_owned())]);
}

#[tokio::test]
async fn a_model_that_nobody_knows_is_not_loaded_and_need_not_be_unloaded() {
    let fake = unloaded("one");
    let fleet = ready_fleet(&[&fake]).await;
    let error = fleet.control(Change::load("none", None, Vec::new()).unwrap()).await.unwrap_err();
    assert_eq!(error.message(), "failed to load 'none', failed to poll from model repository");
    fleet.control(Change::unload("none", false).unwrap()).await.unwrap();
    assert!(changes(&fake).is_empty());
}

#[tokio::test]
async fn a_refusal_names_the_replica_and_nothing_is_remembered() {
    let fake = unloaded("one");
    fake.state.is_fixed.store(true, SeqCst);
    let fleet = ready_fleet(&[&fake]).await;
    let error = load(&fleet).await.unwrap_err();
    let expected = format!("service 'model' ({}): not while polling is enabled", fake.address);
    assert_eq!((error.code(), error.message()), (Code::Unavailable, &*expected));
}

#[tokio::test]
async fn what_some_replicas_have_done_the_others_are_made_to_do() {
    let (one, two) = (unloaded("one"), unloaded("two"));
    two.state.is_fixed.store(true, SeqCst);
    let fleet = fleet_that_knows(&[&one, &two], &["one", "two"]).await;
    let error: Error = load(&fleet).await.unwrap_err();
    let expected = format!(
        "1 of 2 replicas have changed model 'm', but service 'model' ({}): not while polling is \
         enabled",
        two.address
    );
    assert_eq!(error.message(), expected);
    assert!(fleet.get("m", None).is_ok());
    two.state.is_fixed.store(false, SeqCst);
    until(|| two.state.index.lock().iter().any(|row| row.name == "m" && row.state == "READY"))
        .await;
}

#[tokio::test]
async fn a_model_that_keeps_failing_on_a_replica_holds_up_no_other() {
    let [one, two] = ["one", "two"].map(|own| {
        let fake = unloaded(own);
        fake.state.forget("n");
        fake
    });
    two.state.refusals.lock().extend([("m".to_owned(), usize::MAX), ("n".to_owned(), 1)]);
    let fleet = fleet_that_knows(&[&one, &two], &["one", "two"]).await;
    assert!(load(&fleet).await.is_err());
    // Told with the others, at once once more, and after a second: the next time is after two more.
    until(|| changes(&two).len() == 3).await;
    assert!(load_model(&fleet, "n").await.is_err());
    until(|| changes(&two).len() == 5).await;
    assert_eq!(changes(&two)[3..], ["load n 1", "load n 1"]);
    until(|| changes(&two).len() == 6).await;
    assert_eq!(changes(&two)[5], "load m 1");
}

#[tokio::test]
async fn a_replica_that_joins_or_comes_back_is_brought_to_the_same_models() {
    let (one, late) = (unloaded("one"), unloaded("late"));
    let (listed, found) = watch::channel(Ok(addresses(&[&one])));
    let fleet = Fleet::start_with(vec![("model".into(), Box::new(Listed(found)))], options());
    until(|| fleet.is_ready()).await;
    load(&fleet).await.unwrap();
    drop(listed.send_replace(Ok(addresses(&[&one, &late]))));
    until(|| changes(&late) == ["load m 1"]).await;
    // Another process at the same address, which has loaded nothing.
    late.state.forget("m");
    until(|| changes(&late) == ["load m 1", "load m 1"]).await;
    // Whoever unloads it there on purpose is not overruled.
    {
        let mut index = late.state.index.lock();
        for row in index.iter_mut().filter(|row| row.name == "m") {
            (row.state, row.reason) = ("UNAVAILABLE".into(), "unloaded".into());
        }
    }
    unload(&fleet).await.unwrap();
    assert_eq!(changes(&late), ["load m 1", "load m 1", "unload m 1"]);
    assert_eq!(changes(&one), ["load m 1", "unload m 1"]);
}
