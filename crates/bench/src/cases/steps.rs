//! Three `identity` steps in one ensemble: what a step costs in one process and over three services.

use anyhow::Result;

use super::{Settings, identity_request, is_identity};
use crate::load::{Contender, InTurn, grpc, interleave};
use crate::program::{Launch, Program};
use crate::report::{Section, Verdict};
use crate::repository::Repository;
use crate::sample::{Sample, Series, micros};

const ENSEMBLE: &str = "chain";
const MODELS: [&str; 3] = ["first", "second", "third"];
const SERVICES: [&str; 3] = ["consort-preprocess", "consort-model", "consort-postprocess"];

/// Measures one caller's latency beside that of bare calls.
pub(super) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let mut whole = Repository::new()?.chain(ENSEMBLE, &MODELS)?;
    for model in MODELS {
        whole = whole.identity(model)?;
    }
    let together = Launch::serve(&settings.programs, whole.path()).start()?;
    let apart = Apart::start(settings)?;
    let echoes = (0..=MODELS.len()).map(|_| Program::echo()).collect::<Result<Vec<_>>>()?;

    let contenders = [
        ("bare tonic echo", vec![&echoes[0]], vec![&echoes[0]]),
        ("four bare tonic echoes in turn", echoes.iter().collect(), echoes.iter().collect()),
        ("one process", vec![&together], vec![&together]),
        ("gateway and three services", vec![&apart.gateway], apart.programs()),
    ];
    let request = identity_request(ENSEMBLE);
    let mut measured = Vec::new();
    for (name, called, programs) in contenders {
        let mut callers = Vec::new();
        for program in called {
            callers.extend(grpc::callers(program.grpc, 1, &request, is_identity).await?);
        }
        measured.push(Contender { name: name.into(), callers: vec![InTurn(callers)], programs });
    }
    let measured = interleave(measured, settings.rounds, settings.time).await?;
    let [bare, four, together, apart] = &measured[..] else {
        unreachable!("four contenders were given");
    };
    let mut section = Section::of_contenders(title);
    section.contenders(&measured, bare);
    section.judge(latency("one process", together, 0.15));
    section.judge(latency("three services", apart, 0.60));
    // Four processes that sleep in between answer more slowly than one that is always awake, and
    // a busy machine slows them further; against bare echoes in the same place that cancels out.
    let what = "the same to four bare tonic echoes in turn";
    section.judge(Verdict::at_most(what, apart.ratio(four, p50), 0.60 / (4.0 * 0.09), "×"));
    Ok(section)
}

fn latency(place: &str, series: &Series, bar: f64) -> Verdict {
    let what = format!("three `identity` steps, {place}, p50");
    Verdict::at_most(what, series.median(p50) / 1000.0, bar, "ms")
}

fn p50(sample: &Sample) -> f64 {
    micros(sample.quantile(0.5))
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
