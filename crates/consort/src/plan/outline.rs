//! A plan as it is shown, whatever the form: boxes in the order they run and lines between them.

use std::collections::BTreeMap;

use consort_ensemble::{Plan, PlannedInput, PlannedStep, Source, StepIndex, TensorIndex};
use consort_stage::{ShapeText, TensorSpec};

use crate::check::Inspected;

/// A plan as it is shown.
pub(super) struct Outline {
    /// The ensemble.
    pub(super) name: String,
    /// What is worth saying of it in a line, such as `batches up to 8`.
    pub(super) remarks: Vec<String>,
    /// The request, every step in its plan's order, and the response.
    pub(super) boxes: Vec<Box>,
    /// The steps in the order they can run; those of one wave can run side by side.
    pub(super) waves: Vec<Vec<StepIndex>>,
    /// Every tensor from where it is made to where it goes.
    pub(super) lines: Vec<Line>,
}

/// What makes or takes tensors.
pub(super) struct Box {
    /// What it is called.
    pub(super) title: String,
    /// What is worth saying of it.
    pub(super) remarks: Vec<String>,
    /// What it takes.
    pub(super) inputs: Vec<Port>,
    /// What it gives.
    pub(super) outputs: Vec<Port>,
}

/// One input or output of a box.
pub(super) struct Port {
    /// The tensor's name there.
    pub(super) name: String,
    /// Type and shape, such as `FP32[-1,384]`.
    pub(super) kind: String,
    /// Whether it may be left out.
    pub(super) is_optional: bool,
}

/// One tensor on its way.
pub(super) struct Line {
    /// Its name in the ensemble.
    pub(super) tensor: String,
    /// The box and its output.
    pub(super) from: (BoxIndex, usize),
    /// The box and its input.
    pub(super) to: (BoxIndex, usize),
    /// How often it comes.
    pub(super) flow: Flow,
    /// Whether it has a batch dimension where it is made, and where it goes.
    pub(super) is_batched: (bool, bool),
}

/// The index of a box: 0 is the request, step `i` is `i + 1`, the response is the last.
pub(super) type BoxIndex = usize;

/// How often a tensor comes to whoever takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// Once.
    Once,
    /// With every response of a streaming step.
    Streaming,
    /// Once, and it is held and given to every response of a streaming step.
    Held,
}

impl Flow {
    /// What is said of it; nothing of what comes once.
    pub(super) fn remark(self) -> Option<&'static str> {
        match self {
            Self::Once => None,
            Self::Streaming => Some("streaming"),
            Self::Held => Some("held"),
        }
    }
}

impl Port {
    /// What is shown behind the name.
    pub(super) fn suffix(&self) -> String {
        let optional = if self.is_optional { "?" } else { "" };
        format!("{}{optional}", self.kind)
    }

    /// All that is shown.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.name, self.suffix())
    }
}

impl Outline {
    /// Whether a tensor has another name in the ensemble than where it is made.
    pub(super) fn is_renamed(&self, line: &Line) -> bool {
        self.boxes[line.from.0].outputs[line.from.1].name != line.tensor
    }

    /// The outline of a plan over these models.
    pub(super) fn of(plan: &Plan, models: &BTreeMap<String, Inspected>) -> Self {
        let waves = waves(plan);
        let mut plan = plan.clone();
        sort_ports(&mut plan, &waves, models);
        let plan = &plan;
        let mut boxes = vec![request(plan)];
        let mut lines = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            boxes.push(step_box(plan, index, step, models));
            for (port, input) in step.inputs.iter().enumerate() {
                lines.push(line(plan, input, step.lineage.len(), (index + 1, port)));
            }
        }
        for (port, spec) in plan.signature.outputs.iter().enumerate() {
            if let Some((output, depth)) = sent(plan, spec) {
                lines.push(line(plan, output, depth, (boxes.len(), port)));
            }
        }
        boxes.push(response(plan));
        let name = plan.name.to_string();
        Self { name, remarks: remarks_of_ensemble(plan), boxes, waves, lines }
    }
}

/// Puts outputs in the order of their models and inputs in the order of where they come from, as
/// maps in a configuration have none.
fn sort_ports(plan: &mut Plan, waves: &[Vec<StepIndex>], models: &BTreeMap<String, Inspected>) {
    for step in &mut plan.steps {
        let signature = models.get(&*step.model).and_then(Inspected::signature);
        let place = |name: &str| {
            let mut outputs = signature.iter().flat_map(|signature| &signature.outputs);
            outputs.position(|output| &*output.name == name)
        };
        step.outputs.sort_by_key(|output| place(&output.name));
    }
    let mut steps = std::mem::take(&mut plan.steps);
    let made = steps.iter().map(|step| step.outputs.iter().map(|output| output.tensor).collect());
    let made: Vec<Vec<TensorIndex>> = made.collect();
    for step in &mut steps {
        step.inputs.sort_by_key(|input| match plan.tensors[input.tensor].source {
            // The ensemble's inputs are its first tensors.
            Source::Input => (usize::MAX, 0, input.tensor),
            Source::Step(maker) => {
                let wave = waves.iter().position(|wave| wave.contains(&maker));
                let later_first = waves.len() - wave.unwrap_or_default();
                let port = made[maker].iter().position(|made| *made == input.tensor);
                (later_first, maker, port.unwrap_or_default())
            }
        });
    }
    plan.steps = steps;
}

