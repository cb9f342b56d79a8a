//! Puts inputs of different shapes behind one another, tells the model where each request's lie,
//! and cuts outputs at the same places.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use consort_config::{BatchInput, BatchInputKind};
use consort_stage::{DataType, Error, Request, Result, ShapeText, Tensor, VARIABLE};

use super::{BATCH, Layout, Rider, axis};

/// All elements of all parts in one dimension; without a copy when there is one part.
pub(super) fn flatten(parts: &[&Tensor]) -> Tensor {
    let first = parts[0];
    let data = match parts {
        [only] => only.data.clone(),
        many => {
            let size = many.iter().map(|part| part.data.len()).sum();
            let mut data = BytesMut::with_capacity(size);
            for part in many {
                data.put_slice(&part.data);
            }
            data.freeze()
        }
    };
    let elements = parts.iter().map(|part| part.shape.iter().product::<i64>()).sum();
    Tensor { name: first.name.clone(), datatype: first.datatype, shape: vec![elements], data }
}

/// The inputs that the model is given about a batch of these requests, but for those that a
/// request has brought along, as a warm-up's may.
pub(super) fn batch_inputs(layout: &Layout, requests: &[Request]) -> Vec<Tensor> {
    let made = layout.ragged.inputs.iter().flat_map(|input| {
        let (values, shape) = told(layout, input, requests);
        let is_made = |name: &&Arc<str>| requests[0].input(name).is_none();
        let tensor = move |name: &Arc<str>| numbers(name, input.datatype, &shape, &values);
        input.targets.iter().filter(is_made).map(tensor)
    });
    made.collect()
}

/// The values and the shape of a batch input.
fn told(layout: &Layout, input: &BatchInput, requests: &[Request]) -> (Vec<i64>, Vec<i64>) {
    let shapes = requests.iter().map(|request| source_shape(layout, request, &input.source));
    let shapes: Vec<_> = shapes.collect();
    let counts = shapes.iter().map(|shape| shape.iter().product::<i64>());
    let accumulated = counts.clone().scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    let flat = |values: Vec<i64>| {
        let length = values.len() as i64;
        (values, vec![length])
    };
    match input.kind {
        BatchInputKind::ElementCount => flat(counts.collect()),
        BatchInputKind::AccumulatedElementCount => flat(accumulated.collect()),
        BatchInputKind::AccumulatedElementCountWithZero => {
            flat([0].into_iter().chain(accumulated).collect())
        }
        BatchInputKind::MaxElementCountAsShape => {
            flat(vec![0; counts.max().unwrap_or(0).max(0) as usize])
        }
        BatchInputKind::ItemShape => {
            let rank = shapes.first().map_or(0, |shape| shape.len().saturating_sub(BATCH)) as i64;
            let rows = shapes.iter().map(|shape| shape.first().copied().unwrap_or(1)).sum();
            (items(&shapes), vec![rows, rank])
        }
        BatchInputKind::ItemShapeFlatten => flat(items(&shapes)),
    }
}

/// The shape of each row, batch dimension left away, one behind the other.
fn items(shapes: &[Vec<i64>]) -> Vec<i64> {
    let of_request = |shape: &Vec<i64>| {
        let (rows, dims) = shape.split_first().map_or((1, &[][..]), |(rows, dims)| (*rows, dims));
        dims.repeat(usize::try_from(rows).unwrap_or(0))
    };
    shapes.iter().flat_map(of_request).collect()
}

fn numbers(name: &Arc<str>, datatype: DataType, shape: &[i64], values: &[i64]) -> Tensor {
    let name = name.clone();
    match datatype {
        DataType::Int32 => {
            let whole = |value: &i64| i32::try_from(*value).unwrap_or(i32::MAX);
            Tensor::from_vec(name, shape, values.iter().map(whole).collect())
        }
        _ => Tensor::from_vec(name, shape, values.iter().map(|value| *value as f32).collect()),
    }
}

/// The shape, batch dimension included, in which a request has an input; empty rows when it has
/// left it out.
pub(super) fn source_shape(layout: &Layout, request: &Request, source: &str) -> Vec<i64> {
    if let Some(tensor) = request.input(source) {
        return tensor.shape.clone();
    }
    let spec = layout.signature().input(source);
    let rank = spec.map_or(1, |spec| spec.reshape.as_ref().unwrap_or(&spec.dims).len());
    [layout.rows(request) as i64].into_iter().chain(vec![0; rank]).collect()
}

