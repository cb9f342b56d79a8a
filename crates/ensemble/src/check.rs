//! Turns a stated ensemble into a plan, or says everything that is wrong with it.

mod connect;
mod fit;
mod order;
mod unused;

use std::sync::Arc;

use consort_stage::Signature;

use crate::defect::Defect;
use crate::plan::{Plan, group_outputs};
use crate::spec::Spec;

/// The responses of a streaming step that may be in flight behind it, when the configuration does
/// not say: enough to ride out a slow response, small enough to hold.
const DEFAULT_MAX_INFLIGHT: u32 = 16;

/// Finds the signature of a step's model in the wanted version.
pub type Lookup<'a> = dyn Fn(&str, Option<u64>) -> Option<Arc<Signature>> + 'a;

/// The signature of each step's model, where it is known.
type Signatures = [Option<Arc<Signature>>];

/// Checks an ensemble against the models of its steps.
///
/// All mistakes are reported together. The texts follow Triton's where it has one.
pub fn check(spec: &Spec, models: &Lookup<'_>) -> Result<Plan, Vec<Defect>> {
    let steps = spec.steps.iter();
    let signatures: Vec<_> = steps.map(|step| models(&step.model, step.version)).collect();
    let mut defects: Vec<_> = missing_models(spec, &signatures).into_iter().collect();
    let mut graph = connect::connect(spec, &signatures, &mut defects);
    unused::find(spec, &graph, &mut defects);
    fit::check(spec, &signatures, &graph, &mut defects);
    order::settle_lineages(spec, &mut graph, &mut defects);
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

fn missing_models(spec: &Spec, signatures: &Signatures) -> Option<Defect> {
    let first = signatures.iter().position(Option::is_none)?;
    let missing = spec.steps.iter().zip(signatures).filter(|(_, signature)| signature.is_none());
    let mut names: Vec<&str> = missing.map(|(step, _)| &*step.model).collect();
    names.sort_unstable();
    names.dedup();
    let message = format!(
        "ensemble {} contains models that are not available or ambiguous: {}",
        spec.name,
        names.join(", ")
    );
    let missing = names.into_iter().map(ToOwned::to_owned).collect();
    Some(Defect { missing, ..Defect::of_step(first, "model_name", message) })
}
