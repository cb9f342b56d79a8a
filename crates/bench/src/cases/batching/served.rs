//! `embed` as it ships, in one process or in four, and its callers.

use anyhow::{Result, ensure};
use consort_protocol::ModelInferResponse;

use crate::cases::Settings;
use crate::cases::embed::{MODELS, request};
use crate::load::grpc::GrpcCaller;
use crate::load::{ByTurns, Caller, Contender, grpc};
use crate::program::{Launch, Program};
use crate::repository::Repository;

/// The stage services, and the models that each of them has.
const STAGES: [(&str, &str); 3] = [
    ("consort-preprocess", "minilm_tokenize"),
    ("consort-model", "minilm"),
    ("consort-postprocess", "minilm_pool"),
];

/// How many calls each caller makes before anything is measured.
const WARM_UP: usize = 20;

/// Running programs that serve `embed`.
pub(super) struct Served {
    pub(super) name: &'static str,
    front: Program,
    behind: Vec<Program>,
    _repositories: Vec<Repository>,
}

impl Served {
    /// One process over the shipped models.
    pub(super) fn shipped(settings: &Settings) -> Result<Self> {
        let mut repository = Repository::new()?;
        for model in MODELS {
            repository = repository.linked(&settings.models, model)?;
        }
        Self::together(settings, repository)
    }

    /// The same with something replaced in the configuration of one model.
    pub(super) fn altered(settings: &Settings, name: &str, from: &str, to: &str) -> Result<Self> {
        let mut repository = Repository::new()?;
        for model in MODELS {
            repository = if model == name {
                repository.altered(&settings.models, model, from, to)?
            } else {
                repository.linked(&settings.models, model)?
            };
        }
        Self::together(settings, repository)
    }

    fn together(settings: &Settings, repository: Repository) -> Result<Self> {
        let front = Launch::serve(&settings.programs, repository.path()).start()?;
        Ok(Self { name: "one process", front, behind: vec![], _repositories: vec![repository] })
    }

    /// A gateway and three services over the shipped models.
    pub(super) fn apart(settings: &Settings) -> Result<Self> {
        let (mut behind, mut repositories) = (Vec::new(), Vec::new());
        for (service, model) in STAGES {
            let repository = Repository::new()?.linked(&settings.models, model)?;
            behind.push(Launch::stage(&settings.programs, service, repository.path()).start()?);
            repositories.push(repository);
        }
        let ensembles = Repository::new()?.linked(&settings.models, "embed")?;
        let stages: Vec<_> = behind.iter().collect();
        let front = Launch::gateway(&settings.programs, &stages, ensembles.path()).start()?;
        repositories.push(ensembles);
        Ok(Self { name: "four processes", front, behind, _repositories: repositories })
    }

    /// Callers who each send these sentences by turns, beginning at different ones.
    pub(super) async fn callers(
        &self,
        sentences: &[&str],
        count: usize,
    ) -> Result<Contender<'_, ByTurns<GrpcCaller>>> {
        let mut by_sentence = Vec::new();
        for sentence in sentences {
            let request = request(sentence);
            by_sentence.push(grpc::callers(self.front.grpc, count, &request, is_vector).await?);
        }
        let mut callers = Vec::new();
        for next in 0..count {
            let own = by_sentence.iter_mut().filter_map(Vec::pop).collect::<Vec<_>>();
            ensure!(own.len() == sentences.len(), "each caller has each sentence");
            callers.push(ByTurns { callers: own, next });
        }
        for caller in &mut callers {
            for _ in 0..WARM_UP {
                caller.call().await?;
            }
        }
        let programs = [&self.front].into_iter().chain(&self.behind).collect();
        Ok(Contender { name: self.name.into(), callers, programs })
    }
}

/// Whether an answer holds one vector of length 1.
fn is_vector(answer: &ModelInferResponse) -> bool {
    let [data] = &answer.raw_output_contents[..] else { return false };
    let elements = data.as_chunks::<4>().0.iter().map(|element| f32::from_le_bytes(*element));
    let square: f32 = elements.map(|element| element * element).sum();
    (square - 1.0).abs() < 1e-3
}
