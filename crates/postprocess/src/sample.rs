//! Models as the configuration would give them, for the tests of the backends.

use std::num::NonZeroUsize;
use std::sync::Arc;

use consort_config::{Model, Scheduling, Settings, VersionPolicy};
use consort_stage::{Signature, TensorSpec};

/// A batching model of `backend` with these tensors and parameters.
pub(crate) fn model(
    backend: &str,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
    parameters: &[(&str, &str)],
) -> Model {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Model {
        name: "sample".into(),
        backend: backend.into(),
        signature: Arc::new(Signature {
            max_batch_size: 8,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            is_decoupled: false,
        }),
        versions: VersionPolicy::Latest(NonZeroUsize::MIN),
        file_name: String::new(),
        instances: Vec::new(),
        scheduling: Scheduling::Direct,
        settings: Settings::new(parameters.iter().map(owned)),
        wire: Arc::default(),
        source: Arc::default(),
    }
}
