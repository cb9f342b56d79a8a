//! Whether a tensor fits where it goes, and how a batch dimension comes and goes on the way.

use consort_stage::{Tensor, VARIABLE};

use crate::plan::{PlannedInput, PlannedTensor};

/// Whether some tensor fits both ends of an edge, seen with or without its batch dimension.
pub(crate) fn shapes_agree(from: &PlannedTensor, to: &PlannedInput) -> bool {
    let full = |dims: &[i64], is_batched: bool| {
        if is_batched { [&[VARIABLE], dims].concat() } else { dims.to_vec() }
    };
    let (made, wanted) = (&from.spec.dims, &to.spec.dims);
    overlap(made, wanted) || overlap(&full(made, from.is_batched), &full(wanted, to.is_batched))
}

fn overlap(left: &[i64], right: &[i64]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(a, b)| a == b || *a == VARIABLE || *b == VARIABLE)
}

/// The tensor as the receiving side names and shapes it.
///
/// Into a batching receiver from a source without batch: a shape that matches the receiver's
/// dimensions gets a batch of one, any other is taken as batched already. Out of a batching
/// source into a receiver without: passed whole when it fits so, else a batch of one is taken
/// off. What fits neither way is left for the receiver to refuse.
pub(crate) fn deliver(mut tensor: Tensor, to: &PlannedInput, from_batched: bool) -> Tensor {
    tensor.name = to.spec.name.clone();
    match (from_batched, to.is_batched) {
        (false, true) if to.spec.accepts(&tensor.shape) => tensor.shape.insert(0, 1),
        (true, false) if !to.spec.accepts(&tensor.shape) && tensor.shape.first() == Some(&1) => {
            tensor.shape.remove(0);
        }
        _ => {}
    }
    tensor
}

#[cfg(test)]
mod tests {
    use consort_stage::{DataType, TensorSpec};

    use super::*;

    fn shape_after(shape: &[i64], from_batched: bool, dims: &[i64], to_batched: bool) -> Vec<i64> {
        let to = PlannedInput {
            tensor: 0,
            spec: TensorSpec::new("y", DataType::Int8, dims),
            is_batched: to_batched,
        };
        let count = shape.iter().product::<i64>() as usize;
        deliver(Tensor::from_vec("x", shape, vec![0_i8; count]), &to, from_batched).shape
    }

    #[test]
    fn a_batch_dimension_comes_and_goes() {
        assert_eq!(shape_after(&[4], false, &[4], true), [1, 4]);
        assert_eq!(shape_after(&[3, 4], false, &[4], true), [3, 4]);
        assert_eq!(shape_after(&[1, 4], true, &[4], false), [4]);
        assert_eq!(shape_after(&[3, 4], true, &[-1, 4], false), [3, 4]);
        assert_eq!(shape_after(&[3, 4], true, &[4], false), [3, 4]);
        assert_eq!(shape_after(&[2, 4], true, &[4], true), [2, 4]);
    }
}
