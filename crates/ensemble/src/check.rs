//! Turns a stated ensemble into a plan, or says everything that is wrong with it.

mod connect;
mod fit;
mod order;

use std::sync::Arc;

use consort_stage::Signature;

use crate::defect::Defect;
use crate::plan::{Plan, group_outputs};
use crate::spec::Spec;

/// The iterations that may wait between a streaming step and the steps behind it, when the
/// configuration does not say: enough to ride out a slow response, small enough to hold.
const DEFAULT_MAX_INFLIGHT: u32 = 16;

/// Finds the signature of a step's model in the wanted version.
pub type Lookup<'a> = dyn Fn(&str, Option<u64>) -> Option<Arc<Signature>> + 'a;

/// Checks an ensemble against the models of its steps.
///
/// All mistakes are reported together. The texts follow Triton's where it has one.
pub fn check(spec: &Spec, models: &Lookup<'_>) -> Result<Plan, Vec<Defect>> {
    let signatures = find_models(spec, models)?;
    let (mut graph, mut defects) = connect::connect(spec, &signatures);
    defects.extend(fit::check(spec, &signatures, &graph));
    if defects.is_empty() {
        defects.extend(order::settle_lineages(spec, &mut graph));
    }
    if !defects.is_empty() {
        return Err(defects);
    }
    let inflight = match spec.max_inflight_requests {
        0 => DEFAULT_MAX_INFLIGHT,
        stated => stated,
    };
    let mut signature = spec.signature.clone();
    signature.is_decoupled |= graph.steps.iter().any(|step| step.is_decoupled);
    Ok(Plan {
        name: spec.name.clone(),
        signature,
        outputs: group_outputs(&order::outputs(spec, &graph), &graph.tensors).into(),
        tensors: graph.tensors,
        steps: graph.steps,
        max_inflight: inflight as usize,
    })
}

fn find_models(spec: &Spec, models: &Lookup<'_>) -> Result<Vec<Arc<Signature>>, Vec<Defect>> {
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for (index, step) in spec.steps.iter().enumerate() {
        match models(&step.model, step.version) {
            Some(signature) => found.push(signature),
            None => missing.push(index),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let mut names: Vec<&str> = missing.iter().map(|step| &*spec.steps[*step].model).collect();
    names.sort_unstable();
    names.dedup();
    let message = format!(
        "ensemble {} contains models that are not available or ambiguous: {}",
        spec.name,
        names.join(", ")
    );
    Err(vec![Defect::of_step(missing[0], "model_name", message)])
}