/// The elements of `output` that are each rider's, in the shape that the rider's source gives it.
///
/// `place` is that of the batch output in the configuration. Fails when there are more or fewer.
pub(super) fn cut(
    layout: &Layout,
    mut output: Tensor,
    place: usize,
    riders: &[Rider],
) -> Result<Vec<Tensor>> {
    let shapes = riders.iter().map(|rider| cut_shape(layout, &output, &rider.sources[place]));
    let shapes: Vec<Vec<i64>> = shapes.collect::<Result<_>>()?;
    let wanted: i64 = shapes.iter().map(|shape| shape.iter().product::<i64>()).sum();
    if output.shape.iter().product::<i64>() != wanted {
        let source = &layout.ragged.outputs[place].source;
        return Err(Error::internal(format!(
            "output `{}` has shape {}, where the batch has {wanted} elements by the shapes of \
             `{source}`",
            output.name,
            ShapeText(&output.shape)
        )));
    }
    let cut = shapes.into_iter().map(|shape| {
        let elements = shape.iter().product::<i64>() as usize;
        let data = axis::take_elements(&mut output, elements)?;
        Ok(Tensor { name: output.name.clone(), datatype: output.datatype, shape, data })
    });
    cut.collect()
}

/// The output's dimensions with those of the source where they may have any size.
fn cut_shape(layout: &Layout, output: &Tensor, source: &[i64]) -> Result<Vec<i64>> {
    let spec = layout.signature().output(&output.name);
    let Some(spec) = spec else { return Ok(source.to_vec()) };
    let dims = spec.reshape.as_ref().unwrap_or(&spec.dims);
    let mut shape = source[..BATCH].to_vec();
    for (place, dim) in dims.iter().enumerate() {
        let own = if *dim == VARIABLE { source.get(place + BATCH) } else { Some(dim) };
        shape.push(*own.ok_or_else(|| more_dimensions(&output.name))?);
    }
    Ok(shape)
}

fn more_dimensions(name: &str) -> Error {
    Error::internal(format!("output `{name}` has a variable dimension that its source lacks"))
}

#[cfg(test)]
mod tests {
    use consort_config::{BatchOutput, RaggedBatching};
    use consort_stage::{Signature, TensorSpec};

    use super::super::{gather, scatter};
    use super::*;

    const KINDS: [BatchInputKind; 6] = [
        BatchInputKind::ElementCount,
        BatchInputKind::AccumulatedElementCount,
        BatchInputKind::AccumulatedElementCountWithZero,
        BatchInputKind::MaxElementCountAsShape,
        BatchInputKind::ItemShape,
        BatchInputKind::ItemShapeFlatten,
    ];

    /// `x` of two variable dimensions is ragged, `tag` is not, and `y` is cut by `x`.
    fn layout(datatype: DataType) -> Layout {
        let ragged = TensorSpec {
            is_ragged: true,
            ..TensorSpec::new("x", DataType::Int32, &[VARIABLE, VARIABLE])
        };
        let signature = Signature {
            max_batch_size: 8,
            inputs: vec![ragged, TensorSpec::new("tag", DataType::Bytes, &[1])],
            outputs: vec![
                TensorSpec::new("y", DataType::Bytes, &[VARIABLE, 2]),
                TensorSpec::new("z", DataType::Int32, &[1]),
            ],
            ..Signature::default()
        };
        let inputs = KINDS.iter().map(|kind| BatchInput {
            kind: *kind,
            targets: vec![format!("{kind:?}").into()],
            datatype,
            source: "x".into(),
        });
        let outputs = vec![BatchOutput { targets: vec!["y".into()], source: "x".into() }];
        let ragged = RaggedBatching { inputs: inputs.collect(), outputs };
        Layout::new(Arc::new(signature), true).told_of(&ragged)
    }

    fn request(first: i32, shape: &[i64]) -> Request {
        let count = shape.iter().product::<i64>() as i32;
        let x = Tensor::from_vec("x", shape, (first..first + count).collect());
        let tag = Tensor::from_strings("tag", &[shape[0], 1], &vec!["t"; shape[0] as usize]);
        Request { inputs: vec![x, tag], ..Request::default() }
    }

