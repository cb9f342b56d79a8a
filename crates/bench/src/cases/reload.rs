//! Reloads a model again and again while it is called: what fails, and what is left behind.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consort_protocol::grpc_inference_service_client::GrpcInferenceServiceClient;
use consort_protocol::model_repository_parameter::ParameterChoice;
use consort_protocol::{ModelRepositoryParameter, RepositoryModelLoadRequest};
use futures::future::join_all;
use tonic::transport::Channel;

use super::{Settings, identity_request, is_identity};
use crate::program::{Launch, Program};
use crate::report::{Section, Verdict, number};
use crate::repository::{Repository, WIDTH};

const STEP: &str = "step";
const ENSEMBLE: &str = "ensemble";
const RELOADS: usize = 200;
const CALLERS: usize = 4;
/// The reloads before memory is first read: pools and caches are filled by then.
const WARM: usize = 40;
/// After which what a reload leaves behind has settled.
const SETTLED: Duration = Duration::from_secs(2);

type Client = GrpcInferenceServiceClient<Channel>;

/// What the callers have seen.
#[derive(Default)]
struct Seen {
    is_over: Cell<bool>,
    answers: Cell<usize>,
    failures: Cell<usize>,
}

/// Counts failed requests over many reloads, and memory and threads before and after.
pub(super) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let repository = Repository::new()?.identity(STEP)?.chain(ENSEMBLE, &[STEP])?;
    let server = Launch::serve(&settings.programs, repository.path()).explicit().start()?;
    let mut control = connect(&server).await?;
    let seen = Seen::default();
    let callers = join_all((0..CALLERS).map(|_| call(&server, &seen)));
    let reloads = async {
        let measured = reload(&server, &mut control).await;
        seen.is_over.set(true);
        measured
    };
    let (called, measured) = futures::join!(callers, reloads);
    called.into_iter().collect::<Result<()>>()?;
    let Measured { took, before } = measured?;
    tokio::time::sleep(SETTLED).await;
    let after = (server.resident()?, server.threads()?);
    let grown = (after.0 as f64 - before.0 as f64) / 1e6;
    let mut section = Section::new(title, &["", ""]);
    section.row(["reloads".into(), RELOADS.to_string()]);
    section.row(["one reload, ms".into(), number(took.as_secs_f64() * 1e3 / RELOADS as f64)]);
    section.row(["answers meanwhile".into(), seen.answers.get().to_string()]);
    section.row(["failed requests".into(), seen.failures.get().to_string()]);
    section.row(["memory after 40 reloads, MB".into(), number(before.0 as f64 / 1e6)]);
    section.row(["memory at the end, MB".into(), number(after.0 as f64 / 1e6)]);
    section.row(["threads after 40 reloads".into(), before.1.to_string()]);
    section.row(["threads at the end".into(), after.1.to_string()]);
    let failures = seen.failures.get() as f64;
    section.judge(Verdict::at_most("failed requests over 200 reloads", failures, 0.0, ""));
    section.judge(Verdict::at_most("memory that 160 reloads add", grown, 5.0, "MB"));
    Ok(section)
}

/// What the reloads took, with memory and threads once it was warm.
struct Measured {
    took: Duration,
    before: (u64, usize),
}

async fn reload(server: &Program, control: &mut Client) -> Result<Measured> {
    let begun_at = Instant::now();
    let mut before = (0, 0);
    for round in 0..RELOADS {
        if round == WARM {
            before = (server.resident()?, server.threads()?);
        }
        control.repository_model_load(another(round)).await.context("a reload failed")?;
    }
    Ok(Measured { took: begun_at.elapsed(), before })
}

/// A configuration that no round before had, so that it is loaded in earnest.
fn another(round: usize) -> RepositoryModelLoadRequest {
    let tensor = |name: &str| {
        format!(r#"[{{"name": "{name}", "data_type": "TYPE_FP32", "dims": [{WIDTH}]}}]"#)
    };
    let config = format!(
        r#"{{"backend": "identity", "max_batch_size": 8, "input": {}, "output": {},
            "parameters": {{"round": {{"string_value": "{round}"}}}}}}"#,
        tensor("INPUT0"),
        tensor("OUTPUT0")
    );
    let parameter_choice = Some(ParameterChoice::StringParam(config));
    RepositoryModelLoadRequest {
        model_name: STEP.into(),
        parameters: [("config".to_owned(), ModelRepositoryParameter { parameter_choice })].into(),
        ..RepositoryModelLoadRequest::default()
    }
}

/// Calls the ensemble until the reloads are over.
async fn call(server: &Program, seen: &Seen) -> Result<()> {
    let mut client = connect(server).await?;
    while !seen.is_over.get() {
        let answer = client.model_infer(identity_request(ENSEMBLE)).await;
        let is_right = answer.is_ok_and(|answer| is_identity(answer.get_ref()));
        let counter = if is_right { &seen.answers } else { &seen.failures };
        counter.set(counter.get() + 1);
    }
    Ok(())
}

async fn connect(server: &Program) -> Result<Client> {
    let address = format!("http://127.0.0.1:{}", server.grpc);
    Client::connect(address).await.context("cannot connect to the server")
}
