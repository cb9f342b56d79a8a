//! Shows a tensor to the backend, and back to the caller, in the shape that `reshape` asks for.

use consort_stage::{Signature, Tensor, TensorSpec, VARIABLE};

/// Gives every input that has a `reshape` the shape its backend sees.
pub(super) fn inputs(signature: &Signature, tensors: &mut [Tensor]) {
    for tensor in tensors {
        let spec = signature.input(&tensor.name);
        if let Some((spec, reshape)) = spec.and_then(with_reshape) {
            tensor.shape = reshaped(signature, &tensor.shape, &spec.dims, reshape);
        }
    }
}

/// Gives every output that has a `reshape` the shape its caller sees.
pub(super) fn outputs(signature: &Signature, tensors: &mut [Tensor]) {
    for tensor in tensors {
        let spec = signature.output(&tensor.name);
        if let Some((spec, reshape)) = spec.and_then(with_reshape) {
            tensor.shape = reshaped(signature, &tensor.shape, reshape, &spec.dims);
        }
    }
}

fn with_reshape(spec: &TensorSpec) -> Option<(&TensorSpec, &Vec<i64>)> {
    spec.reshape.as_ref().map(|reshape| (spec, reshape))
}

/// `shape` with its dimensions `from` replaced by `to`; the variable dimensions of both lists
/// correspond in their order, as the configuration's check has made sure.
fn reshaped(signature: &Signature, shape: &[i64], from: &[i64], to: &[i64]) -> Vec<i64> {
    let (batch, dims) = shape.split_at(usize::from(signature.is_batching()).min(shape.len()));
    let variable = |(size, dim): (&i64, &i64)| (*dim == VARIABLE).then_some(*size);
    let mut sizes = dims.iter().zip(from).filter_map(variable);
    let tail = to.iter().map(|dim| match *dim {
        VARIABLE => sizes.next().unwrap_or(1),
        fixed => fixed,
    });
    batch.iter().copied().chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use consort_stage::DataType;

    use super::*;

    #[test]
    fn a_scalar_and_a_variable_shape_are_reshaped_both_ways() {
        let mut scalar = TensorSpec::new("x", DataType::Int8, &[1]);
        scalar.reshape = Some(vec![]);
        let mut rows = TensorSpec::new("y", DataType::Int8, &[-1, 2, 2]);
        rows.reshape = Some(vec![4, -1]);
        let signature = Signature {
            max_batch_size: 8,
            inputs: vec![scalar.clone(), rows.clone()],
            outputs: vec![scalar, rows],
            is_decoupled: false,
        };
        let mut tensors = [
            Tensor::from_vec("x", &[2, 1], vec![0_i8; 2]),
            Tensor::from_vec("y", &[2, 3, 2, 2], vec![0_i8; 24]),
        ];
        inputs(&signature, &mut tensors);
        assert_eq!(tensors[0].shape, [2]);
        assert_eq!(tensors[1].shape, [2, 4, 3]);
        outputs(&signature, &mut tensors);
        assert_eq!(tensors[0].shape, [2, 1]);
        assert_eq!(tensors[1].shape, [2, 3, 2, 2]);
    }
}
