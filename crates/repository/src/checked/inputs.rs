//! Whether a request's inputs and wanted outputs are those of the model; the texts are Triton's.

use consort_stage::{Error, Request, Result, ShapeText, Signature, Tensor, TensorSpec, VARIABLE};

/// What Triton adds when the shape may be wrong for want of a batch dimension.
const BATCH_NOTE: &str = ". NOTE: Setting a non-zero max_batch_size in the model config requires a \
     batch dimension to be prepended to each input shape. If you want to specify the full shape \
     including the batch dim in your input dims config, try setting max_batch_size to zero";

/// Refuses a request that does not fit `signature`.
pub(super) fn check(model: &str, signature: &Signature, request: &Request) -> Result<()> {
    for output in &request.outputs {
        if signature.output(output).is_none() {
            return Err(Error::invalid(format!(
                "unexpected inference output '{output}' for model '{model}'"
            )));
        }
    }
    check_names(model, signature, request)?;
    let mut batch = None;
    for tensor in &request.inputs {
        let Some(spec) = signature.input(&tensor.name) else {
            let allowed = names(signature.inputs.iter());
            return Err(Error::invalid(format!(
                "unexpected inference input '{}', allowed inputs are: {allowed}",
                tensor.name
            )));
        };
        check_tensor(model, signature, spec, tensor)
            .and_then(|()| check_batch(model, signature, tensor, &mut batch))
            .map_err(|error| error.of_input(Some(spec.name.clone())))?;
    }
    Ok(())
}

fn check_names(model: &str, signature: &Signature, request: &Request) -> Result<()> {
    let is_given = |spec: &&TensorSpec| request.input(&spec.name).is_some();
    let missing: Vec<&TensorSpec> =
        signature.inputs.iter().filter(|spec| !spec.is_optional && !is_given(spec)).collect();
    let (most, given) = (signature.inputs.len(), request.inputs.len());
    let least = signature.inputs.iter().filter(|spec| !spec.is_optional).count();
    let is_misnamed = || request.inputs.iter().any(|input| signature.input(&input.name).is_none());
    // "expected 1 inputs but got 1" would not tell about a name that is not the model's.
    if given <= most && (missing.is_empty() || given >= least && is_misnamed()) {
        return check_repeats(model, request);
    }
    let expected = if least == most {
        format!("expected {most} inputs but got {given} inputs")
    } else {
        format!("expected number of inputs between {least} and {most} but got {given} inputs")
    };
    let got: Vec<String> =
        request.inputs.iter().map(|tensor| format!("'{}'", tensor.name)).collect();
    let got = got.join(",");
    Err(Error::invalid(if missing.is_empty() {
        format!("{expected} for model '{model}'. Got input(s) [{got}]")
    } else {
        let missing = names(missing.into_iter());
        format!(
            "{expected} for model '{model}'. Got input(s) [{got}], but missing required input(s) \
             [{missing}]. Please provide all required input(s)."
        )
    }))
}

fn check_repeats(model: &str, request: &Request) -> Result<()> {
    for (index, tensor) in request.inputs.iter().enumerate() {
        if request.inputs[..index].iter().any(|earlier| earlier.name == tensor.name) {
            return Err(Error::invalid(format!(
                "input '{}' already exists in request for model '{model}'",
                tensor.name
            )));
        }
    }
    Ok(())
}

fn check_tensor(
    model: &str,
    signature: &Signature,
    spec: &TensorSpec,
    tensor: &Tensor,
) -> Result<()> {
    if tensor.datatype != spec.datatype {
        return Err(Error::invalid(format!(
            "inference input '{}' data-type is '{}', but model '{model}' expects '{}'",
            tensor.name, tensor.datatype, spec.datatype
        )));
    }
    tensor.check().map_err(|error| {
        let input = format!("for input '{}'", tensor.name);
        Error::invalid(if error.message().contains(&input) {
            error.message().replacen(&input, &format!("{input} for model '{model}'"), 1)
        } else {
            format!("{} for model '{model}'", error.message())
        })
    })?;
    if signature.is_batching() && tensor.shape.is_empty() {
        return Err(Error::invalid(format!(
            "input '{}' has no shape but model requires batch dimension for '{model}'",
            tensor.name
        )));
    }
    let tail = if signature.is_batching() { &tensor.shape[1..] } else { &tensor.shape[..] };
    if spec.accepts(tail) {
        return Ok(());
    }
    let note = if signature.is_batching() { BATCH_NOTE } else { "" };
    Err(Error::invalid(format!(
        "unexpected shape for input '{}' for model '{model}'. Expected {}, got {}{note}",
        tensor.name,
        ShapeText(&signature.full_shape(spec)),
        ShapeText(&tensor.shape)
    )))
}

fn check_batch(
    model: &str,
    signature: &Signature,
    tensor: &Tensor,
    batch: &mut Option<i64>,
) -> Result<()> {
    if !signature.is_batching() {
        return Ok(());
    }
    let size = tensor.shape.first().copied().unwrap_or(VARIABLE);
    let first = *batch.get_or_insert(size);
    if size != first {
        return Err(Error::invalid(format!(
            "input '{}' batch size does not match other inputs for '{model}'",
            tensor.name
        )));
    }
    if size > signature.max_batch_size || size < 1 {
        return Err(Error::invalid(format!(
            "inference request batch-size must be <= {} for '{model}'",
            signature.max_batch_size
        )));
    }
    Ok(())
}

fn names<'a>(specs: impl Iterator<Item = &'a TensorSpec>) -> String {
    let names: Vec<String> = specs.map(|spec| format!("'{}'", spec.name)).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use consort_stage::DataType;

    use super::*;

    fn refused(inputs: Vec<Tensor>) -> String {
        let signature = Signature {
            inputs: vec![TensorSpec::new("x", DataType::Int32, &[2])],
            ..Signature::default()
        };
        let request = Request { inputs, ..Request::default() };
        check("m", &signature, &request).unwrap_err().message().to_owned()
    }

    fn tensor(name: &str, data: &[i32]) -> Tensor {
        Tensor::from_vec(name, &[2], data.to_vec())
    }

    #[test]
    fn an_input_by_another_name_is_told_what_names_there_are() {
        let text = "unexpected inference input 'y', allowed inputs are: 'x'";
        assert_eq!(refused(vec![tensor("y", &[1, 2])]), text);
        let text = "expected 1 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing \
                    required input(s) ['x']. Please provide all required input(s).";
        assert_eq!(refused(Vec::new()), text);
    }

    #[test]
    fn data_that_does_not_fit_its_shape_names_input_and_model_as_triton_does() {
        let mut short = tensor("x", &[1, 2]);
        short.data = short.data.slice(..4);
        let text = "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 4";
        assert_eq!(refused(vec![short]), text);
    }
}