    /// The shape and the values of the input of each kind.
    fn made(requests: Vec<Request>) -> Vec<(Vec<i64>, Vec<i32>)> {
        let (batch, _) = gather(&layout(DataType::Int32), requests).unwrap();
        let of_kind = |kind: &BatchInputKind| {
            let tensor = batch.input(&format!("{kind:?}")).unwrap();
            (tensor.shape.clone(), tensor.to_slice::<i32>().unwrap().to_vec())
        };
        KINDS.iter().map(of_kind).collect()
    }

    #[test]
    fn ragged_inputs_lie_behind_one_another_and_others_are_stacked() {
        let requests = vec![request(1, &[1, 1, 2]), request(3, &[2, 1, 3])];
        let (batch, _) = gather(&layout(DataType::Int32), requests).unwrap();
        let x = batch.input("x").unwrap();
        assert_eq!(x.shape, [8]);
        assert_eq!(&*x.to_slice::<i32>().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(batch.input("tag").unwrap().shape, [3, 1]);
    }

    #[test]
    fn the_model_is_told_the_shapes_in_each_of_six_ways() {
        let all = made(vec![request(1, &[1, 1, 2]), request(3, &[2, 1, 3])]);
        assert_eq!(all[0], (vec![2], vec![2, 6]));
        assert_eq!(all[1], (vec![2], vec![2, 8]));
        assert_eq!(all[2], (vec![3], vec![0, 2, 8]));
        assert_eq!(all[3], (vec![6], vec![0; 6]));
        // One row for each row of the batch, as Triton gives them.
        assert_eq!(all[4], (vec![3, 2], vec![1, 2, 1, 3, 1, 3]));
        assert_eq!(all[5], (vec![6], vec![1, 2, 1, 3, 1, 3]));
    }

    #[test]
    fn a_request_that_comes_alone_is_told_of_too() {
        let all = made(vec![request(1, &[1, 2, 2])]);
        assert_eq!(all[2], (vec![2], vec![0, 4]));
        assert_eq!(all[4], (vec![1, 2], vec![2, 2]));
        let only = request(1, &[1, 2, 2]);
        let before = only.inputs[0].data.as_ptr();
        let (batch, _) = gather(&layout(DataType::Int32), vec![only]).unwrap();
        assert_eq!(batch.inputs[0].shape, [4]);
        assert_eq!(batch.inputs[0].data.as_ptr(), before, "it is not copied");
    }

    #[test]
    fn batch_inputs_have_the_type_that_the_configuration_says() {
        let (batch, _) = gather(&layout(DataType::Fp32), vec![request(1, &[1, 1, 2])]).unwrap();
        let counts = batch.input("ElementCount").unwrap();
        assert_eq!(&*counts.to_slice::<f32>().unwrap(), [2.0]);
    }

    #[test]
    fn outputs_are_cut_by_the_shape_of_their_source() {
        let layout = layout(DataType::Int32);
        let requests = vec![request(1, &[1, 1, 5]), request(3, &[1, 2, 7])];
        let (_, riders) = gather(&layout, requests).unwrap();
        let y = Tensor::from_strings("y", &[6], &["a", "bc", "d", "", "ef", "g"]);
        let z = Tensor::from_vec("z", &[2, 1], vec![1_i32, 2]);
        let answers = scatter(&layout, vec![y, z], &riders).unwrap();
        assert_eq!(answers[0][0].shape, [1, 1, 2]);
        assert_eq!(answers[0][0].to_strings().unwrap(), [b"a".as_slice(), b"bc"]);
        assert_eq!(answers[1][0].shape, [1, 2, 2]);
        assert_eq!(answers[1][0].to_strings().unwrap(), [b"d".as_slice(), b"", b"ef", b"g"]);
        assert_eq!(&*answers[1][1].to_slice::<i32>().unwrap(), [2]);
    }

    #[test]
    fn an_output_of_one_request_is_given_its_shape_too() {
        let layout = layout(DataType::Int32);
        let (_, riders) = gather(&layout, vec![request(1, &[1, 1, 5])]).unwrap();
        let y = |strings: &[&str]| Tensor::from_strings("y", &[strings.len() as i64], strings);
        let answers = scatter(&layout, vec![y(&["a", "b"])], &riders).unwrap();
        assert_eq!(answers[0][0].shape, [1, 1, 2]);
        let error = scatter(&layout, vec![y(&["a", "b", "c"])], &riders).unwrap_err();
        assert!(error.message().contains("2 elements by the shapes of `x`"), "{error}");
    }
}
