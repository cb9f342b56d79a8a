//! Runs a plan as a data flow: a step starts as soon as its inputs are there.
//!
//! One request is one stream, polled by whoever reads the responses. Nothing is spawned, so
//! dropping the stream drops every running step, which cancels it wherever it runs; and nothing
//! runs ahead of a reader that has stopped reading.

mod call;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use consort_stage::{Error, Request, Response, Result, Stage, collect_one};
use consort_telemetry::{WorkSpan, step_span};
use futures::{FutureExt, Stream, StreamExt};

use self::call::Call;
use crate::edge::deliver;
use crate::plan::{OutputGroup, Plan, Source, StepIndex, TensorIndex};
use crate::store::{Iteration, Store};

/// One request on its way through the graph.
pub(crate) struct Run {
    plan: Arc<Plan>,
    callees: Arc<[Arc<dyn Stage>]>,
    /// Id, parameters and context, as every step gets them.
    request: Request,
    store: Store,
    /// For each tensor, whether the caller gave it.
    given: Box<[bool]>,
    /// For each step, where it stands; `None` when the wanted outputs do not need it.
    steps: Vec<Option<StepState>>,
    /// The output groups that are wanted.
    groups: Arc<[OutputGroup]>,
    /// For each group, the iteration that was sent last.
    sent: Vec<Option<Iteration>>,
    /// At most one call of each step, so all are asked. What waits for many futures at once wakes
    /// its own task after each look, which costs another thread's wake-up with every far step.
    running: Vec<Call>,
    /// Streaming steps that wait for the steps behind them to catch up.
    paused: Vec<Call>,
    outbox: VecDeque<Response>,
    is_over: bool,
}

/// Where a step stands.
#[derive(Default)]
struct StepState {
    /// The iteration it began last; later ones follow in order.
    last_begun: Option<Iteration>,
    /// Whether an iteration is under way; the next waits, so that order is kept.
    is_busy: bool,
}

/// What a call says next; `None` when it has ended.
type NextAnswer = Option<Result<Response>>;

