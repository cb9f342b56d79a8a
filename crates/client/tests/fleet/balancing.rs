//! Which replica gets a call, and who gets it when that replica cannot be reached.

use std::time::Duration;

use consort_client::{Discovery, Fleet, FleetOptions};
use consort_repository::Models;
use consort_stage::Code;
use consort_telemetry::Outcome;
use futures::StreamExt;
use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::calls::{ask, request, values};
use crate::fake::Fake;
use crate::models::{Listed, addresses, fleet_of, options, ready_fleet, until};

#[tokio::test]
async fn a_call_goes_to_the_replica_with_the_least_in_flight() {
    let (one, two) = (Fake::start(&["stall"]), Fake::start(&["stall"]));
    let fleet = ready_fleet(&[&one, &two]).await;
    let stage = &fleet.get("stall", None).unwrap().stage;
    // A stage is ready with its first replica; here both must be.
    while one.calls() == 0 || two.calls() == 0 {
        stage.call(request(1)).next().await.unwrap().unwrap();
    }
    let warm = (one.calls(), two.calls());
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut responses = stage.call(request(1));
        responses.next().await.unwrap().unwrap();
        open.push(responses);
    }
    assert_eq!((one.calls() - warm.0, two.calls() - warm.1), (3, 3));
    // Which of the two got the first call decides whose calls these are.
    for index in [4, 2, 0] {
        drop(open.remove(index));
    }
    let before = (one.calls(), two.calls());
    for _ in 0..3 {
        let mut responses = stage.call(request(1));
        responses.next().await.unwrap().unwrap();
        open.push(responses);
    }
    let more = (one.calls() - before.0, two.calls() - before.1);
    assert!(more == (3, 0) || more == (0, 3), "{more:?}");
}

#[tokio::test]
async fn replicas_with_equally_much_to_do_take_turns() {
    let fakes = [(); 3].map(|()| Fake::start(&["echo"]));
    let fleet = ready_fleet(&fakes.each_ref()).await;
    let stage = &fleet.get("echo", None).unwrap().stage;
    // One ready replica is enough for the fleet.
    for fake in &fakes {
        until_called(stage, fake).await;
    }
    let before = fakes.each_ref().map(Fake::calls);
    for _ in 0..30 {
        ask(&**stage, 0).await.unwrap();
    }
    assert_eq!(fakes.each_ref().map(Fake::calls), before.map(|calls| calls + 10));
}

#[tokio::test]
async fn replicas_come_and_go_without_losing_a_call() {
    let fakes = [(); 2].map(|()| Fake::start(&["gated"]));
    let (sender, receiver) = watch::channel(Ok(addresses(&[&fakes[0]])));
    let listed: Box<dyn Discovery> = Box::new(Listed(receiver));
    let fleet = Fleet::start_with(vec![("model".into(), listed)], options());
    until(|| fleet.is_ready()).await;
    let stage = fleet.get("gated", None).unwrap().stage.clone();
    let generation = *fleet.generation().borrow();

    let held = stage.clone();
    let running = tokio::spawn(async move { ask(&*held, 1).await });
    until(|| fakes[0].calls() == 1).await;
    // The first has one in flight, so the second gets what comes as soon as it is known.
    sender.send(Ok(addresses(&[&fakes[0], &fakes[1]]))).unwrap();
    fakes[1].state.gate.add_permits(100);
    fakes[0].state.gate.add_permits(1);
    running.await.unwrap().unwrap();
    fakes[0].state.gate.add_permits(100);
    until_called(&stage, &fakes[1]).await;
    assert_eq!(*fleet.generation().borrow(), generation, "the models are the same");

    fakes[1].state.gate.forget_permits(200);
    let held = stage.clone();
    let calls = fakes.each_ref().map(Fake::calls);
    let running = [(); 2].map(|()| {
        let held = held.clone();
        tokio::spawn(async move { ask(&*held, 2).await })
    });
    until(|| fakes[1].calls() > calls[1]).await;
    sender.send(Ok(addresses(&[&fakes[0]]))).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    fakes[1].state.gate.add_permits(1);
    for call in running {
        assert_eq!(values(&call.await.unwrap().unwrap()), [2], "it went on to its end");
    }
}

async fn until_called(stage: &std::sync::Arc<dyn consort_stage::Stage>, fake: &Fake) {
    for _ in 0..1000 {
        ask(&**stage, 0).await.unwrap();
        if fake.calls() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the new replica is not called");
}

#[tokio::test]
async fn a_replica_whose_connection_ended_fails_no_call() {
    let fakes = [(); 2].map(|()| Fake::start(&["echo"]));
    let options = FleetOptions {
        // No probe may find out by chance.
        probe_every: Duration::from_hours(1),
        ..options()
    };
    let metrics = options.metrics.clone();
    let fleet = fleet_of(&[("model", &fakes.each_ref())], options);
    let stage = loop {
        until(|| fleet.is_ready()).await;
        let stage = fleet.get("echo", None).unwrap().stage.clone();
        join_all((0..4).map(|value| ask(&*stage, value))).await;
        if fakes.iter().all(|fake| fake.calls() > 0) {
            break stage;
        }
    };
    let [dead, alive] = fakes;
    let address = dead.address;
    kill(dead).await;
    let answers = join_all((0..50).map(|value| ask(&*stage, value))).await;
    for (value, answer) in answers.into_iter().enumerate() {
        assert_eq!(values(&answer.unwrap()), [value as i32]);
    }
    let meter = metrics.upstream("model", &address.to_string());
    // The end of the connection has woken the prober, so that later calls need not try.
    until(|| fleet.waiting_for().is_empty() && meter.in_flight() == 0).await;
    let mut failed = meter.ended(Outcome::Unavailable);
    for _ in 0..1000 {
        ask(&*stage, 0).await.unwrap();
        ask(&*stage, 0).await.unwrap();
        let now = meter.ended(Outcome::Unavailable);
        if now == failed {
            break;
        }
        failed = now;
    }
    assert_eq!(failed, meter.ended(Outcome::Unavailable));
    drop(alive);
}

/// Kills a service and waits until this side has seen its connections go.
///
/// What is sent on a connection before that may have arrived, so it is not sent again.
async fn kill(fake: Fake) {
    let address = fake.address;
    drop(fake);
    while TcpStream::connect(address).await.is_ok() {}
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test]
async fn a_call_that_nobody_can_take_is_unavailable() {
    let fake = Fake::start(&["echo"]);
    let options = FleetOptions { probe_every: Duration::from_hours(1), ..options() };
    let fleet = fleet_of(&[("model", &[&fake])], options);
    until(|| fleet.is_ready()).await;
    let stage = fleet.get("echo", None).unwrap().stage.clone();
    kill(fake).await;
    assert_eq!(ask(&*stage, 1).await.unwrap_err().code(), Code::Unavailable);
    until(|| !fleet.is_ready()).await;
    let error = ask(&*stage, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(error.message(), "no replica of service 'model' serves model 'echo' version 1 now");
}
