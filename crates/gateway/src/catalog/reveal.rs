//! Lets an ensemble also give what its steps know and keep to themselves, such as how a text ended.
//!
//! A front that must count tokens finds them so in any ensemble, whatever its configuration takes
//! and gives, and the ensemble itself answers as it always did.

use std::sync::Arc;

use consort_ensemble::{Edge, Spec, StepSpec};
use consort_stage::{Signature, TensorSpec};

/// What is revealed: the name it gets, and what models call it, in any case.
const REVEALED: [(&str, &[&str]); 17] = [
    ("input_ids", &["input_ids", "input_id"]),
    ("input_lengths", &["input_lengths", "input_length", "request_input_len"]),
    ("attention_mask", &["attention_mask", "input_mask"]),
    ("cached_tokens", &["cached_tokens"]),
    ("output_ids", &["output_ids"]),
    ("finish_reason", &["finish_reason"]),
    ("output_log_probs", &["output_log_probs"]),
    ("top_logprob_ids", &["top_logprob_ids"]),
    ("top_logprob_values", &["top_logprob_values"]),
    ("output_tokens", &["output_tokens"]),
    ("top_logprob_tokens", &["top_logprob_tokens"]),
    ("prompt_ids", &["prompt_ids"]),
    ("prompt_log_probs", &["prompt_log_probs"]),
    ("prompt_top_logprob_ids", &["prompt_top_logprob_ids"]),
    ("prompt_top_logprob_values", &["prompt_top_logprob_values"]),
    ("prompt_tokens", &["prompt_tokens"]),
    ("prompt_top_logprob_tokens", &["prompt_top_logprob_tokens"]),
];

/// Optional inputs that are revealed, by the names that models have for them.
const ASKED: [&str; 9] = [
    "logit_bias_ids",
    "logit_bias_weights",
    "return_log_probs",
    "top_logprobs",
    "prompt_logprobs",
    "prompt_token_ids",
    "guided_decoding_guide_type",
    "guided_decoding_guide",
    "lora_name",
];

/// What one step tells and another takes, where it takes any.
const PASSED_ON: [&str; 3] = ["top_logprob_ids", "prompt_ids", "prompt_top_logprob_ids"];

/// The same ensemble with more inputs and outputs; `signatures` are those of the steps' models.
///
/// A name that the ensemble uses itself stays what it is.
pub(super) fn reveal(spec: &Spec, signatures: &[Arc<Signature>]) -> Spec {
    let mut revealed = spec.clone();
    for (name, aliases) in REVEALED {
        let is_called =
            |spec: &&TensorSpec| aliases.iter().any(|alias| spec.name.eq_ignore_ascii_case(alias));
        let mut steps = signatures.iter().enumerate();
        let found = steps
            .find_map(|(step, signature)| Some((step, signature.outputs.iter().find(is_called)?)));
        if let Some((step, output)) = found {
            add(&mut revealed, name, step, output);
        }
    }
    for name in ASKED {
        let mut steps = signatures.iter().enumerate();
        let found = steps.find_map(|(step, signature)| Some((step, signature.input(name)?)));
        if let Some((step, input)) = found.filter(|(_, input)| input.is_optional) {
            ask(&mut revealed, step, input);
        }
    }
    for name in PASSED_ON {
        for (step, signature) in signatures.iter().enumerate() {
            if signature.input(name).is_some_and(|input| input.is_optional) {
                pass_on(&mut revealed, step, name);
            }
        }
    }
    revealed
}

/// Gives a step that is not given it the tensor of this name that another step writes.
fn pass_on(spec: &mut Spec, step: usize, name: &str) {
    let is_this = |edge: &&Edge| &*edge.ensemble_tensor == name;
    let is_written = |step: &StepSpec| step.outputs.iter().any(|edge| is_this(&edge));
    let is_given = spec.steps[step].inputs.iter().any(|edge| &*edge.model_tensor == name);
    if !is_given && !is_written(&spec.steps[step]) && spec.steps.iter().any(is_written) {
        let edge = Edge { model_tensor: name.into(), ensemble_tensor: name.into() };
        spec.steps[step].inputs.push(edge);
    }
}

