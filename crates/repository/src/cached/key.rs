//! What a response depends on, as a digest.
//!
//! The hash is cryptographic, so that nobody can make a request that is given the answer of
//! another; so nothing need be kept of a request to compare it with.

use blake3::Hasher;
use consort_stage::{Parameter, Request, is_directive};

use crate::response_cache::Key;

/// The digest of `request` to the stage that has the number `owner`.
///
/// The order of inputs and outputs makes no difference, nor does what only the scheduler reads.
pub(super) fn of(owner: u64, request: &Request) -> Key {
    let mut hasher = Hasher::new();
    hasher.update(&owner.to_le_bytes());
    let mut inputs: Vec<_> = request.inputs.iter().collect();
    inputs.sort_unstable_by_key(|tensor| &tensor.name);
    count(&mut hasher, inputs.len());
    for tensor in inputs {
        part(&mut hasher, tensor.name.as_bytes());
        part(&mut hasher, tensor.datatype.name().as_bytes());
        count(&mut hasher, tensor.shape.len());
        for dim in &tensor.shape {
            hasher.update(&dim.to_le_bytes());
        }
        part(&mut hasher, &tensor.data);
    }
    let mut outputs: Vec<_> = request.outputs.iter().collect();
    outputs.sort_unstable();
    outputs.dedup();
    count(&mut hasher, outputs.len());
    for output in outputs {
        part(&mut hasher, output.as_bytes());
    }
    for (name, value) in request.parameters.iter().filter(|(name, _)| !is_directive(name)) {
        part(&mut hasher, name.as_bytes());
        parameter(&mut hasher, value);
    }
    hasher.finalize().into()
}

/// Bytes behind their length, so that no two lists of parts look alike.
fn part(hasher: &mut Hasher, bytes: &[u8]) {
    count(hasher, bytes.len());
    hasher.update(bytes);
}

fn count(hasher: &mut Hasher, count: usize) {
    hasher.update(&(count as u64).to_le_bytes());
}

fn parameter(hasher: &mut Hasher, value: &Parameter) {
    match value {
        Parameter::Bool(value) => hasher.update(&[0, u8::from(*value)]),
        Parameter::Int(value) => hasher.update(&[1]).update(&value.to_le_bytes()),
        Parameter::Uint(value) => hasher.update(&[2]).update(&value.to_le_bytes()),
        Parameter::Double(value) => hasher.update(&[3]).update(&value.to_bits().to_le_bytes()),
        Parameter::String(value) => {
            hasher.update(&[4]);
            part(hasher, value.as_bytes());
            hasher
        }
    };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use consort_stage::Tensor;

    use super::*;

    fn request() -> Request {
        Request {
            inputs: vec![
                Tensor::from_vec("a", &[2], vec![1_i32, 2]),
                Tensor::from_strings("b", &[1], &["x"]),
            ],
            parameters: [("p".to_owned(), Parameter::Int(1))].into(),
            ..Request::default()
        }
    }

    fn changed(change: impl FnOnce(&mut Request)) -> Key {
        let mut request = request();
        change(&mut request);
        of(1, &request)
    }

    fn set(request: &mut Request, name: &str, value: Parameter) {
        request.parameters.insert(name.to_owned(), value);
    }

    #[test]
    fn everything_that_an_answer_depends_on_makes_a_difference() {
        let keys = [
            of(1, &request()),
            of(2, &request()),
            changed(|request| request.inputs[0] = Tensor::from_vec("a", &[2], vec![1_i32, 3])),
            changed(|request| request.inputs[0] = Tensor::from_vec("a", &[2], vec![1_u32, 2])),
            changed(|request| request.inputs[0].shape = vec![2, 1]),
            changed(|request| request.inputs[0].name = "c".into()),
            changed(|request| drop(request.inputs.pop())),
            changed(|request| request.outputs = vec!["y".into()]),
            changed(|request| set(request, "p", Parameter::Uint(1))),
            changed(|request| set(request, "q", Parameter::Int(1))),
            changed(|request| request.parameters.clear()),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
    }

    #[test]
    fn what_no_answer_depends_on_makes_none() {
        let same = of(1, &request());
        assert_eq!(changed(|request| request.inputs.reverse()), same);
        assert_eq!(changed(|request| request.id = "7".into()), same);
        assert_eq!(changed(|request| set(request, "priority", Parameter::Uint(1))), same);
        assert_eq!(changed(|request| set(request, "timeout", Parameter::Uint(9))), same);
        let both: [Arc<str>; 2] = ["x".into(), "y".into()];
        let ordered = changed(|request| request.outputs = both.to_vec());
        let [x, y] = both;
        assert_eq!(changed(|request| request.outputs = vec![y.clone(), x, y]), ordered);
    }
}
