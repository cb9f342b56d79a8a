//! The graphs of the ensembles, inner ones first, over the models that were found.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_config::{Model, Problem, did_you_mean};
use consort_ensemble::{Defect, Nested, Plan, Spec, check as check_graph, nesting};

use super::finding::Finding;
use super::inspection::{Inspected, Inspection};

/// Checks every ensemble and keeps the plans of the good ones.
pub(super) fn check(inspection: &mut Inspection) {
    let specs: Vec<Arc<Spec>> =
        inspection.models.values().filter_map(Inspected::spec).cloned().collect();
    for Nested { spec, cycle } in nesting(specs.iter().map(|spec| &**spec)) {
        let (plan, findings) = match cycle {
            Some(cycle) => (None, in_cycle(&inspection.models, spec, &cycle)),
            None => check_one(&inspection.models, spec),
        };
        inspection.findings.extend(findings);
        if let Some(ensemble) = inspection.models.get_mut(&*spec.name) {
            ensemble.plan = plan;
        }
    }
}

type Models = BTreeMap<String, Inspected>;

fn in_cycle(models: &Models, spec: &Spec, cycle: &str) -> Vec<Finding> {
    let problem = |model: &Model| model.problem("ensemble_scheduling", cycle);
    model_of(models, spec)
        .map(problem)
        .map(|p| Finding::problem(&spec.name, p))
        .into_iter()
        .collect()
}

fn model_of<'a>(models: &'a Models, spec: &Spec) -> Option<&'a Model> {
    models.get(&*spec.name)?.model.as_ref()
}

fn check_one(models: &Models, spec: &Spec) -> (Option<Plan>, Vec<Finding>) {
    let Some(model) = model_of(models, spec) else {
        return (None, Vec::new());
    };
    let mut findings = missing_versions(models, spec, model);
    let lookup = |name: &str, _: Option<u64>| models.get(name)?.signature();
    match check_graph(spec, &lookup) {
        Ok(plan) => (Some(plan), findings),
        Err(defects) => {
            let found = defects.into_iter().flat_map(|defect| found(models, spec, model, defect));
            findings.extend(found);
            (None, findings)
        }
    }
}

/// Steps that ask for a version which is not there.
fn missing_versions(models: &Models, spec: &Spec, model: &Model) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, step) in spec.steps.iter().enumerate() {
        let (Some(version), Some(called)) = (step.version, models.get(&*step.model)) else {
            continue;
        };
        // A model without any version says so itself.
        if called.versions.is_empty() || called.versions.contains(&version) {
            continue;
        }
        let path = format!("ensemble_scheduling.step[{index}].model_version");
        let message = format!(
            "ensemble '{}' depends on '{}' whose required version {version} is not loaded",
            spec.name, step.model
        );
        let help = Some(format!("the versions served are {:?}", called.versions));
        let problem = Problem { help, ..model.problem(&path, message) };
        findings.push(Finding::problem(&spec.name, problem));
    }
    findings
}

/// A defect at its place; models that are there but have problems of their own are not missing.
fn found(models: &Models, spec: &Spec, model: &Model, defect: Defect) -> Vec<Finding> {
    if defect.missing.is_empty() {
        let problem = model.problem(&defect.field, defect.message);
        return vec![Finding::problem(&spec.name, problem)];
    }
    let mut findings = Vec::new();
    for missing in &defect.missing {
        let calls = spec.steps.iter().position(|step| *step.model == **missing);
        let path = format!("ensemble_scheduling.step[{}].model_name", calls.unwrap_or_default());
        if models.contains_key(missing) {
            let message = format!("checked without model `{missing}`, whose tensors are unknown");
            findings.push(Finding::note(&spec.name, model.problem(&path, message)));
            continue;
        }
        let message = format!(
            "ensemble {} contains models that are not available or ambiguous: {missing}",
            spec.name
        );
        let help = did_you_mean(missing, models.keys().map(String::as_str));
        let problem = Problem { help, ..model.problem(&path, message) };
        findings.push(Finding::problem(&spec.name, problem));
    }
    findings
}
