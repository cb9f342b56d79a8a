//! Models as the configuration would give them, for the tests of the backends.

use consort_config::{Model, Settings};
use consort_stage::{Signature, TensorSpec};

/// A batching model of `backend` with these tensors and parameters.
pub(crate) fn model(
    backend: &str,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    parameters: &[(&str, &str)],
) -> Model {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let signature = Signature {
        max_batch_size: 8,
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
        is_decoupled: false,
    };
    let settings = Settings::new(parameters.iter().map(owned));
    Model { settings, ..Model::plain(backend, signature) }
}
