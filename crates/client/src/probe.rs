//! Asks one replica again and again how it is and which models it serves.

use std::sync::Arc;
use std::time::Duration;

use consort_protocol::repository_index_response::ModelIndex;
use consort_protocol::{ModelConfigRequest, RepositoryIndexRequest, ServerReadyRequest};
use consort_repository::State;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::failure::reason;
use crate::replica::{Client, Replica};
use crate::report::{Description, Report, Reported, read_state};
use crate::signature;

/// How soon a replica that is not ready is asked again at first; later it takes twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A replica that has not answered a probe for so long cannot be called.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks `replica` once in `every`, and more often until it is ready; wakes `changed` on news.
///
/// Runs until it is dropped.
pub(crate) async fn probe(replica: Arc<Replica>, every: Duration, changed: Arc<Notify>) {
    let mut pause = FIRST_PAUSE.min(every);
    for round in 0.. {
        let is_news = match timeout(ANSWER_TIMEOUT, ask(&replica, round)).await {
            Ok(Ok(report)) => replica.note(report),
            Ok(Err(status)) => replica.note_failure(reason(&status)),
            Err(_) => replica.note_failure(format!("no answer within {ANSWER_TIMEOUT:?}")),
        };
        if is_news {
            changed.notify_one();
        }
        let (now, next) = if replica.report().is_settled() {
            (every, FIRST_PAUSE.min(every))
        } else {
            (pause, (pause * 2).min(every))
        };
        pause = next;
        tokio::select! {
            () = sleep(now) => {}
            () = replica.suspected.notified() => {}
        }
    }
}

async fn ask(replica: &Replica, round: usize) -> Result<Report, Status> {
    let (mut client, mut same_client) = (replica.client(), replica.client());
    let (ready, index) = tokio::try_join!(
        client.server_ready(ServerReadyRequest {}),
        same_client.repository_index(RepositoryIndexRequest::default()),
    )?;
    let index = index.into_inner().models;
    let last = replica.report();
    let mut models = Vec::with_capacity(index.len());
    // A model may be loaded again with another configuration while nobody looks, so each round
    // asks for one that is known already.
    let again = round.checked_rem(index.len());
    for (position, row) in index.into_iter().enumerate() {
        let known = last
            .find(&row.name, row.version.parse().ok())
            .and_then(|model| model.description.clone())
            .filter(|_| again != Some(position));
        models.push(read_row(&mut client, row, known).await);
    }
    let health = Report::health_of(ready.into_inner().ready, &models);
    Ok(Report { health, models })
}

async fn read_row(
    client: &mut Client,
    row: ModelIndex,
    known: Option<Arc<Description>>,
) -> Reported {
    let mut model = Reported {
        version: row.version.parse().ok(),
        state: read_state(&row.state),
        reason: row.reason,
        description: None,
        name: row.name.into(),
    };
    if model.state != State::Ready {
        return model;
    }
    let description = match known {
        Some(known) => Ok(known),
        None => describe(client, &model.name, row.version).await,
    };
    match description {
        Ok(description) => model.description = Some(description),
        Err(reason) => {
            model.state = State::Unavailable;
            model.reason = reason;
        }
    }
    model
}

async fn describe(
    client: &mut Client,
    name: &str,
    version: String,
) -> Result<Arc<Description>, String> {
    let name = name.to_owned();
    let response = client.model_config(ModelConfigRequest { name, version }).await;
    let config = response
        .map_err(|status| format!("its configuration cannot be read: {}", reason(&status)))?
        .into_inner()
        .config
        .unwrap_or_default();
    let signature = signature::read(&config).map_err(|error| error.message().to_owned())?;
    Ok(Arc::new(Description { config: Arc::new(config), signature: Arc::new(signature) }))
}
