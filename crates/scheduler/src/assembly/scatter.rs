//! Gives each request of a batch its rows of the outputs.

use consort_stage::{Error, Result, ShapeText, Tensor};

use super::{Layout, Rider, axis, ragged, variable_axes};

/// The outputs of each rider, in the order of the riders: slices of the batch's own, copied only
/// where padding lies between the rows of one request.
///
/// Fails for all of them when an output does not have a row for each row of the batch.
pub(crate) fn scatter(
    layout: &Layout,
    outputs: Vec<Tensor>,
    riders: &[Rider],
) -> Result<Vec<Vec<Tensor>>> {
    if riders.len() == 1 && !layout.is_ragged {
        return Ok(vec![outputs]);
    }
    let rows: usize = riders.iter().map(|rider| rider.rows).sum();
    let longest = riders.iter().filter_map(|rider| rider.length).max();
    let mut answers = vec![Vec::with_capacity(outputs.len()); riders.len()];
    for mut rest in outputs {
        if let Some(place) = layout.batch_output(&rest.name) {
            let own = ragged::cut(layout, rest, place, riders)?;
            for ((rider, answer), own) in riders.iter().zip(&mut answers).zip(own) {
                answer.extend(Some(own).filter(|own| wants(rider, &own.name)));
            }
            continue;
        }
        if riders.len() == 1 {
            answers[0].push(rest);
            continue;
        }
        if rest.shape.first().copied() != Some(rows as i64) {
            return Err(no_row_each(&rest, rows));
        }
        let axes = padded_axes(layout, &rest, longest);
        for (rider, answer) in riders.iter().zip(&mut answers) {
            let data = axis::take_rows(&mut rest, rider.rows)?;
            if !wants(rider, &rest.name) {
                continue;
            }
            let Tensor { name, datatype, shape, .. } = &rest;
            let mut own =
                Tensor { name: name.clone(), datatype: *datatype, shape: shape.clone(), data };
            own.shape[0] = rider.rows as i64;
            for axis in &axes {
                axis::cut(&mut own, *axis, rider.length.unwrap_or(i64::MAX))?;
            }
            answer.push(own);
        }
    }
    Ok(answers)
}

fn wants(rider: &Rider, name: &str) -> bool {
    rider.outputs.is_empty() || rider.outputs.iter().any(|output| &**output == name)
}

/// The axes along which an output is as long as the padded inputs; the last first, so that what
/// is cut along one does not lie in the way of the next.
fn padded_axes(layout: &Layout, output: &Tensor, longest: Option<i64>) -> Vec<usize> {
    let spec = layout.signature().output(&output.name).filter(|_| layout.pads());
    let axes = spec.map(|spec| variable_axes(spec).collect::<Vec<_>>()).unwrap_or_default();
    let is_padded = |axis: &usize| output.shape.get(*axis).copied() == longest;
    axes.into_iter().rev().filter(is_padded).collect()
}

fn no_row_each(output: &Tensor, rows: usize) -> Error {
    Error::internal(format!(
        "output `{}` has shape {}, where the requests of the batch have {rows} rows in all; if \
         the model cannot run several requests at once, set its parameter `batching` to `false`",
        output.name,
        ShapeText(&output.shape)
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use consort_stage::{DataType, Signature, TensorSpec};

    use super::*;

    fn layout(dims: &[i64]) -> Layout {
        let outputs = ["y", "z"].map(|name| TensorSpec::new(name, DataType::Int32, dims)).to_vec();
        Layout::new(
            Arc::new(Signature { max_batch_size: 8, outputs, ..Signature::default() }),
            true,
        )
    }

    fn rider(rows: usize, length: i64) -> Rider {
        Rider { rows, length: Some(length), ..Rider::default() }
    }

    fn numbers(name: &str, shape: &[i64]) -> Tensor {
        let count = shape.iter().product::<i64>() as i32;
        Tensor::from_vec(name, shape, (0..count).collect())
    }

    #[test]
    fn each_request_is_given_its_rows_without_a_copy() {
        let output = numbers("y", &[3, 2]);
        let start = output.data.as_ptr();
        let answers = scatter(&layout(&[-1]), vec![output], &[rider(1, 2), rider(2, 2)]).unwrap();
        assert_eq!(answers[0][0].shape, [1, 2]);
        assert_eq!(&*answers[1][0].to_slice::<i32>().unwrap(), [2, 3, 4, 5]);
        assert_eq!(answers[1][0].data.as_ptr(), start.wrapping_add(8));
    }

    #[test]
    fn strings_are_cut_between_rows() {
        let output = Tensor::from_strings("y", &[3, 1], &["a", "bc", "def"]);
        let answers = scatter(&layout(&[1]), vec![output], &[rider(2, 1), rider(1, 1)]).unwrap();
        assert_eq!(answers[0][0].to_strings().unwrap(), [b"a".as_slice(), b"bc"]);
        assert_eq!(answers[1][0].to_strings().unwrap(), [b"def"]);
    }

    #[test]
    fn padding_is_cut_off_along_every_variable_axis() {
        let riders = [rider(2, 1), rider(1, 2)];
        let answers = scatter(&layout(&[-1, 2]), vec![numbers("y", &[3, 2, 2])], &riders).unwrap();
        assert_eq!(answers[0][0].shape, [2, 1, 2]);
        assert_eq!(&*answers[0][0].to_slice::<i32>().unwrap(), [0, 1, 4, 5]);
        assert_eq!(answers[1][0].shape, [1, 2, 2]);
        let answers = scatter(&layout(&[-1, -1]), vec![numbers("y", &[3, 2, 2])], &riders).unwrap();
        assert_eq!(answers[0][0].shape, [2, 1, 1]);
        assert_eq!(&*answers[0][0].to_slice::<i32>().unwrap(), [0, 4]);
    }

    #[test]
    fn a_request_is_given_what_it_asked_for() {
        let mut riders = [rider(1, 1), rider(1, 1)];
        riders[0].outputs = vec!["z".into()];
        let outputs = vec![numbers("y", &[2, 1]), numbers("z", &[2, 1])];
        let answers = scatter(&layout(&[1]), outputs, &riders).unwrap();
        let names = |answer: &[Tensor]| answer.iter().map(|y| y.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&answers[0]), ["z".into()]);
        assert_eq!(names(&answers[1]), ["y".into(), "z".into()]);
    }

    #[test]
    fn an_output_without_a_row_for_each_row_is_named() {
        for shape in [&[1, 4][..], &[]] {
            let output = numbers("y", shape);
            let error = scatter(&layout(&[-1]), vec![output], &[rider(1, 4), rider(1, 4)]);
            let error = error.unwrap_err();
            assert!(error.message().contains("output `y` has shape"), "{error}");
        }
    }
}
