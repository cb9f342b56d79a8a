//! Three `identity` steps in one ensemble: what a step costs in one process and over three services.

use anyhow::Result;

use super::{Settings, identity_request, is_identity};
use crate::load::{Contender, grpc, interleave};
use crate::program::{Launch, Program};
use crate::report::{Section, Verdict};
use crate::repository::Repository;
use crate::sample::micros;

const ENSEMBLE: &str = "chain";
const MODELS: [&str; 3] = ["first", "second", "third"];
const SERVICES: [&str; 3] = ["consort-preprocess", "consort-model", "consort-postprocess"];

/// Measures one caller's latency beside one bare call.
pub(super) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let mut whole = Repository::new()?.chain(ENSEMBLE, &MODELS)?;
    for model in MODELS {
        whole = whole.identity(model)?;
    }
    let together = Launch::serve(&settings.programs, whole.path()).start()?;
    let apart = Apart::start(settings)?;
    let echo = Program::echo()?;

    let processes = apart.programs();
    let contenders = [
        ("bare tonic echo, one call", vec![&echo], echo.grpc),
        ("one process", vec![&together], together.grpc),
        ("gateway and three services", processes, apart.gateway.grpc),
    ];
    let request = identity_request(ENSEMBLE);
    let mut measured = Vec::new();
    for (name, programs, port) in contenders {
        let callers = grpc::callers(port, 1, &request, is_identity).await?;
        measured.push(Contender { name: name.into(), callers, programs });
    }
    let measured = interleave(measured, settings.rounds, settings.time).await?;
    let [bare, together, apart] = &measured[..] else {
        unreachable!("three contenders were given");
    };
    let mut section = Section::of_contenders(title);
    section.contenders(&measured, bare);
    for (series, place, bar) in [(together, "one process", 0.15), (apart, "three services", 0.60)] {
        let p50 = |sample: &crate::sample::Sample| micros(sample.quantile(0.5));
        let what = format!("three `identity` steps, {place}, p50");
        section.judge(Verdict::at_most(&what, series.median(p50) / 1000.0, bar, "ms"));
        // A bare call took 0.09 ms where the bars were set; on a busy machine that ratio is left.
        let what = format!("{what}, to one bare tonic call");
        section.judge(Verdict::at_most(what, series.ratio(bare, p50), bar / 0.09, "×"));
    }
    Ok(section)
}

/// A gateway before three stage services with one model each.
pub(super) struct Apart {
    pub(super) gateway: Program,
    pub(super) stages: Vec<Program>,
    _repositories: Vec<Repository>,
}

impl Apart {
    /// Starts them.
    pub(super) fn start(settings: &Settings) -> Result<Self> {
        let mut repositories = Vec::new();
        let mut stages = Vec::new();
        for (service, model) in SERVICES.into_iter().zip(MODELS) {
            let repository = Repository::new()?.identity(model)?;
            stages.push(Launch::stage(&settings.programs, service, repository.path()).start()?);
            repositories.push(repository);
        }
        let ensembles = Repository::new()?.chain(ENSEMBLE, &MODELS)?;
        let ports: Vec<_> = stages.iter().collect();
        let gateway = Launch::gateway(&settings.programs, &ports, ensembles.path()).start()?;
        repositories.push(ensembles);
        Ok(Self { gateway, stages, _repositories: repositories })
    }

    fn programs(&self) -> Vec<&Program> {
        [&self.gateway].into_iter().chain(&self.stages).collect()
    }

    /// The name of each service, in the order of the stages.
    pub(super) fn names() -> [&'static str; 3] {
        SERVICES
    }
}
