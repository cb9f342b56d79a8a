//! Compares the tensors that a configuration states with those in the model file.

use consort_protocol::{
    DataType as WireType, ModelConfig, ModelInput, ModelOutput, ModelTensorReshape,
};
use consort_stage::{ShapeText, TensorSpec, VARIABLE};

use super::{File, wire_type};
use crate::nearest::did_you_mean;
use crate::report::Report;

/// Completes the inputs that are stated, noting where they contradict the file.
pub(super) fn inputs(file: &File<'_>, inputs: &mut [ModelInput], report: &mut Report) {
    for (index, input) in inputs.iter_mut().enumerate() {
        let ModelInput { name, data_type, dims, reshape, allow_ragged_batch, .. } = input;
        let ragged = allow_ragged_batch.then_some(Ragged::Joined).filter(|_| file.is_batching);
        let path = format!("input[{index}]");
        let mut stated = Stated { path, name, data_type, dims, reshape, ragged };
        stated.fit(file, &file.signature.inputs, report);
    }
}

/// Completes the outputs that are stated, noting where they contradict the file.
pub(super) fn outputs(file: &File<'_>, config: &mut ModelConfig, report: &mut Report) {
    let ModelConfig { output, batch_output, .. } = config;
    for (index, output) in output.iter_mut().enumerate() {
        let ModelOutput { name, data_type, dims, reshape, .. } = output;
        let is_cut = batch_output.iter().any(|cut| cut.target_name.contains(name));
        let ragged = is_cut.then_some(Ragged::Cut).filter(|_| file.is_batching);
        let path = format!("output[{index}]");
        let mut stated = Stated { path, name, data_type, dims, reshape, ragged };
        stated.fit(file, &file.signature.outputs, report);
    }
}

/// A tensor as the configuration states it.
struct Stated<'a> {
    path: String,
    name: &'a str,
    data_type: &'a mut i32,
    dims: &'a mut Vec<i64>,
    reshape: &'a mut Option<ModelTensorReshape>,
    ragged: Option<Ragged>,
}

/// How the server changes the shape of a tensor in whose rows batches may differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ragged {
    /// The rows of an input come to the model in one dimension.
    Joined,
    /// An output is cut into rows, whatever shape the model gives it.
    Cut,
}

impl Stated<'_> {
    fn fit(&mut self, file: &File<'_>, specs: &[TensorSpec], report: &mut Report) {
        if self.name.is_empty() {
            return;
        }
        let Some(spec) = specs.iter().find(|spec| *spec.name == *self.name) else {
            self.unknown(file, specs, report);
            return;
        };
        self.fit_type(file, spec, report);
        if !self.dims.is_empty() {
            self.fit_dims(file, spec, report);
            return;
        }
        if self.ragged.is_some() {
            // The file knows no shape of a row.
            return;
        }
        let (dims, reshape) = file.dims(spec);
        *self.dims = dims;
        if self.reshape.is_none() {
            *self.reshape = reshape;
        }
    }

    fn fit_type(&mut self, file: &File<'_>, spec: &TensorSpec, report: &mut Report) {
        let wanted = wire_type(spec.datatype);
        let stated = WireType::try_from(*self.data_type).unwrap_or_default();
        if stated == WireType::TypeInvalid {
            *self.data_type = wanted.into();
        } else if stated != wanted {
            report.wrong(
                &format!("{}.data_type", self.path),
                format!(
                    "model '{}', tensor '{}': the model expects data type {}, but the \
                     configuration says {}",
                    file.model,
                    self.name,
                    wanted.as_str_name(),
                    stated.as_str_name()
                ),
            );
        }
    }

    fn fit_dims(&self, file: &File<'_>, spec: &TensorSpec, report: &mut Report) {
        let dims = self.reshape.as_ref().map_or(&*self.dims, |reshape| &reshape.shape);
        let batch = file.is_batching.then_some(VARIABLE);
        let stated: Vec<i64> = match self.ragged {
            Some(Ragged::Cut) => return,
            Some(Ragged::Joined) => vec![VARIABLE],
            None => batch.into_iter().chain(dims.iter().copied()).collect(),
        };
        let wanted = file.signature.full_shape(spec);
        let agrees = |(wanted, stated): (&i64, &i64)| *wanted == VARIABLE || wanted == stated;
        if wanted.len() == stated.len() && wanted.iter().zip(&stated).all(agrees) {
            return;
        }
        let note = match self.ragged {
            Some(_) => ", the rows of a ragged batch behind one another",
            None if file.is_batching => ", batch dimension included",
            None => "",
        };
        report.wrong(
            &format!("{}.dims", self.path),
            format!(
                "model '{}', tensor '{}': the model expects shape {}, but the configuration says \
                 {}{note}",
                file.model,
                self.name,
                ShapeText(&wanted),
                ShapeText(&stated)
            ),
        );
    }

    fn unknown(&self, file: &File<'_>, specs: &[TensorSpec], report: &mut Report) {
        let names: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
        let help = did_you_mean(self.name, names.iter().copied())
            .unwrap_or_else(|| format!("there are: {}", names.join(", ")));
        let message =
            format!("the file of model '{}' has no tensor '{}' there", file.model, self.name);
        report.wrong_but(&format!("{}.name", self.path), message, Some(help));
        report.taint(&self.path);
    }
}