/// Makes an input that a step is not given an input of the ensemble.
fn ask(spec: &mut Spec, step: usize, input: &TensorSpec) {
    let name = &input.name;
    let is_given = spec.steps[step].inputs.iter().any(|edge| edge.model_tensor == *name);
    if is_given || is_used(spec, name) {
        return;
    }
    let edge = Edge { model_tensor: name.clone(), ensemble_tensor: name.clone() };
    spec.steps[step].inputs.push(edge);
    spec.signature.inputs.push(TensorSpec { reshape: None, ..input.clone() });
}

/// Makes a step's output an output of the ensemble, unless something else has its name.
fn add(spec: &mut Spec, name: &str, step: usize, output: &TensorSpec) {
    let outputs = &spec.steps[step].outputs;
    let mapped = outputs.iter().find(|edge| edge.model_tensor == output.name);
    let mapped = mapped.map(|edge| edge.ensemble_tensor.clone());
    let is_there = spec.signature.output(name).is_some();
    match mapped {
        _ if is_there => return,
        Some(from) if &*from == name => {}
        _ if is_used(spec, name) => return,
        Some(from) => rename(spec, &from, name),
        None => spec.steps[step]
            .outputs
            .push(Edge { model_tensor: output.name.clone(), ensemble_tensor: name.into() }),
    }
    let output = TensorSpec { name: name.into(), reshape: None, ..output.clone() };
    spec.signature.outputs.push(output);
}

fn is_used(spec: &Spec, name: &str) -> bool {
    let written = spec.steps.iter().flat_map(|step| &step.outputs);
    let mut written = written.map(|edge| &*edge.ensemble_tensor);
    spec.signature.input(name).is_some() || written.any(|tensor| tensor == name)
}

/// Gives a tensor another name wherever it is written and read; no output has the old one.
fn rename(spec: &mut Spec, from: &str, name: &str) {
    spec.signature.outputs.retain(|output| &*output.name != from);
    let edges =
        spec.steps.iter_mut().flat_map(|step| step.inputs.iter_mut().chain(&mut step.outputs));
    for edge in edges.filter(|edge| &*edge.ensemble_tensor == from) {
        edge.ensemble_tensor = name.into();
    }
}

#[cfg(test)]
mod tests {
    use consort_testkit::signature;
    use expect_test::{Expect, expect};

    use super::*;

    fn edges(text: &str) -> Vec<Edge> {
        let edge = |(model, ensemble): (&str, &str)| Edge {
            model_tensor: model.into(),
            ensemble_tensor: ensemble.into(),
        };
        text.split_whitespace().map(|pair| edge(pair.split_once('=').unwrap())).collect()
    }

    /// Reveals an ensemble of steps given as `INPUTS -> OUTPUTS` beside the signature of each model.
    fn check(ensemble: &str, steps: &[(&str, &str)], expected: &Expect) {
        let spec = Spec {
            name: "sample".into(),
            signature: signature(ensemble),
            steps: steps
                .iter()
                .map(|(_, step)| {
                    let (inputs, outputs) = step.split_once("->").unwrap();
                    let (inputs, outputs) = (edges(inputs), edges(outputs));
                    StepSpec { model: "m".into(), version: None, inputs, outputs }
                })
                .collect(),
            max_inflight_requests: 0,
        };
        let signatures: Vec<_> =
            steps.iter().map(|(model, _)| Arc::new(signature(model))).collect();
        let revealed = reveal(&spec, &signatures);
        let Signature { inputs, outputs, .. } = &revealed.signature;
        let inputs: Vec<_> = inputs.iter().map(|spec| &*spec.name).collect();
        let outputs = outputs.iter();
        let outputs = outputs.map(|spec| format!("{} {}{:?}", spec.name, spec.datatype, spec.dims));
        let show = |edge: &Edge| format!(" {}={}", edge.model_tensor, edge.ensemble_tensor);
        let shown = |edges: &[Edge]| edges.iter().map(show).collect::<Vec<_>>().concat();
        let steps = revealed.steps.iter();
        let steps = steps.map(|step| format!("{} ->{}", shown(&step.inputs), shown(&step.outputs)));
        let lines: Vec<String> =
            [inputs.join(" ")].into_iter().chain(outputs).chain(steps).collect();
        let text = lines.join("\n") + "\n";
        expected.assert_eq(&text);
    }

