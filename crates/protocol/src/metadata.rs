//! What a model takes and gives, as `ModelMetadata` tells it.

use consort_stage::{Signature, TensorSpec};

use crate::ModelMetadataResponse;
use crate::model_metadata_response::TensorMetadata;

impl ModelMetadataResponse {
    /// The metadata of a model.
    pub fn of(name: &str, versions: &[u64], platform: &str, signature: &Signature) -> Self {
        let tensors = |specs: &[TensorSpec]| {
            specs
                .iter()
                .map(|spec| TensorMetadata {
                    name: spec.name.as_ref().into(),
                    datatype: spec.datatype.name().into(),
                    shape: signature.full_shape(spec),
                })
                .collect()
        };
        Self {
            name: name.into(),
            versions: versions.iter().map(u64::to_string).collect(),
            platform: platform.into(),
            inputs: tensors(&signature.inputs),
            outputs: tensors(&signature.outputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use consort_stage::DataType;

    use super::*;

    #[test]
    fn a_batching_model_shows_its_batch_dimension() {
        let signature = Signature {
            max_batch_size: 8,
            inputs: vec![TensorSpec::new("text", DataType::Bytes, &[1])],
            outputs: vec![TensorSpec::new("embedding", DataType::Fp32, &[384])],
            is_decoupled: false,
        };
        let metadata = ModelMetadataResponse::of("embed", &[1, 3], "ensemble", &signature);
        assert_eq!(metadata.versions, ["1", "3"]);
        assert_eq!(metadata.inputs[0].datatype, "BYTES");
        assert_eq!(metadata.outputs[0].shape, [-1, 384]);
    }
}
