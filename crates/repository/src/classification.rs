//! The `classification` extension: the highest elements of an output as `value:index:label`.

use std::cmp::Ordering;
use std::sync::Arc;

use consort_stage::{DataType, Element, Error, Response, Result, Tensor, encode_strings};

use crate::models::Served;

/// Puts the highest elements in the place of each output that `classes` names.
pub fn classify_outputs(
    served: &Served,
    classes: &[(Arc<str>, usize)],
    response: &mut Response,
) -> Result<()> {
    for (name, count) in classes {
        if let Some(output) = response.outputs.iter_mut().find(|output| output.name == *name) {
            *output = classify(served, output, *count)?;
        }
    }
    Ok(())
}

/// The `BYTES` tensor that stands for `output`: for each batch entry its `classes` highest elements.
pub fn classify(served: &Served, output: &Tensor, classes: usize) -> Result<Tensor> {
    let is_batching = served.signature.is_batching();
    let batch = output.shape.first().filter(|_| is_batching).unwrap_or(&1);
    let length = output.len().checked_div(*batch as usize).unwrap_or(0);
    let rows = Rows { output, length, classes, labels: served.labels.of(&output.name) };
    let strings = match output.datatype {
        DataType::Uint8 => rows.integers::<u8>(),
        DataType::Uint16 => rows.integers::<u16>(),
        DataType::Uint32 => rows.integers::<u32>(),
        DataType::Uint64 => rows.integers::<u64>(),
        DataType::Int8 => rows.integers::<i8>(),
        DataType::Int16 => rows.integers::<i16>(),
        DataType::Int32 => rows.integers::<i32>(),
        DataType::Int64 => rows.integers::<i64>(),
        DataType::Fp32 => rows.top(f32::total_cmp, |value| format!("{value:.6}")),
        DataType::Fp64 => rows.top(f64::total_cmp, |value| format!("{value:.6}")),
        DataType::Bool | DataType::Bytes | DataType::Fp16 | DataType::Bf16 => {
            Err(Error::invalid(format!(
                "class result not available for output '{}' due to unsupported type '{}'",
                output.name, output.datatype
            )))
        }
    }?;
    let classes = classes.min(rows.length) as i64;
    let shape = if is_batching { vec![*batch, classes] } else { vec![classes] };
    let name = Arc::clone(&output.name);
    Tensor::new(name, DataType::Bytes, shape, encode_strings(&strings))
}

/// An output seen as one row of `length` elements for each batch entry.
struct Rows<'a> {
    output: &'a Tensor,
    length: usize,
    classes: usize,
    /// In the order of the elements; those beyond have none.
    labels: &'a [String],
}

impl Rows<'_> {
    fn integers<T: Element + Ord + ToString>(&self) -> Result<Vec<String>> {
        self.top::<T>(Ord::cmp, ToString::to_string)
    }

    /// The highest elements of each row as `value:index:label`, without a label where there is
    /// none; of equal ones the earlier comes first.
    fn top<T: Element>(
        &self,
        compare: fn(&T, &T) -> Ordering,
        text: fn(&T) -> String,
    ) -> Result<Vec<String>> {
        let values = self.output.to_slice::<T>()?;
        let mut strings = Vec::new();
        for row in values.chunks(self.length.max(1)) {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|a, b| compare(&row[*b], &row[*a]));
            let best = order.iter().take(self.classes);
            strings.extend(best.map(|index| self.named(*index, &text(&row[*index]))));
        }
        Ok(strings)
    }

    fn named(&self, index: usize, value: &str) -> String {
        match self.labels.get(index).filter(|label| !label.is_empty()) {
            Some(label) => format!("{value}:{index}:{label}"),
            None => format!("{value}:{index}"),
        }
    }
}