/// The output of the plan with this name, and the depth of the responses it comes with.
fn sent<'a>(plan: &'a Plan, spec: &TensorSpec) -> Option<(&'a PlannedInput, usize)> {
    let sent = plan.outputs.iter().filter_map(|group| {
        let output = group.outputs.iter().find(|output| output.spec.name == spec.name)?;
        Some((output, group.lineage.len()))
    });
    sent.max_by_key(|(_, depth)| *depth)
}

fn remarks_of_ensemble(plan: &Plan) -> Vec<String> {
    let signature = &plan.signature;
    let mut remarks = Vec::new();
    if signature.is_batching() {
        remarks.push(format!("batches up to {}", signature.max_batch_size));
    }
    if signature.is_decoupled {
        let most = plan.max_inflight;
        remarks.push(format!("streams, at most {most} responses of a step in flight"));
    }
    remarks
}

fn request(plan: &Plan) -> Box {
    let outputs = plan.signature.inputs.iter().map(|spec| port(spec, plan.signature.is_batching()));
    Box {
        title: "request".into(),
        remarks: Vec::new(),
        inputs: Vec::new(),
        outputs: outputs.collect(),
    }
}

fn response(plan: &Plan) -> Box {
    let inputs = plan.signature.outputs.iter().map(|spec| port(spec, plan.signature.is_batching()));
    let each = plan.outputs.iter().filter_map(|group| {
        let step = group.lineage.last()?;
        Some(format!("one for each response of {}", of_step(plan, *step)))
    });
    Box {
        title: "response".into(),
        remarks: each.collect(),
        inputs: inputs.collect(),
        outputs: Vec::new(),
    }
}

fn of_step(plan: &Plan, step: StepIndex) -> String {
    format!("step {step} ({})", plan.steps[step].model)
}

fn step_box(
    plan: &Plan,
    index: StepIndex,
    step: &PlannedStep,
    models: &BTreeMap<String, Inspected>,
) -> Box {
    let mut remarks = Vec::new();
    let model = models.get(&*step.model).and_then(|model| model.model.as_ref());
    if let Some(model) = model {
        remarks.push(model.backend.to_string());
    }
    if let Some(version) = step.version {
        remarks.push(format!("version {version}"));
    }
    if step.is_decoupled {
        remarks.push("streams".into());
    }
    if let Some(outer) = step.lineage.last() {
        remarks.push(format!("once for each response of {}", of_step(plan, *outer)));
    }
    let made = |output: &consort_ensemble::PlannedOutput| {
        let tensor = &plan.tensors[output.tensor];
        port(&tensor.spec, tensor.is_batched)
    };
    Box {
        title: format!("{index} {}", step.model),
        remarks,
        inputs: step.inputs.iter().map(|input| port(&input.spec, input.is_batched)).collect(),
        outputs: step.outputs.iter().map(made).collect(),
    }
}

fn port(spec: &TensorSpec, is_batched: bool) -> Port {
    let batch = is_batched.then_some(consort_stage::VARIABLE);
    let shape: Vec<i64> = batch.into_iter().chain(spec.dims.iter().copied()).collect();
    Port {
        name: spec.name.to_string(),
        kind: format!("{}{}", spec.datatype, ShapeText(&shape)),
        is_optional: spec.is_optional,
    }
}

/// The steps in waves: each behind the last of those it waits for.
fn waves(plan: &Plan) -> Vec<Vec<StepIndex>> {
    let mut depths: Vec<Option<usize>> = vec![None; plan.steps.len()];
    // A checked plan has no cycle, so that every round settles at least one step.
    while depths.contains(&None) {
        for (index, step) in plan.steps.iter().enumerate() {
            let before = step.inputs.iter().map(|input| match plan.tensors[input.tensor].source {
                Source::Input => Some(0),
                Source::Step(maker) => depths[maker].map(|depth| depth + 1),
            });
            depths[index] = before.max().unwrap_or(Some(0)).filter(|_| {
                step.inputs.iter().all(|input| is_settled(plan, &depths, input.tensor))
            });
        }
    }
    let count = depths.iter().flatten().max().map_or(0, |deepest| deepest + 1);
    let mut waves = vec![Vec::new(); count];
    for (step, depth) in depths.into_iter().enumerate() {
        waves[depth.unwrap_or_default()].push(step);
    }
    waves
}

fn is_settled(plan: &Plan, depths: &[Option<usize>], tensor: TensorIndex) -> bool {
    match plan.tensors[tensor].source {
        Source::Input => true,
        Source::Step(maker) => depths[maker].is_some(),
    }
}

fn line(plan: &Plan, input: &PlannedInput, depth: usize, to: (BoxIndex, usize)) -> Line {
    let tensor = &plan.tensors[input.tensor];
    let from = match tensor.source {
        Source::Input => {
            let place = plan.signature.inputs.iter().position(|spec| spec.name == tensor.name);
            (0, place.unwrap_or_default())
        }
        Source::Step(step) => {
            let outputs = plan.steps[step].outputs.iter();
            let mut made = outputs.map(|output| output.tensor);
            (step + 1, made.position(|made| made == input.tensor).unwrap_or_default())
        }
    };
    let flow = match tensor.lineage.len() {
        own if own < depth => Flow::Held,
        0 => Flow::Once,
        _ => Flow::Streaming,
    };
    let is_batched = (tensor.is_batched, input.is_batched);
    Line { tensor: tensor.name.to_string(), from, to, flow, is_batched }
}
