//! A plan with what it calls: an ensemble that can be called like any model.

use std::sync::Arc;

use consort_stage::{Request, Responses, Stage};

use crate::plan::Plan;
use crate::run::Run;

/// A plan with what it calls: an ensemble that can be called like any model.
pub struct Ensemble {
    plan: Arc<Plan>,
    steps: Arc<[Arc<dyn Stage>]>,
}

impl Ensemble {
    /// The ensemble of `plan`, whose step `i` calls `steps[i]`.
    pub fn new(plan: Arc<Plan>, steps: Vec<Arc<dyn Stage>>) -> Self {
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
