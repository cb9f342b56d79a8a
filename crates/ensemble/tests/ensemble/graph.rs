//! Short ways to state, check, build and run an ensemble in a test.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_ensemble::{Defect, Edge, Ensemble, Plan, Spec, StepSpec, check};
use consort_stage::{Request, Response, Result, Signature, Stage, Tensor};
use consort_testkit::signature;
use futures::StreamExt;

/// An ensemble on its way: its own signature, the models it may use and its steps.
#[derive(Clone)]
pub(crate) struct Graph {
    pub(crate) spec: Spec,
    models: BTreeMap<String, Arc<Signature>>,
    stages: BTreeMap<String, Arc<dyn Stage>>,
}

/// An ensemble named `e` with this signature and no step.
pub(crate) fn ensemble(own: &str) -> Graph {
    Graph {
        spec: Spec {
            name: "e".into(),
            signature: signature(own),
            steps: Vec::new(),
            max_inflight_requests: 0,
        },
        models: BTreeMap::new(),
        stages: BTreeMap::new(),
    }
}

impl Graph {
    /// Adds a model that steps may use, without a stage.
    pub(crate) fn model(mut self, name: &str, own: &str) -> Self {
        self.models.insert(name.to_owned(), Arc::new(signature(own)));
        self
    }

    /// Adds a model with the stage that stands in for it.
    pub(crate) fn runs(mut self, name: &str, own: &str, stage: Arc<dyn Stage>) -> Self {
        self.stages.insert(name.to_owned(), stage);
        self.model(name, own)
    }

    /// Adds a step: `step("tokenizer", "TEXT=text -> IDS=ids")`.
    pub(crate) fn step(mut self, model: &str, edges: &str) -> Self {
        let (inputs, outputs) = edges.split_once("->").unwrap();
        let (model, version) = match model.split_once('@') {
            Some((model, version)) => (model, Some(version.parse().unwrap())),
            None => (model, None),
        };
        self.spec.steps.push(StepSpec {
            model: model.into(),
            version,
            inputs: read_edges(inputs),
            outputs: read_edges(outputs),
        });
        self
    }

    /// Lets so many responses of a streaming step be in flight.
    pub(crate) fn inflight(mut self, most: u32) -> Self {
        self.spec.max_inflight_requests = most;
        self
    }

    pub(crate) fn check(&self) -> Result<Plan, Vec<Defect>> {
        check(&self.spec, &|model, _| self.models.get(model).cloned())
    }

    /// Every defect on a line of its own.
    pub(crate) fn defects(&self) -> String {
        let defects = self.check().expect_err("the ensemble is refused");
        let lines: Vec<String> = defects.iter().map(ToString::to_string).collect();
        lines.join("\n") + "\n"
    }

    /// The checked plan in a few lines: for each step and response, what it descends from.
    pub(crate) fn plan(&self) -> String {
        let plan = self.check().unwrap_or_else(|defects| panic!("refused: {defects:#?}"));
        let tensors = |inputs: &[consort_ensemble::PlannedInput]| {
            let names = inputs.iter().map(|input| plan.tensors[input.tensor].name.to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        let mut lines = vec![format!("decoupled: {}", plan.signature.is_decoupled)];
        for step in &plan.steps {
            let made = step.outputs.iter().map(|output| {
                let tensor = &plan.tensors[output.tensor];
                format!("{} {:?}", tensor.name, tensor.lineage)
            });
            let made = made.collect::<Vec<_>>().join(", ");
            let read = tensors(&step.inputs);
            lines.push(format!("{} {:?}: {read} -> {made}", step.model, step.lineage));
        }
        for group in plan.outputs.iter() {
            lines.push(format!("response {:?}: {}", group.lineage, tensors(&group.outputs)));
        }
        lines.join("\n") + "\n"
    }

    /// The ensemble, ready to be called.
    pub(crate) fn build(&self) -> Ensemble {
        let plan = self.check().unwrap_or_else(|defects| panic!("refused: {defects:#?}"));
        let step = |step: &StepSpec| self.stages[&*step.model].clone();
        Ensemble::new(Arc::new(plan), self.spec.steps.iter().map(step).collect())
    }
}

fn read_edges(text: &str) -> Vec<Edge> {
    let edge = |pair: &str| {
        let (model_tensor, ensemble_tensor) = pair.split_once('=').unwrap();
        Edge { model_tensor: model_tensor.into(), ensemble_tensor: ensemble_tensor.into() }
    };
    text.split_whitespace().map(edge).collect()
}

/// A tensor of one number.
pub(crate) fn number(name: &str, value: i32) -> Tensor {
    Tensor::from_vec(name, &[1], vec![value])
}

/// The number in a tensor.
pub(crate) fn value(tensor: &Tensor) -> i32 {
    tensor.to_slice::<i32>().unwrap()[0]
}

pub(crate) fn request(inputs: Vec<Tensor>) -> Request {
    Request { id: "7".into(), inputs, ..Request::default() }
}

/// The names and numbers of a response, such as `a=1 b=2`, with a full stop behind the last.
pub(crate) fn shown(response: &Response) -> String {
    let each = response.outputs.iter().map(|output| format!("{}={}", output.name, value(output)));
    let end = if response.is_last { "." } else { "" };
    each.collect::<Vec<_>>().join(" ") + end
}

/// Every response to a request, as [`shown`]; the message of an error.
pub(crate) async fn answers(stage: &dyn Stage, inputs: Vec<Tensor>) -> Vec<String> {
    let show = |item: Result<Response>| match item {
        Ok(response) => shown(&response),
        Err(error) => error.message().to_owned(),
    };
    stage.call(request(inputs)).map(show).collect().await
}
