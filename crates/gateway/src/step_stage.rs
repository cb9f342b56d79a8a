//! Counts the calls of one step of an ensemble, and where their time goes.

use std::sync::Arc;

use consort_repository::reason;
use consort_stage::{Request, Responses, Spent, Stage};
use consort_telemetry::StepMeter;

use crate::at_end::at_end;

/// The model of a step, near or far, with its calls counted.
pub(crate) struct StepStage {
    model: Arc<dyn Stage>,
    meter: Arc<StepMeter>,
}

impl StepStage {
    pub(crate) fn new(model: Arc<dyn Stage>, meter: Arc<StepMeter>) -> Self {
        Self { model, meter }
    }
}

impl Stage for StepStage {
    fn call(&self, mut request: Request) -> Responses {
        let spent = Arc::new(Spent::default());
        let whole = request.context.spent.replace(spent.clone());
        let mut counted = self.meter.call();
        let enough = request.context.enough.clone();
        at_end(self.model.call(request), enough, move |end| match end {
            Ok(()) => {
                let durations = spent.durations();
                if let Some(whole) = whole {
                    whole.add(&durations);
                }
                counted.succeeded(durations.queue, durations.compute());
            }
            Err(error) => counted.failed(reason(error.code())),
        })
    }
}
