//! What requests must have in common to share a batch.

use consort_stage::{Parameters, Request, is_directive};

use crate::assembly::{Layout, variable_axes};

/// Requests share a batch only when these are equal: which inputs they have, every dimension that
/// is neither padded nor ragged, and what they tell the backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Likeness {
    /// For each input there is: its place in the signature and its dimensions.
    shapes: Vec<i64>,
    parameters: Parameters,
}

impl Likeness {
    /// A likeness of its own for each number.
    #[cfg(test)]
    pub(crate) fn with_shape(shape: i64) -> Self {
        Self { shapes: vec![shape], ..Self::default() }
    }

    /// The likeness of a request whose inputs have `length` along their variable axis.
    pub(crate) fn of(request: &Request, layout: &Layout, length: Option<i64>) -> Self {
        let is_padded = layout.pads() && length.is_some();
        let mut shapes = vec![i64::from(is_padded)];
        for (place, spec) in layout.signature().inputs.iter().enumerate() {
            let Some(tensor) = request.input(&spec.name) else { continue };
            shapes.push(place as i64);
            if layout.joins_flat(spec) {
                continue;
            }
            let padded = variable_axes(spec).next().filter(|_| is_padded);
            let dims = tensor.shape.iter().enumerate().skip(1);
            shapes.extend(dims.filter(|(axis, _)| Some(*axis) != padded).map(|(_, dim)| *dim));
        }
        let told = request.parameters.iter().filter(|(name, _)| !is_directive(name));
        let parameters = told.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { shapes, parameters }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use consort_stage::{DataType, Parameter, Signature, Tensor, TensorSpec};

    use super::*;

    fn layout(pads: bool) -> Layout {
        let mut optional = TensorSpec::new("hint", DataType::Int32, &[1]);
        optional.is_optional = true;
        let inputs = vec![TensorSpec::new("ids", DataType::Int32, &[-1]), optional];
        Layout::new(Arc::new(Signature { max_batch_size: 8, inputs, ..Signature::default() }), pads)
    }

    fn request(length: usize, has_hint: bool) -> Request {
        let ids = Tensor::from_vec("ids", &[1, length as i64], vec![0_i32; length]);
        let hint = has_hint.then(|| Tensor::from_vec("hint", &[1, 1], vec![0_i32]));
        Request { inputs: hint.into_iter().chain([ids]).collect(), ..Request::default() }
    }

    fn alike(one: &Request, other: &Request, pads: bool) -> bool {
        let layout = layout(pads);
        let of = |request| Likeness::of(request, &layout, layout.length(request));
        of(one) == of(other)
    }

    #[test]
    fn lengths_may_differ_only_where_they_are_padded() {
        assert!(alike(&request(3, false), &request(3, false), false));
        assert!(!alike(&request(3, false), &request(4, false), false));
        assert!(alike(&request(3, false), &request(4, false), true));
    }

    #[test]
    fn requests_with_other_optional_inputs_are_unlike() {
        assert!(alike(&request(3, true), &request(3, true), true));
        assert!(!alike(&request(3, true), &request(3, false), true));
    }

    #[test]
    fn ragged_inputs_may_have_any_shape() {
        let mut layout = layout(false);
        let mut signature = layout.signature().clone();
        signature.inputs[0].is_ragged = true;
        layout = Layout::new(Arc::new(signature), layout.pads());
        let of = |length, has_hint| {
            let request = request(length, has_hint);
            Likeness::of(&request, &layout, layout.length(&request))
        };
        assert_eq!(of(3, true), of(4, true));
        assert_ne!(of(3, true), of(4, false));
    }

    #[test]
    fn what_the_backend_is_told_must_be_the_same_and_what_the_scheduler_is_told_need_not() {
        let mut one = request(3, false);
        one.parameters.insert("priority".into(), Parameter::Uint(1));
        assert!(alike(&one, &request(3, false), false));
        one.parameters.insert("mode".into(), Parameter::Uint(1));
        assert!(!alike(&one, &request(3, false), false));
    }
}