    #[test]
    fn what_steps_pass_on_or_keep_becomes_an_output() {
        check(
            "1: text BYTES[1] ->> out BYTES[1]",
            &[
                (
                    "8: QUERY BYTES[1] -> INPUT_ID INT32[-1], REQUEST_INPUT_LEN INT32[1]",
                    "QUERY=text -> INPUT_ID=_ids",
                ),
                (
                    "1: input_ids INT32[-1] ->> output_ids INT32[-1], finish_reason BYTES[1]",
                    "input_ids=_ids -> output_ids=_new",
                ),
                ("8: ids INT32[-1] -> text BYTES[1]", "ids=_new -> text=out"),
            ],
            &expect![[r"
                text
                out BYTES[1]
                input_ids INT32[-1]
                input_lengths INT32[1]
                output_ids INT32[-1]
                finish_reason BYTES[1]
                 QUERY=text -> INPUT_ID=input_ids REQUEST_INPUT_LEN=input_lengths
                 input_ids=input_ids -> output_ids=output_ids finish_reason=finish_reason
                 ids=output_ids -> text=out
            "]],
        );
    }

    #[test]
    fn a_name_that_the_ensemble_uses_stays_what_it_is() {
        check(
            "1: input_ids BYTES[1] -> tokens INT32[-1]",
            &[(
                "1: text BYTES[1] -> input_ids INT32[-1], output_ids INT32[-1]",
                "text=input_ids -> output_ids=tokens",
            )],
            &expect![[r"
                input_ids
                output_ids INT32[-1]
                 text=input_ids -> output_ids=output_ids
            "]],
        );
    }

    #[test]
    fn what_a_model_takes_by_choice_becomes_an_input() {
        check(
            "1: text BYTES[1] -> out BYTES[1]",
            &[(
                "1: text BYTES[1], logit_bias_ids INT32[-1]?, logit_bias_weights FP32[-1]? \
                 -> out BYTES[1]",
                "text=text logit_bias_ids=text -> out=out",
            )],
            &expect![[r"
                text logit_bias_weights
                out BYTES[1]
                 text=text logit_bias_ids=text logit_bias_weights=logit_bias_weights -> out=out
            "]],
        );
    }

    #[test]
    fn what_one_step_tells_reaches_the_step_that_takes_it() {
        check(
            "1: text BYTES[1] ->> out BYTES[1]",
            &[
                (
                    "1: ids INT32[-1], top_logprobs INT32[1]? \
                     ->> output_ids INT32[-1], top_logprob_ids INT32[-1,-1]",
                    "ids=text -> output_ids=_new",
                ),
                (
                    "8: ids INT32[-1], top_logprob_ids INT32[-1,-1]? \
                     -> text BYTES[1], top_logprob_tokens BYTES[-1,-1]",
                    "ids=_new -> text=out",
                ),
            ],
            &expect![[r"
                text top_logprobs
                out BYTES[1]
                output_ids INT32[-1]
                top_logprob_ids INT32[-1, -1]
                top_logprob_tokens BYTES[-1, -1]
                 ids=text top_logprobs=top_logprobs -> output_ids=output_ids top_logprob_ids=top_logprob_ids
                 ids=output_ids top_logprob_ids=top_logprob_ids -> text=out top_logprob_tokens=top_logprob_tokens
            "]],
        );
    }

    #[test]
    fn a_tensor_that_has_the_name_already_keeps_it() {
        check(
            "1: text BYTES[1] -> finish_reason BYTES[1]",
            &[(
                "1: text BYTES[1] -> input_ids INT32[-1], finish_reason BYTES[1]",
                "text=text -> input_ids=input_ids finish_reason=finish_reason",
            )],
            &expect![[r"
                text
                finish_reason BYTES[1]
                input_ids INT32[-1]
                 text=text -> input_ids=input_ids finish_reason=finish_reason
            "]],
        );
    }
}
