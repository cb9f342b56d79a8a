//! Reads what a model takes and gives out of the configuration that its server shows.

use consort_protocol::{DataType as WireType, ModelConfig, ModelTensorReshape};
use consort_stage::{DataType, Error, Result, Signature, TensorSpec};

/// The signature of a model with this normalised configuration.
pub(crate) fn read(config: &ModelConfig) -> Result<Signature> {
    let inputs = config.input.iter().map(|input| {
        Ok(TensorSpec {
            is_optional: input.optional,
            reshape: reshape(input.reshape.as_ref()),
            ..spec(&input.name, input.data_type, &input.dims)?
        })
    });
    let outputs = config.output.iter().map(|output| {
        Ok(TensorSpec {
            reshape: reshape(output.reshape.as_ref()),
            ..spec(&output.name, output.data_type, &output.dims)?
        })
    });
    let policy = config.model_transaction_policy.as_ref();
    Ok(Signature {
        max_batch_size: config.max_batch_size.into(),
        inputs: inputs.collect::<Result<_>>()?,
        outputs: outputs.collect::<Result<_>>()?,
        is_decoupled: policy.is_some_and(|policy| policy.decoupled),
    })
}

fn spec(name: &str, wire_type: i32, dims: &[i64]) -> Result<TensorSpec> {
    let datatype = WireType::try_from(wire_type)
        .ok()
        .and_then(|wire_type| DataType::from_config_name(wire_type.as_str_name()))
        .ok_or_else(|| {
            Error::unsupported(format!("tensor `{name}` has unknown data type {wire_type}"))
        })?;
    Ok(TensorSpec::new(name, datatype, dims))
}

fn reshape(reshape: Option<&ModelTensorReshape>) -> Option<Vec<i64>> {
    reshape.map(|reshape| reshape.shape.clone())
}

#[cfg(test)]
mod tests {
    use consort_protocol::{ModelInput, ModelOutput, ModelTransactionPolicy};

    use super::*;

    #[test]
    fn a_configuration_says_what_the_model_takes_and_gives() {
        let config = ModelConfig {
            max_batch_size: 4,
            input: vec![ModelInput {
                name: "text".into(),
                data_type: WireType::TypeString.into(),
                dims: vec![1],
                reshape: Some(ModelTensorReshape { shape: vec![] }),
                optional: true,
                ..ModelInput::default()
            }],
            output: vec![ModelOutput {
                name: "ids".into(),
                data_type: WireType::TypeInt64.into(),
                dims: vec![-1],
                ..ModelOutput::default()
            }],
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
            ..ModelConfig::default()
        };
        let signature = read(&config).unwrap();
        assert!(signature.is_batching() && signature.is_decoupled);
        let text = &signature.inputs[0];
        assert_eq!((text.datatype, &text.dims[..]), (DataType::Bytes, &[1][..]));
        assert!(text.is_optional && text.reshape.as_deref() == Some(&[]));
        assert_eq!(signature.outputs[0].datatype, DataType::Int64);
    }

    #[test]
    fn a_tensor_without_a_type_is_refused_by_name() {
        let config = ModelConfig {
            input: vec![ModelInput { name: "x".into(), ..ModelInput::default() }],
            ..ModelConfig::default()
        };
        let error = read(&config).unwrap_err();
        assert_eq!(error.message(), "tensor `x` has unknown data type 0");
    }
}
