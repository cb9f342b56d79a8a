//! The backend `classifier`: labels and scores out of a model's logits.

use std::cmp::Ordering;
use std::str::FromStr;
use std::sync::Arc;

use consort_config::Model;
use consort_repository::{Backend, Instance, Kind, read_labels};
use consort_stage::{Batch, DataType, Error, InlineBackend, Result, Tensor, TensorSpec};

use crate::numbers::{float_tensor, floats, last_dimension};
use crate::roles;

/// The backend `classifier`.
pub(crate) const KIND: Kind = Kind::new("classifier", |instance| {
    let labels = labels_of(instance)?;
    Ok(Backend::Inline(Arc::new(Classifier::new(instance.model, labels)?)))
});

const FLOATS: &[DataType] = &[DataType::Fp32, DataType::Fp16];
const INTEGERS: &[DataType] = &[DataType::Int32, DataType::Int64];

/// How logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation {
    /// One class is right: the scores of all sum to one.
    Softmax,
    /// Each class is right or wrong by itself.
    Sigmoid,
    /// The logits are scores already.
    None,
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "softmax" => Ok(Self::Softmax),
            "sigmoid" => Ok(Self::Sigmoid),
            "none" => Ok(Self::None),
            _ => Err(Error::invalid(format!(
                "parameter `activation` must be `softmax`, `sigmoid` or `none`, not `{text}`"
            ))),
        }
    }
}

/// Scores `[…, classes]` and gives the best `k` of each row, best first.
struct Classifier {
    activation: Activation,
    /// How many classes are given; `None` for all.
    top_k: Option<usize>,
    labels: Vec<String>,
    logits: Arc<str>,
    label: Option<Arc<str>>,
    score: Option<(Arc<str>, DataType)>,
    index: Option<(Arc<str>, DataType)>,
}

impl Classifier {
    fn new(model: &Model, labels: Vec<String>) -> Result<Self> {
        let settings = &model.settings;
        settings.only(&["activation", "top_k", "labels", "logits_input"])?;
        let logits = roles::input(model, "logits_input", &["logits"])?
            .or_else(|| roles::input_of_type(model, FLOATS))
            .ok_or_else(|| roles::missing(model, "an input `logits` of TYPE_FP32"))?;
        model.check_type(logits, FLOATS)?;
        let label = roles::output(model, &[DataType::Bytes]);
        let score = roles::output(model, FLOATS);
        let index = roles::output(model, INTEGERS);
        let outputs = [label, score, index];
        let used = outputs.iter().flatten().chain([&logits]);
        roles::check_all_used(model, &used.map(|spec| &*spec.name).collect::<Vec<_>>())?;
        if label.is_some() && labels.is_empty() {
            return Err(roles::missing(
                model,
                "labels, because it has an output of TYPE_STRING; give that output a `label_filename`",
            ));
        }
        let top_k = match settings.parse_or("top_k", 0_usize)? {
            0 => outputs.iter().flatten().find_map(|spec| fixed_size(spec)),
            top_k => Some(top_k),
        };
        let typed = |spec: &TensorSpec| (spec.name.clone(), spec.datatype);
        Ok(Self {
            activation: settings.get("activation").unwrap_or("softmax").parse()?,
            top_k,
            labels,
            logits: logits.name.clone(),
            label: label.map(|spec| spec.name.clone()),
            score: score.map(typed),
            index: index.map(typed),
        })
    }

    fn check_classes(&self, classes: usize) -> Result<()> {
        let most = if self.labels.is_empty() { usize::MAX } else { self.labels.len() };
        if classes <= most && classes >= self.top_k.unwrap_or(0) {
            return Ok(());
        }
        let contrast = match self.top_k {
            Some(top_k) if classes < top_k => format!("the best {top_k} are wanted"),
            _ => format!("there are {most} labels"),
        };
        let message = format!("input `{}` has {classes} classes, but {contrast}", self.logits);
        Err(Error::invalid(message).of_input(Some(&*self.logits)))
    }

    /// The best classes of one row with their scores.
    fn best(&self, logits: &[f32], count: usize) -> Vec<(usize, f32)> {
        let mut scored: Vec<(usize, f32)> = logits.iter().copied().enumerate().collect();
        if count < scored.len() && count > 0 {
            scored.select_nth_unstable_by(count - 1, best_first);
        }
        scored.truncate(count);
        scored.sort_unstable_by(best_first);
        let scale = Scale::new(self.activation, logits);
        for (_, score) in &mut scored {
            *score = scale.score(*score);
        }
        scored
    }
}

