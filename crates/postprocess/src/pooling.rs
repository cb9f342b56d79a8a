//! The backend `pooling`: one vector for a text out of the vectors of its tokens.

use std::str::FromStr;
use std::sync::Arc;

use consort_config::Model;
use consort_repository::{Backend, Kind};
use consort_stage::{Batch, DataType, Error, InlineBackend, Result, ShapeText, Tensor};

use crate::numbers::{float_tensor, floats, integers, last_dimension};
use crate::roles;

/// The backend `pooling`.
pub(crate) const KIND: Kind =
    Kind::new("pooling", |instance| Ok(Backend::Inline(Arc::new(Pooling::new(instance.model)?))));

const FLOATS: &[DataType] = &[DataType::Fp32, DataType::Fp16];
const INTEGERS: &[DataType] = &[DataType::Int64, DataType::Int32];

/// The least length that a vector is divided by, so that a zero vector stays one.
const LEAST_NORM: f32 = 1e-12;

/// Which tokens make the vector of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The mean of all.
    Mean,
    /// The first.
    Cls,
    /// The last.
    Last,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "mean" => Ok(Self::Mean),
            "cls" => Ok(Self::Cls),
            "last" => Ok(Self::Last),
            _ => Err(Error::invalid(format!(
                "parameter `mode` must be `mean`, `cls` or `last`, not `{text}`"
            ))),
        }
    }
}

/// Pools `[…, tokens, size]` under a mask `[…, tokens]` to `[…, size]`.
struct Pooling {
    mode: Mode,
    normalizes: bool,
    hidden: Arc<str>,
    mask: Option<Arc<str>>,
    output: Arc<str>,
    output_type: DataType,
}

impl Pooling {
    fn new(model: &Model) -> Result<Self> {
        let settings = &model.settings;
        settings.only(&["mode", "normalize", "hidden_input", "mask_input"])?;
        let hidden = roles::input(model, "hidden_input", &["last_hidden_state", "hidden_states"])?
            .or_else(|| roles::input_of_type(model, FLOATS))
            .ok_or_else(|| roles::missing(model, "an input `last_hidden_state` of TYPE_FP32"))?;
        model.check_type(hidden, FLOATS)?;
        let mask = roles::input(model, "mask_input", &["attention_mask"])?
            .or_else(|| roles::input_of_type(model, INTEGERS));
        if let Some(mask) = mask {
            model.check_type(mask, INTEGERS)?;
        }
        let output = roles::output(model, FLOATS)
            .ok_or_else(|| roles::missing(model, "an output of TYPE_FP32 or TYPE_FP16"))?;
        let used = [Some(hidden), mask, Some(output)];
        let used: Vec<&str> = used.iter().flatten().map(|spec| &*spec.name).collect();
        roles::check_all_used(model, &used)?;
        Ok(Self {
            mode: settings.get("mode").unwrap_or("mean").parse()?,
            normalizes: settings.switch_or("normalize", false)?,
            hidden: hidden.name.clone(),
            mask: mask.map(|spec| spec.name.clone()),
            output: output.name.clone(),
            output_type: output.datatype,
        })
    }

    /// Writes the vector of one text into `vector`, which is all zeros.
    fn pool(&self, hidden: &[f32], mask: &[bool], vector: &mut [f32]) {
        let size = vector.len();
        let token = |index: usize| &hidden[index * size..][..size];
        match self.mode {
            Mode::Mean => mean(hidden, mask, vector),
            Mode::Cls => {
                if let Some(first) = mask.iter().position(|is_token| *is_token) {
                    vector.copy_from_slice(token(first));
                }
            }
            Mode::Last => {
                if let Some(last) = mask.iter().rposition(|is_token| *is_token) {
                    vector.copy_from_slice(token(last));
                }
            }
        }
        if self.normalizes {
            normalize(vector);
        }
    }
}

