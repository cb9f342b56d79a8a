//! Concatenates the inputs of several requests along the batch dimension.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use consort_config::Model;
use consort_stage::{Batch, Error, Parameters, Request, Result, Tensor, is_directive};

use super::{Layout, Rider, axis, ragged, variable_axes};

/// One batch of these requests, and each one's place in it.
///
/// A request that comes alone is moved through untouched; the inputs of several are copied once.
/// They must be alike: the same inputs of the same types, and of shapes that differ at most along
/// an axis that the layout pads, or in any way where they are ragged. One that comes alone is
/// made into a batch too where anything is ragged.
pub(crate) fn gather(layout: &Layout, mut requests: Vec<Request>) -> Result<(Batch, Vec<Rider>)> {
    let riders: Vec<_> = requests.iter().map(|request| layout.rider(request)).collect();
    if requests.len() == 1 && !layout.is_ragged {
        let only = requests.pop().map(Batch::from).unwrap_or_default();
        return Ok((only, riders));
    }
    let longest = riders.iter().filter_map(|rider| rider.length).max();
    let columns = 0..requests.first().map_or(0, |request| request.inputs.len());
    let inputs = columns.map(|column| {
        let name = requests[0].inputs[column].name.clone();
        let parts: Vec<_> = requests.iter().filter_map(|request| request.input(&name)).collect();
        if parts.len() < requests.len() {
            return Err(unlike(&name));
        }
        stack(layout, &parts, longest)
    });
    let mut inputs = inputs.collect::<Result<Vec<_>>>()?;
    inputs.extend(ragged::batch_inputs(layout, &requests));
    let batch = Batch {
        inputs,
        outputs: wanted_by_any(&riders),
        parameters: parameters(requests.swap_remove(0)),
    };
    Ok((batch, riders))
}

/// The batch that an instance of `model` is given when this request comes alone.
///
/// Batch inputs that the request itself has are left as they are.
pub fn batch_of_one(model: &Model, request: Request) -> Result<Batch> {
    let layout = Layout::new(model.signature.clone(), false).told_of(&model.ragged);
    gather(&layout, vec![request]).map(|(batch, _)| batch)
}

/// One tensor with the rows of all parts, those that are shorter padded to `longest`.
fn stack(layout: &Layout, parts: &[&Tensor], longest: Option<i64>) -> Result<Tensor> {
    let first = parts[0];
    let spec = layout.signature().input(&first.name);
    if spec.is_some_and(|spec| layout.joins_flat(spec)) {
        return Ok(ragged::flatten(parts));
    }
    let axis = spec.and_then(|spec| variable_axes(spec).next());
    let padded = axis.filter(|_| layout.pads()).zip(longest);
    let mut shape = first.shape.clone();
    if let Some((axis, longest)) = padded {
        shape[axis] = longest;
    }
    let is_alike = |part: &&&Tensor| {
        let dims = part.shape.iter().zip(&shape).enumerate().skip(1);
        part.shape.len() == shape.len()
            && dims.fold(true, |alike, (place, (own, all))| {
                alike && (own == all || padded.is_some_and(|(axis, _)| axis == place))
            })
    };
    if !parts.iter().all(|part| is_alike(&part)) {
        return Err(unlike(&first.name));
    }
    shape[0] = parts.iter().map(|part| part.shape[0]).sum();
    let size = parts.iter().map(|part| match padded {
        Some((axis, longest)) => axis::appended_size(part, axis, longest),
        None => part.data.len(),
    });
    let mut data = BytesMut::with_capacity(size.sum());
    for part in parts {
        match padded {
            Some((axis, longest)) => axis::append(&mut data, part, axis, longest)?,
            None => data.put_slice(&part.data),
        }
    }
    let (name, datatype) = (first.name.clone(), first.datatype);
    Ok(Tensor { name, datatype, shape, data: data.freeze() })
}