impl InlineBackend for Classifier {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        let logits = batch.input(&self.logits);
        let logits =
            logits.ok_or_else(|| Error::invalid(format!("input `{}` is missing", self.logits)))?;
        let (classes, leading) = last_dimension(logits)?;
        self.check_classes(classes)?;
        let count = self.top_k.unwrap_or(classes);
        let values = floats(logits)?;
        let rows = values.chunks_exact(classes.max(1));
        let best: Vec<(usize, f32)> = rows.flat_map(|row| self.best(row, count)).collect();
        let shape: Vec<i64> = leading.iter().copied().chain([count as i64]).collect();
        let mut outputs = Vec::with_capacity(3);
        if let Some(name) = self.label.as_ref().filter(|name| batch.wants(name)) {
            let labels: Vec<&str> = best.iter().map(|(class, _)| &*self.labels[*class]).collect();
            outputs.push(Tensor::from_strings(name.clone(), &shape, &labels));
        }
        if let Some((name, datatype)) = self.score.as_ref().filter(|(name, _)| batch.wants(name)) {
            let scores = best.iter().map(|(_, score)| *score).collect();
            outputs.push(float_tensor(name, *datatype, &shape, scores));
        }
        if let Some((name, datatype)) = self.index.as_ref().filter(|(name, _)| batch.wants(name)) {
            let indices = best.iter().map(|(class, _)| *class as i64);
            outputs.push(integer_tensor(name, *datatype, &shape, indices));
        }
        Ok(outputs)
    }
}

/// What turns the logits of one row into scores.
enum Scale {
    /// Softmax with its greatest logit taken out, so that nothing overflows.
    Softmax {
        greatest: f32,
        sum: f32,
    },
    Sigmoid,
    None,
}

impl Scale {
    fn new(activation: Activation, logits: &[f32]) -> Self {
        match activation {
            Activation::Sigmoid => Self::Sigmoid,
            Activation::None => Self::None,
            Activation::Softmax => {
                let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum = logits.iter().map(|logit| weight(*logit, greatest)).sum();
                Self::Softmax { greatest, sum }
            }
        }
    }

    fn score(&self, logit: f32) -> f32 {
        match self {
            Self::Softmax { sum: 0.0, .. } => 0.0,
            Self::Softmax { greatest, sum } => weight(logit, *greatest) / sum,
            Self::Sigmoid if logit.is_nan() => 0.0,
            Self::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
            Self::None => logit,
        }
    }
}

/// `exp(logit - greatest)`; nothing for what is not a number, one for an infinite greatest.
fn weight(logit: f32, greatest: f32) -> f32 {
    if logit.is_nan() || logit == f32::NEG_INFINITY {
        return 0.0;
    }
    if logit == f32::INFINITY {
        return 1.0;
    }
    (logit - greatest).exp()
}

/// Greater logits first, equal ones by class, what is not a number last.
fn best_first(one: &(usize, f32), other: &(usize, f32)) -> Ordering {
    let rank = |logit: f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit };
    let by_nan = one.1.is_nan().cmp(&other.1.is_nan());
    let by_logit = rank(other.1).total_cmp(&rank(one.1));
    by_nan.then(by_logit).then(one.0.cmp(&other.0))
}

fn integer_tensor(
    name: &Arc<str>,
    datatype: DataType,
    shape: &[i64],
    values: impl Iterator<Item = i64>,
) -> Tensor {
    if datatype == DataType::Int32 {
        let values: Vec<i32> = values.map(|value| value as i32).collect();
        return Tensor::from_vec(name.clone(), shape, values);
    }
    Tensor::from_vec(name.clone(), shape, values.collect::<Vec<i64>>())
}

/// The size of the last dimension of `spec`, when the configuration fixes it.
fn fixed_size(spec: &TensorSpec) -> Option<usize> {
    let dims = spec.reshape.as_ref().unwrap_or(&spec.dims);
    dims.last().and_then(|size| usize::try_from(*size).ok())
}

/// The labels in the file that parameter `labels` or an output's `label_filename` names, one a
/// line, in the order of the classes; none without such a file.
fn labels_of(instance: &Instance<'_>) -> Result<Vec<String>> {
    let model = instance.model;
    let of_output = model.wire.output.iter().map(|output| output.label_filename.as_str());
    let of_output = of_output.into_iter().find(|name| !name.is_empty());
    let Some(name) = model.settings.get("labels").or(of_output) else {
        return Ok(Vec::new());
    };
    read_labels(name, &model.name, instance.model_folder)
}

#[cfg(test)]
mod tests {
    use consort_stage::Code;

    use super::*;