impl InlineBackend for Pooling {
    fn run(&self, batch: Batch) -> Result<Vec<Tensor>> {
        if !batch.wants(&self.output) {
            return Ok(Vec::new());
        }
        let hidden = batch.input(&self.hidden);
        let hidden =
            hidden.ok_or_else(|| Error::invalid(format!("input `{}` is missing", self.hidden)))?;
        let (size, tokens_shape) = last_dimension(hidden)?;
        let Some((tokens, leading)) = tokens_shape.split_last() else {
            return Err(Error::invalid(format!(
                "input `{}` has shape {}, but tokens and their vectors are needed",
                hidden.name,
                ShapeText(&hidden.shape)
            ))
            .of_input(Some(&*hidden.name)));
        };
        let tokens = *tokens as usize;
        let mask = match self.mask.as_deref().and_then(|name| batch.input(name)) {
            Some(mask) => read_mask(mask, tokens_shape)?,
            None => vec![true; tokens_shape.iter().product::<i64>() as usize],
        };
        let values = floats(hidden)?;
        let count = leading.iter().product::<i64>() as usize;
        let mut vectors = vec![0.0; count * size];
        for row in 0..count {
            self.pool(
                &values[row * tokens * size..][..tokens * size],
                &mask[row * tokens..][..tokens],
                &mut vectors[row * size..][..size],
            );
        }
        let shape: Vec<i64> = leading.iter().copied().chain([size as i64]).collect();
        Ok(vec![float_tensor(&self.output, self.output_type, &shape, vectors)])
    }
}

fn read_mask(mask: &Tensor, tokens_shape: &[i64]) -> Result<Vec<bool>> {
    if mask.shape != tokens_shape {
        return Err(Error::invalid(format!(
            "input `{}` has shape {}, but the tokens have shape {}",
            mask.name,
            ShapeText(&mask.shape),
            ShapeText(tokens_shape)
        ))
        .of_input(Some(&*mask.name)));
    }
    Ok(integers(mask)?.into_iter().map(|value| value != 0).collect())
}

fn mean(hidden: &[f32], mask: &[bool], vector: &mut [f32]) {
    if vector.is_empty() {
        return;
    }
    let mut count = 0.0_f32;
    for (token, _) in hidden.chunks_exact(vector.len()).zip(mask).filter(|(_, is_token)| **is_token)
    {
        count += 1.0;
        for (sum, value) in vector.iter_mut().zip(token) {
            *sum += value;
        }
    }
    let scale = 1.0 / count.max(1.0);
    for sum in vector {
        *sum *= scale;
    }
}

fn normalize(vector: &mut [f32]) {
    let norm = sum_of_squares(vector).sqrt().max(LEAST_NORM);
    for value in vector {
        *value /= norm;
    }
}

