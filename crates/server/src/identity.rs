//! What a server says of itself in its metadata.

/// The server's name.
pub const NAME: &str = "consort";

/// The server's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The protocol extensions that are answered; load generators look for `statistics`.
pub const EXTENSIONS: [&str; 9] = [
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];