    fn classifier(parameters: &[(&str, &str)]) -> Result<Classifier> {
        let inputs = [TensorSpec::new("logits", DataType::Fp32, &[-1])];
        let outputs = [
            TensorSpec::new("label", DataType::Bytes, &[-1]),
            TensorSpec::new("score", DataType::Fp32, &[-1]),
            TensorSpec::new("index", DataType::Int32, &[-1]),
        ];
        let model = Model::plain_batching("classifier", &inputs, &outputs, parameters);
        Classifier::new(&model, ["ham", "spam", "eggs"].map(String::from).to_vec())
    }

    struct Answer {
        labels: Vec<String>,
        scores: Vec<f32>,
        indices: Vec<i32>,
    }

    fn run(backend: &Classifier, rows: i64, logits: &[f32]) -> Result<Answer> {
        let shape = [rows, logits.len() as i64 / rows];
        let inputs = vec![Tensor::from_vec("logits", &shape, logits.to_vec())];
        let outputs = backend.run(Batch { inputs, ..Batch::default() })?;
        for output in &outputs {
            output.check()?;
        }
        let text = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
        Ok(Answer {
            labels: outputs[0].to_strings()?.into_iter().map(text).collect(),
            scores: outputs[1].to_slice()?.to_vec(),
            indices: outputs[2].to_slice()?.to_vec(),
        })
    }

    fn is_close(one: &[f32], other: &[f32]) -> bool {
        one.len() == other.len() && one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    #[test]
    fn the_best_labels_come_first_with_softmax_scores() {
        let backend = classifier(&[("top_k", "2")]).unwrap();
        let answer = run(&backend, 1, &[1.0, 3.0, 2.0]).unwrap();
        assert_eq!(answer.labels, ["spam", "eggs"]);
        assert_eq!(answer.indices, [1, 2]);
        assert!(is_close(&answer.scores, &[0.665_240_9, 0.244_728_5]));
    }

    #[test]
    fn sigmoid_scores_each_class_by_itself() {
        let backend = classifier(&[("activation", "sigmoid")]).unwrap();
        let answer = run(&backend, 1, &[0.0, 200.0, -200.0]).unwrap();
        assert_eq!(answer.labels, ["spam", "ham", "eggs"]);
        assert!(is_close(&answer.scores, &[1.0, 0.5, 0.0]));
    }

    #[test]
    fn logits_that_are_huge_or_no_numbers_give_scores_nevertheless() {
        let backend = classifier(&[]).unwrap();
        let scores = |logits: &[f32]| run(&backend, 1, logits).unwrap().scores;
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        assert!(is_close(&scores(&[1e30, 1e30, -1e30]), &[0.5, 0.5, 0.0]));
        assert!(is_close(&scores(&[nan, 5.0, nan]), &[1.0, 0.0, 0.0]));
        assert!(is_close(&scores(&[nan; 3]), &[0.0; 3]));
        assert!(is_close(&scores(&[infinity, 1.0, infinity]), &[0.5, 0.5, 0.0]));
        assert!(is_close(&scores(&[-infinity; 3]), &[0.0; 3]));
        assert_eq!(run(&backend, 1, &[nan, -infinity, 5.0]).unwrap().indices, [2, 1, 0]);
    }

    #[test]
    fn a_batch_is_the_same_as_its_rows_alone() {
        let backend = classifier(&[("top_k", "2")]).unwrap();
        let (one, other) = ([0.5, -1.0, 0.25], [2.0, 2.0, 2.0]);
        let together = run(&backend, 2, &[one, other].concat()).unwrap();
        let alone = [run(&backend, 1, &one).unwrap(), run(&backend, 1, &other).unwrap()];
        assert_eq!(together.scores, [&*alone[0].scores, &*alone[1].scores].concat());
        assert_eq!(together.labels, ["ham", "eggs", "ham", "spam"]);
    }

    #[test]
    fn classes_that_do_not_fit_the_labels_are_refused() {
        let backend = classifier(&[]).unwrap();
        let error = run(&backend, 1, &[0.0; 4]).err().unwrap();
        assert_eq!(error.code(), Code::InvalidInput);
        assert!(error.message().contains("4 classes, but there are 3 labels"), "{error}");
        let backend = classifier(&[("top_k", "3")]).unwrap();
        assert!(run(&backend, 1, &[0.0; 2]).err().unwrap().message().contains("best 3"));
    }

    #[test]
    fn labels_are_needed_for_an_output_of_labels() {
        let inputs = [TensorSpec::new("logits", DataType::Fp32, &[2])];
        let outputs = [TensorSpec::new("label", DataType::Bytes, &[1])];
        let model = Model::plain_batching("classifier", &inputs, &outputs, &[]);
        let error = Classifier::new(&model, Vec::new()).err().unwrap();
        assert!(error.message().contains("label_filename"), "{error}");
    }
}