/// The outputs that somebody wants; empty as soon as one wants all.
fn wanted_by_any(riders: &[Rider]) -> Vec<Arc<str>> {
    if riders.iter().any(|rider| rider.outputs.is_empty()) {
        return Vec::new();
    }
    let mut wanted: Vec<_> =
        riders.iter().flat_map(|rider| rider.outputs.iter().cloned()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// What a request tells the model; requests that share a batch tell it the same.
fn parameters(request: Request) -> Parameters {
    request.parameters.into_iter().filter(|(name, _)| !is_directive(name)).collect()
}

fn unlike(name: &str) -> Error {
    Error::internal(format!("input `{name}` differs too much between the requests of one batch"))
}

#[cfg(test)]
mod tests {
    use consort_stage::{DataType, Parameter};

    use super::super::tests::layout;
    use super::*;

    const TEXT: &[(&str, DataType, &[i64])] =
        &[("ids", DataType::Int32, &[-1]), ("tag", DataType::Bytes, &[1])];

    fn request(ids: &[i32], tag: &str) -> Request {
        let ids = Tensor::from_vec("ids", &[1, ids.len() as i64], ids.to_vec());
        let tag = Tensor::from_strings("tag", &[1, 1], &[tag]);
        Request { inputs: vec![ids, tag], ..Request::default() }
    }

    #[test]
    fn one_request_goes_through_without_a_copy() {
        let request = request(&[1, 2], "a");
        let before = request.inputs[0].data.as_ptr();
        let (batch, riders) = gather(&layout(TEXT, true), vec![request]).unwrap();
        assert_eq!(batch.inputs[0].data.as_ptr(), before);
        assert_eq!((riders[0].rows, riders[0].length), (1, Some(2)));
    }

    #[test]
    fn rows_follow_one_another_and_the_shorter_are_padded() {
        let requests = vec![request(&[1], "a"), request(&[2, 3], "longer")];
        let (batch, riders) = gather(&layout(TEXT, true), requests).unwrap();
        assert_eq!(batch.inputs[0].shape, [2, 2]);
        assert_eq!(&*batch.inputs[0].to_slice::<i32>().unwrap(), [1, 0, 2, 3]);
        assert_eq!(batch.inputs[1].shape, [2, 1]);
        assert_eq!(batch.inputs[1].to_strings().unwrap(), [b"a".as_slice(), b"longer"]);
        assert_eq!(riders.iter().map(|rider| rider.length).collect::<Vec<_>>(), [Some(1), Some(2)]);
    }

    #[test]
    fn inputs_are_found_by_name_whatever_their_order() {
        let mut second = request(&[2], "b");
        second.inputs.reverse();
        let (batch, _) = gather(&layout(TEXT, false), vec![request(&[1], "a"), second]).unwrap();
        assert_eq!(&*batch.inputs[0].to_slice::<i32>().unwrap(), [1, 2]);
    }

    #[test]
    fn different_lengths_are_refused_where_the_model_cannot_tell_padding() {
        let requests = vec![request(&[1], "a"), request(&[2, 3], "b")];
        let error = gather(&layout(TEXT, false), requests).unwrap_err();
        assert!(error.message().contains("`ids`"), "{error}");
    }

    #[test]
    fn the_outputs_of_a_batch_are_those_that_anybody_wants() {
        let wants = |outputs: &[&str]| {
            let outputs = outputs.iter().map(|output| Arc::from(*output)).collect();
            Request { outputs, ..request(&[1], "a") }
        };
        let of = |requests| gather(&layout(TEXT, false), requests).unwrap().0.outputs;
        let some = of(vec![wants(&["b", "a"]), wants(&["b"])]);
        assert_eq!(some.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(of(vec![wants(&["b"]), wants(&[])]).is_empty());
    }

    #[test]
    fn the_scheduler_keeps_what_was_said_to_it() {
        let mut first = request(&[1], "a");
        first.parameters.insert("priority".into(), Parameter::Uint(1));
        first.parameters.insert("temperature".into(), Parameter::Double(0.5));
        let (batch, _) = gather(&layout(TEXT, false), vec![first, request(&[1], "b")]).unwrap();
        assert_eq!(batch.parameters.keys().collect::<Vec<_>>(), ["temperature"]);
    }
}