/// Sums in lanes, because one running sum would keep the compiler from using vector registers.
fn sum_of_squares(vector: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (chunks, rest) = vector.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * value;
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| value * value).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use consort_stage::{Code, TensorSpec};
    use half::f16;

    use super::*;

    fn pooling(parameters: &[(&str, &str)]) -> Result<Pooling> {
        let inputs = [
            TensorSpec::new("last_hidden_state", DataType::Fp32, &[-1, 3]),
            TensorSpec::new("attention_mask", DataType::Int64, &[-1]),
        ];
        let output = TensorSpec::new("embedding", DataType::Fp32, &[3]);
        Pooling::new(&Model::plain_batching("pooling", &inputs, &[output], parameters))
    }

    fn run(backend: &Pooling, hidden: Tensor, mask: &[i64]) -> Result<Vec<f32>> {
        let shape = &hidden.shape[..hidden.shape.len() - 1];
        let mask = Tensor::from_vec("attention_mask", shape, mask.to_vec());
        let batch = Batch { inputs: vec![hidden, mask], ..Batch::default() };
        let output = backend.run(batch)?.remove(0);
        assert_eq!(output.shape.last(), Some(&3));
        Ok(output.to_slice::<f32>()?.to_vec())
    }

    fn hidden(rows: i64, values: &[f32]) -> Tensor {
        let tokens = values.len() as i64 / 3 / rows;
        Tensor::from_vec("last_hidden_state", &[rows, tokens, 3], values.to_vec())
    }

    const ROW: [f32; 9] = [1.0, 2.0, 3.0, 3.0, 6.0, 9.0, 100.0, 100.0, 100.0];

    #[test]
    fn each_mode_passes_over_masked_tokens() {
        for (mode, mask, expected) in [
            ("mean", [1, 1, 0], [2.0, 4.0, 6.0]),
            ("cls", [0, 1, 1], [3.0, 6.0, 9.0]),
            ("last", [1, 1, 0], [3.0, 6.0, 9.0]),
            ("mean", [0, 0, 0], [0.0; 3]),
            ("last", [0, 0, 0], [0.0; 3]),
        ] {
            let backend = pooling(&[("mode", mode)]).unwrap();
            assert_eq!(run(&backend, hidden(1, &ROW), &mask).unwrap(), expected, "{mode}");
        }
    }

    #[test]
    fn a_normalized_vector_has_length_one_unless_it_is_zero() {
        let backend = pooling(&[("normalize", "true")]).unwrap();
        let vector = run(&backend, hidden(1, &ROW), &[1, 1, 0]).unwrap();
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-6);
        assert!((vector[0] - 2.0 / 56.0_f32.sqrt()).abs() < 1e-6);
        assert_eq!(run(&backend, hidden(1, &ROW), &[0, 0, 0]).unwrap(), [0.0; 3]);
    }

    #[test]
    fn a_batch_is_the_same_as_its_rows_alone() {
        let backend = pooling(&[("normalize", "true")]).unwrap();
        let second = ROW.map(|value| 0.1 - value);
        let together = run(&backend, hidden(2, &[ROW, second].concat()), &[1, 1, 0, 1, 1, 1]);
        let first = run(&backend, hidden(1, &ROW), &[1, 1, 0]).unwrap();
        let second = run(&backend, hidden(1, &second), &[1, 1, 1]).unwrap();
        assert_eq!(together.unwrap(), [first, second].concat());
    }

    #[test]
    fn half_precision_is_pooled_in_single_precision() {
        let backend = pooling(&[]).unwrap();
        let values = ROW.map(f16::from_f32).to_vec();
        let hidden = Tensor::from_vec("last_hidden_state", &[1, 3, 3], values);
        assert_eq!(run(&backend, hidden, &[1, 1, 0]).unwrap(), [2.0, 4.0, 6.0]);
    }

    #[test]
    fn shapes_that_do_not_fit_together_are_refused() {
        let backend = pooling(&[]).unwrap();
        let mask = Tensor::from_vec("attention_mask", &[1, 2], vec![1_i64, 1]);
        let batch = Batch { inputs: vec![hidden(1, &ROW), mask], ..Batch::default() };
        let error = backend.run(batch).unwrap_err();
        assert_eq!(error.code(), Code::InvalidInput);
        assert!(error.message().contains("`attention_mask` has shape [1,2]"), "{error}");
        let flat = Tensor::from_vec("last_hidden_state", &[3], vec![0.0_f32; 3]);
        let batch = Batch { inputs: vec![flat], ..Batch::default() };
        assert_eq!(backend.run(batch).unwrap_err().code(), Code::InvalidInput);
    }

    #[test]
    fn a_text_without_tokens_has_a_zero_vector() {
        let backend = pooling(&[("normalize", "true")]).unwrap();
        assert_eq!(run(&backend, hidden(1, &[]), &[]).unwrap(), [0.0; 3]);
    }

    #[test]
    fn an_unknown_mode_is_refused_at_load() {
        let error = pooling(&[("mode", "max")]).err().unwrap();
        assert!(error.message().contains("not `max`"), "{error}");
    }
}
