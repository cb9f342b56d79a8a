//! A plan with what it calls: an ensemble that can be called like any model.

use std::sync::Arc;

use consort_stage::{Request, Responses, Stage};
use consort_telemetry::StepMeter;

use crate::plan::Plan;
use crate::run::Run;

/// What a step calls, and where its time is counted.
pub struct Step {
    /// The model of the step.
    pub stage: Arc<dyn Stage>,
    /// How long its calls take.
    pub meter: Arc<StepMeter>,
}

/// A plan with what it calls: an ensemble that can be called like any model.
pub struct Ensemble {
    plan: Arc<Plan>,
    steps: Arc<[Step]>,
}

impl Ensemble {
    /// The ensemble of `plan`, whose step `i` calls `steps[i]`.
    pub fn new(plan: Arc<Plan>, steps: Vec<Step>) -> Self {
        debug_assert_eq!(plan.steps.len(), steps.len());
        Self { plan, steps: steps.into() }
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }
}

impl Stage for Ensemble {
    fn call(&self, request: Request) -> Responses {
        Box::pin(Run::new(self.plan.clone(), self.steps.clone(), request))
    }
}