impl Stream for Run {
    type Item = Result<Response>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(response) = self.outbox.pop_front() {
                return Poll::Ready(Some(Ok(response)));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            let Some((call, answer)) = ready!(self.poll_running(context)) else {
                self.is_over = true;
                let stuck = !self.paused.is_empty();
                return Poll::Ready(stuck.then(|| Err(self.deadlock())));
            };
            if let Err(error) = self.answered(call, answer) {
                self.stop();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Run {
    /// The run of one request, in which nothing has happened yet.
    pub(crate) fn new(
        plan: Arc<Plan>,
        callees: Arc<[Arc<dyn Stage>]>,
        mut request: Request,
    ) -> Self {
        let groups = plan.wanted_groups(&request.outputs);
        let needed = plan.needed_steps(&groups);
        let inputs = std::mem::take(&mut request.inputs);
        let mut run = Self {
            store: Store::new(plan.clone(), &needed, &groups),
            given: vec![false; plan.tensors.len()].into(),
            steps: needed.iter().map(|needed| needed.then(StepState::default)).collect(),
            sent: vec![None; groups.len()],
            groups,
            running: Vec::new(),
            paused: Vec::new(),
            outbox: VecDeque::new(),
            is_over: false,
            plan,
            callees,
            request,
        };
        run.put_inputs(inputs);
        run.advance();
        run
    }

    fn put_inputs(&mut self, inputs: Vec<consort_stage::Tensor>) {
        let plan = self.plan.clone();
        let held = Iteration::new();
        let mut inputs: Vec<_> = inputs.into_iter().map(Some).collect();
        for (index, planned) in plan.tensors.iter().enumerate() {
            if planned.source == Source::Input {
                let given = inputs.iter_mut().find(|tensor| {
                    tensor.as_ref().is_some_and(|tensor| tensor.name == planned.name)
                });
                let given = given.and_then(Option::take);
                self.given[index] = given.is_some();
                self.store.put(index, &held, given, true);
            }
        }
    }

    /// Starts every step and sends every response that has become possible.
    fn advance(&mut self) {
        let plan = self.plan.clone();
        for step in 0..plan.steps.len() {
            self.begin_next(&plan, step);
        }
        let groups = self.groups.clone();
        for (index, group) in groups.iter().enumerate() {
            self.send_ready(&plan, index, group);
        }
        self.resume_paused();
    }

    /// Begins the next iteration of a step, when it is idle and the inputs are there.
    fn begin_next(&mut self, plan: &Arc<Plan>, step: StepIndex) {
        let planned = &plan.steps[step];
        let Some(state) = &mut self.steps[step] else {
            return;
        };
        if state.is_busy {
            return;
        }
        let last = state.last_begun.as_ref();
        let Some(iteration) = self.store.next(&planned.inputs, planned.lineage.len(), last) else {
            return;
        };
        state.last_begun = Some(iteration.clone());
        state.is_busy = true;
        self.begin(plan, step, iteration);
    }

    fn begin(&mut self, plan: &Arc<Plan>, step: StepIndex, iteration: Iteration) {
        let planned = &plan.steps[step];
        self.store.begin(&planned.lineage, &iteration);
        let mut is_last = true;
        let mut inputs = Vec::with_capacity(planned.inputs.len());
        for input in &planned.inputs {
            let taken = self.store.take(input, &iteration);
            is_last &= taken.is_last;
            let from_batched = plan.tensors[input.tensor].is_batched;
            inputs.extend(taken.tensor.map(|tensor| deliver(tensor, input, from_batched)));
        }
        let mut context = self.request.context.clone();
        if context.span.is_some() {
            let parent = context.span.as_ref();
            context.span = Some(step_span(parent, &plan.name, &step.to_string(), &planned.model));
        }
        let span = WorkSpan::new(context.span.clone(), context.deadline);
        let outputs = planned.outputs.iter().filter(|output| self.store.is_wanted(output.tensor));
        let request = Request {
            id: self.request.id.clone(),
            inputs,
            outputs: outputs.map(|output| output.name.clone()).collect(),
            parameters: self.request.parameters.clone(),
            context,
        };
        let mut responses = self.callees[step].call(request);
        if !planned.is_decoupled {
            responses = Box::pin(collect_one(responses).into_stream());
        }
        let call = Call { step, iteration, answers: 0, is_last, responses, span };
        self.running.push(call);
    }

    /// The next answer of any call, with the call; `None` when none is running.
    fn poll_running(&mut self, context: &mut Context<'_>) -> Poll<Option<(Call, NextAnswer)>> {
        for place in 0..self.running.len() {
            let polled = self.running[place].responses.poll_next_unpin(context);
            if let Poll::Ready(answer) = polled {
                // One that goes on comes back behind the others, so that all have their turn.
                return Poll::Ready(Some((self.running.remove(place), answer)));
            }
        }
        if self.running.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }

    fn answered(&mut self, mut call: Call, answer: NextAnswer) -> Result<()> {
        match answer {
            Some(Ok(response)) => {
                self.keep_outputs(&mut call, response);
                if self.plan.steps[call.step].is_decoupled {
                    self.go_on(call);
                } else {
                    self.finish(call);
                }
            }
            Some(Err(error)) => {
                let error = self.locate(call.step, error);
                call.span.failed(error.code().name(), error.message());
                return Err(error);
            }
            None => self.finish(call),
        }
        self.advance();
        Ok(())
    }

    /// Waits for the next response of a streaming step, unless those behind it must catch up.
    fn go_on(&mut self, call: Call) {
        if self.store.in_flight(call.step) < self.plan.max_inflight {
            self.running.push(call);
        } else {
            self.paused.push(call);
        }
    }

    fn finish(&mut self, mut call: Call) {
        call.span.done();
        self.store.end(&self.plan.steps[call.step].lineage, &call.iteration);
        if let Some(state) = &mut self.steps[call.step] {
            state.is_busy = false;
        }
    }

    fn keep_outputs(&mut self, call: &mut Call, mut response: Response) {
        let plan = self.plan.clone();
        let planned = &plan.steps[call.step];
        self.follow_sequence(&response);
        let mut iteration = call.iteration.clone();
        if planned.is_decoupled {
            // A response without tensors only says that the stream has ended.
            if response.outputs.is_empty() {
                return;
            }
            iteration.push(call.answers);
        }
        call.answers += 1;
        let is_last = call.is_last && (response.is_last || !planned.is_decoupled);
        for output in &planned.outputs {
            let found = response.outputs.iter().position(|tensor| tensor.name == output.name);
            let name = plan.tensors[output.tensor].name.clone();
            let tensor = found.map(|index| response.outputs.swap_remove(index).renamed(name));
            self.store.put(output.tensor, &iteration, tensor, is_last);
        }
    }

    /// Lets what a step says of the request's sequence reach the steps behind it.
    fn follow_sequence(&mut self, response: &Response) {
        for (key, value) in &response.parameters {
            if SEQUENCE_PARAMETERS.contains(&key.as_str()) {
                self.request.parameters.insert(key.clone(), value.clone());
            }
        }
    }

    fn resume_paused(&mut self) {
        for call in std::mem::take(&mut self.paused) {
            self.go_on(call);
        }
    }

    fn send_ready(&mut self, plan: &Arc<Plan>, index: usize, group: &OutputGroup) {
        let depth = group.lineage.len();
        while let Some(iteration) =
            self.store.next(&group.outputs, depth, self.sent[index].as_ref())
        {
            self.send(plan, group, &iteration);
            self.sent[index] = Some(iteration);
        }
    }

    fn send(&mut self, plan: &Arc<Plan>, group: &OutputGroup, iteration: &Iteration) {
        let mut response = Response { is_last: self.groups.len() == 1, ..Response::default() };
        self.store.begin(&group.lineage, iteration);
        for output in &group.outputs {
            let taken = self.store.take(output, iteration);
            response.is_last &= taken.is_last;
            if let Some(tensor) = taken.tensor {
                let from_batched = plan.tensors[output.tensor].is_batched;
                response.outputs.push(deliver(tensor, output, from_batched));
            } else {
                let (ensemble, output) = (&*plan.name, &*output.spec.name);
                tracing::debug!(ensemble, "Composing models did not output tensor {output}");
            }
        }
        self.store.end(&group.lineage, iteration);
        let parameters = &self.request.parameters;
        response.parameters = SEQUENCE_PARAMETERS
            .iter()
            .filter_map(|key| parameters.get_key_value(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        self.outbox.push_back(response);
    }

    /// Says in an error which step failed, and over which of the caller's inputs.
    fn locate(&self, step: StepIndex, error: Error) -> Error {
        let Plan { name: ensemble, steps, .. } = &*self.plan;
        let model = &steps[step].model;
        let given = |tensor: TensorIndex| self.given[tensor];
        let sent = error.input().and_then(|input| self.plan.sent_as(step, input, given)).cloned();
        let input = match &sent {
            // The step's own text has it already.
            Some(sent) if error.input() != Some(&**sent) => format!(", input '{sent}'"),
            _ => String::new(),
        };
        error
            .of_input(sent)
            .within(format!("in ensemble '{ensemble}'{input}, step {step} (model '{model}'): "))
    }

    /// A plan that was checked cannot come to this; if it does, the caller hears of it.
    fn deadlock(&self) -> Error {
        let steps: Vec<&str> =
            self.paused.iter().map(|call| &*self.plan.steps[call.step].model).collect();
        Error::internal(format!(
            "in ensemble '{}', unexpected deadlock: nothing takes the responses of {}",
            self.plan.name,
            steps.join(", ")
        ))
    }

    /// Ends the request: every running step is dropped, which cancels it.
    fn stop(&mut self) {
        self.is_over = true;
        self.running.clear();
        self.paused.clear();
        self.outbox.clear();
    }
}

/// The parameters by which a model says which sequence a request belongs to.
const SEQUENCE_PARAMETERS: [&str; 3] = ["sequence_id", "sequence_start", "sequence_end"];
