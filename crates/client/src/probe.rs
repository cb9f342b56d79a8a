//! Asks one replica again and again how it is and which models it serves.

use std::sync::Arc;
use std::time::Duration;

use consort_protocol::repository_index_response::ModelIndex;
use consort_protocol::{ModelConfigRequest, RepositoryIndexRequest, ServerReadyRequest};
use consort_repository::State;
use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::failure::reason;
use crate::plain;
use crate::replica::{Client, Replica};
use crate::report::{Description, Report, Reported, read_state};
use crate::signature;

/// How soon a replica that is not ready is asked again at first; later it takes twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A probe that has not been answered for so long counts as unanswered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A ready replica that leaves so many probes in a row unanswered cannot be called. One alone says
/// little: the answer may be waiting behind large tensors on a busy connection.
const UNANSWERED: usize = 3;

/// Asks `replica` once in `every`, and more often until it is ready.
///
/// Runs until it is dropped.
pub(crate) async fn probe(replica: Arc<Replica>, every: Duration) {
    let first_pause = FIRST_PAUSE.min(every);
    let mut pause = first_pause;
    let mut unanswered = 0;
    let mut expected = replica.expected.clone();
    for round in 0.. {
        let asking = replica.asking.lock().await;
        let answer = ask(&replica, Again::Round(round)).await;
        unanswered = if answer.is_none() { unanswered + 1 } else { 0 };
        match answer {
            Some(Ok(report)) => replica.note(report),
            Some(Err(status)) => replica.note_failure(reason(&status)),
            None if unanswered < UNANSWERED && replica.report().is_callable() => {}
            None => replica.note_failure(no_answer()),
        }
        drop(asking);
        let is_settled = unanswered == 0 && replica.report().is_settled();
        let now = if is_settled { every } else { pause };
        pause = if is_settled { first_pause } else { (pause * 2).min(every) };
        tokio::select! {
            () = sleep(now) => {}
            () = replica.suspected.notified() => {}
            Ok(()) = expected.changed() => {}
            // It is called again once it has said what it serves.
            () = replica.lost.notified() => replica.note_failure("the connection was lost".into()),
        }
    }
}

/// Asks `replica` once more after a change to `model`, and reads its configuration anew.
pub(crate) async fn look_again(replica: &Replica, model: &str) {
    let _asking = replica.asking.lock().await;
    // Whether it can be called at all is for its prober to find out.
    if let Some(Ok(report)) = ask(replica, Again::Model(model)).await {
        replica.note(report);
    }
}

/// Which configuration is read again although it is known.
#[derive(Clone, Copy)]
enum Again<'a> {
    /// That of another model in each round: one may be loaded again with another configuration
    /// while nobody looks.
    Round(usize),
    /// That of this model.
    Model(&'a str),
}

impl Again<'_> {
    /// Whether it is the one at `position` among `count`, which is called `name`.
    fn is(self, position: usize, count: usize, name: &str) -> bool {
        match self {
            Self::Round(round) => round.checked_rem(count) == Some(position),
            Self::Model(model) => model == name,
        }
    }
}

fn no_answer() -> String {
    format!("no answer within {ANSWER_TIMEOUT:?}")
}

/// What the replica says; `None` when it says nothing.
async fn ask(replica: &Replica, again: Again<'_>) -> Option<Result<Report, Status>> {
    let (mut client, mut same_client) = (replica.client(), replica.client());
    let answers = async {
        tokio::join!(
            client.server_ready(ServerReadyRequest {}),
            same_client.repository_index(RepositoryIndexRequest::default()),
        )
    };
    let models = match timeout(ANSWER_TIMEOUT, answers).await.ok()? {
        (Ok(ready), Ok(index)) => {
            let models = read_index(replica, index.into_inner().models, again).await;
            Ok((ready, models))
        }
        (Ok(ready), Err(status)) if plain::is_unknown_call(&status) => {
            let expected = replica.expected.borrow().names();
            let listed = timeout(ANSWER_TIMEOUT, plain::list(&mut client, &expected)).await.ok()?;
            listed.map(|models| (ready, models))
        }
        (Err(status), _) | (_, Err(status)) => Err(status),
    };
    Some(models.map(|(ready, models)| {
        let health = Report::health_of(ready.into_inner().ready, &models);
        Report { health, models }
    }))
}

/// What a replica's list says of its models, with their configurations.
async fn read_index(replica: &Replica, index: Vec<ModelIndex>, again: Again<'_>) -> Vec<Reported> {
    let last = replica.report();
    let mut models = Vec::with_capacity(index.len());
    let count = index.len();
    for (position, row) in index.into_iter().enumerate() {
        let known = last
            .find(&row.name, row.version.parse().ok())
            .and_then(|model| model.description.clone());
        let version = row.version.clone();
        let mut model = read_row(row);
        let is_again = again.is(position, count, &model.name);
        if model.state == State::Ready && (known.is_none() || is_again) {
            describe(replica, &mut model, &version, known).await;
        } else if model.state == State::Ready {
            model.description = known;
        }
        models.push(model);
    }
    models
}

fn read_row(row: ModelIndex) -> Reported {
    Reported {
        version: row.version.parse().ok(),
        state: read_state(&row.state),
        reason: row.reason,
        description: None,
        name: row.name.into(),
    }
}

/// Asks for the configuration of a model; without an answer what is known of it stays true.
async fn describe(
    replica: &Replica,
    model: &mut Reported,
    version: &str,
    known: Option<Arc<Description>>,
) {
    match read_description(&mut replica.client(), &model.name, version).await {
        Ok(description) => {
            if !description.is_versioned {
                model.version = Some(plain::ONLY_VERSION);
            }
            let labels = replica.label_files.read(&model.name, &description.config).await;
            model.description = Some(Arc::new(Description { labels, ..description }));
        }
        Err(_) if known.is_some() => model.description = known,
        Err(reason) => {
            model.state = State::Unavailable;
            model.reason = reason;
        }
    }
}

async fn read_description(
    client: &mut Client,
    model: &str,
    version: &str,
) -> Result<Description, String> {
    let request = ModelConfigRequest { name: model.into(), version: version.into() };
    let response = timeout(ANSWER_TIMEOUT, client.model_config(request)).await;
    let response = response.unwrap_or_else(|_| Err(Status::deadline_exceeded(no_answer())));
    let config = match response {
        Ok(response) => response.into_inner().config.unwrap_or_default(),
        Err(status) if plain::is_unknown_call(&status) => {
            let described = plain::read_description(client, model, version);
            return timeout(ANSWER_TIMEOUT, described).await.unwrap_or_else(|_| Err(no_answer()));
        }
        Err(status) => {
            return Err(format!("its configuration cannot be read: {}", reason(&status)));
        }
    };
    let signature = signature::read(&config).map_err(|error| error.message().to_owned())?;
    let (config, signature) = (Arc::new(config), Arc::new(signature));
    Ok(Description { config, signature, labels: Arc::default(), is_versioned: true })
}
