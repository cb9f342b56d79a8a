//! Signatures written in one line.

use consort_stage::{DataType, Signature, TensorSpec};

/// The signature that `text` describes: `8: IN FP32[4], HINT BYTES[1]? -> OUT FP32[-1]`.
///
/// The number in front is `max_batch_size` (0 without one), a question mark makes an input
/// optional, and `->>` instead of `->` makes the model decoupled.
pub fn signature(text: &str) -> Signature {
    let (batch, text) = text.split_once(':').unwrap_or(("0", text));
    let (inputs, outputs) = text.split_once("->").expect("a signature has an arrow");
    let (is_decoupled, outputs) = match outputs.strip_prefix('>') {
        Some(outputs) => (true, outputs),
        None => (false, outputs),
    };
    Signature {
        max_batch_size: batch.trim().parse().expect("the batch size is a number"),
        inputs: tensors(inputs),
        outputs: tensors(outputs),
        is_decoupled,
    }
}

fn tensors(text: &str) -> Vec<TensorSpec> {
    let text = text.trim();
    // Commas also part the dimensions, so a tensor ends behind its bracket.
    text.split_inclusive(']').map(str::trim).filter(|part| !part.is_empty()).fold(
        Vec::new(),
        |mut tensors: Vec<TensorSpec>, part| {
            let optional = part.strip_prefix('?');
            if let (Some(_), Some(before)) = (optional, tensors.last_mut()) {
                before.is_optional = true;
            }
            let part = optional.unwrap_or(part).trim_start_matches(',').trim();
            if !part.is_empty() {
                tensors.push(tensor(part));
            }
            tensors
        },
    )
}

fn tensor(text: &str) -> TensorSpec {
    let (name, rest) = text.split_once(' ').expect("a tensor has a name and a type");
    let (datatype, dims) = rest.split_once('[').expect("a tensor has dimensions");
    let dims: Vec<i64> = dims
        .trim_end_matches(']')
        .split(',')
        .filter(|dim| !dim.trim().is_empty())
        .map(|dim| dim.trim().parse().expect("a dimension is a number"))
        .collect();
    let datatype = DataType::from_name(datatype.trim()).expect("the type is one of the wire's");
    TensorSpec::new(name, datatype, &dims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_it_all() {
        let read = signature("8: IN FP32[4, -1], HINT BYTES[1]?, Z INT8[]->> OUT FP32[-1]");
        let hint =
            TensorSpec { is_optional: true, ..TensorSpec::new("HINT", DataType::Bytes, &[1]) };
        assert_eq!(
            read,
            Signature {
                max_batch_size: 8,
                inputs: vec![
                    TensorSpec::new("IN", DataType::Fp32, &[4, -1]),
                    hint,
                    TensorSpec::new("Z", DataType::Int8, &[]),
                ],
                outputs: vec![TensorSpec::new("OUT", DataType::Fp32, &[-1])],
                is_decoupled: true,
            }
        );
    }
}
