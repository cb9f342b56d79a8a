//! The tensors that a sequence keeps from one request to the next (`state`).

use std::sync::Arc;

use consort_config::State;
use consort_stage::{Error, Result, Signature, Tensor, VARIABLE};

use super::line::{Form, Kept};

/// The states of one sequence, in the configuration's order, named as the inputs they go to.
pub(super) type Values = Arc<[Tensor]>;

/// What a model's sequences keep.
#[derive(Debug)]
pub(super) struct States {
    states: Vec<Keeping>,
    initial: Values,
}

#[derive(Debug)]
struct Keeping {
    state: State,
    /// Whether callers may see the output too.
    is_public: bool,
    is_variable: bool,
}

impl States {
    /// The states of a model whose callers see `signature`; `initial` is one row of each.
    pub(super) fn new(states: Vec<State>, initial: Vec<Tensor>, signature: &Signature) -> Self {
        let keeping = |state: State| Keeping {
            is_public: signature.output(&state.output).is_some(),
            is_variable: state.dims.contains(&VARIABLE),
            state,
        };
        Self { states: states.into_iter().map(keeping).collect(), initial: initial.into() }
    }

    /// What a row is given: what its sequence kept, or what every sequence begins with.
    pub(super) fn values(&self, kept: Option<Kept<Values>>) -> Values {
        kept.map_or_else(|| self.initial.clone(), |kept| kept.state)
    }

    /// What the states have in common at the beginning.
    pub(super) fn initial_form(&self) -> Form {
        self.form(&self.initial)
    }

    /// The outputs that the backend must give for a caller who wants these; empty means all.
    pub(super) fn wanted(&self, outputs: &mut Vec<Arc<str>>) {
        if !outputs.is_empty() {
            outputs.extend(self.states.iter().map(|keeping| keeping.state.output.clone()));
        }
    }

    /// Takes what is kept out of a row's outputs, leaving what callers may see.
    pub(super) fn take(&self, outputs: &mut Vec<Tensor>) -> Result<Option<Kept<Values>>> {
        if self.states.is_empty() {
            return Ok(None);
        }
        let values = self.states.iter().map(|keeping| keeping.take(outputs));
        let values = values.collect::<Result<Values>>()?;
        outputs.retain(|output| {
            !self
                .states
                .iter()
                .any(|keeping| !keeping.is_public && keeping.state.output == output.name)
        });
        let form = self.form(&values);
        Ok(Some(Kept { state: values, form }))
    }

    fn form(&self, values: &[Tensor]) -> Form {
        let variable = self.states.iter().zip(values).filter(|(keeping, _)| keeping.is_variable);
        let sizes = variable.flat_map(|(_, tensor)| tensor.shape.iter().copied());
        Form { sizes: sizes.collect(), ..Form::default() }
    }
}

impl Keeping {
    fn take(&self, outputs: &[Tensor]) -> Result<Tensor> {
        let State { input, output, datatype, dims, .. } = &self.state;
        let found = outputs.iter().find(|tensor| tensor.name == *output);
        let found = found.ok_or_else(|| {
            Error::internal(format!("the model did not give output `{output}`, which is its state"))
        })?;
        let own = &found.shape[found.shape.len().saturating_sub(dims.len())..];
        let fits = own.len() == dims.len()
            && own.iter().zip(dims).all(|(size, dim)| *dim == VARIABLE || size == dim);
        if found.datatype != *datatype || !fits {
            return Err(Error::internal(format!(
                "output `{output}` of the model is {} of shape {:?}, where its state is {datatype} \
                 of shape {dims:?}",
                found.datatype, found.shape
            )));
        }
        Ok(found.clone().renamed(input.clone()))
    }
}

#[cfg(test)]
mod tests {
    use consort_stage::{DataType, TensorSpec};

    use super::*;

    fn states(dims: &[i64]) -> States {
        let state = |input: &str, output: &str| State {
            input: input.into(),
            output: output.into(),
            datatype: DataType::Int32,
            dims: dims.to_vec(),
            initial: None,
        };
        let initial = ["in", "seen_in"].map(|name| Tensor::from_vec(name, &[1, 1], vec![0_i32]));
        let outputs = vec![TensorSpec::new("seen_out", DataType::Int32, dims)];
        let signature = Signature { outputs, ..Signature::default() };
        let list = vec![state("in", "out"), state("seen_in", "seen_out")];
        States::new(list, initial.to_vec(), &signature)
    }

    fn outputs(size: i64) -> Vec<Tensor> {
        let tensor = |name| Tensor::from_vec(name, &[1, size], vec![3_i32; size as usize]);
        ["y", "out", "seen_out"].map(tensor).to_vec()
    }

    #[test]
    fn a_state_is_kept_without_a_copy_and_shown_only_where_it_is_an_output() {
        let mut outputs = outputs(1);
        let before = outputs[1].data.as_ptr();
        let kept = states(&[1]).take(&mut outputs).unwrap().unwrap();
        assert_eq!((&*kept.state[0].name, kept.state[0].data.as_ptr()), ("in", before));
        let names: Vec<_> = outputs.iter().map(|output| &*output.name).collect();
        assert_eq!(names, ["y", "seen_out"]);
        assert_eq!(kept.form, Form::default());
    }

    #[test]
    fn a_state_of_any_size_batches_with_those_of_its_size() {
        let states = states(&[-1]);
        let kept = states.take(&mut outputs(2)).unwrap().unwrap();
        assert_ne!(kept.form, states.initial_form());
        assert_eq!(states.take(&mut outputs(2)).unwrap().unwrap().form, kept.form);
    }

    #[test]
    fn a_state_that_is_missing_or_of_another_shape_is_named() {
        let missing = states(&[1]).take(&mut outputs(1)[..1].to_vec()).unwrap_err();
        assert!(missing.message().contains("`out`"), "{missing}");
        let wrong = states(&[1]).take(&mut outputs(2)).unwrap_err();
        assert!(wrong.message().contains("[1, 2]"), "{wrong}");
    }
}
