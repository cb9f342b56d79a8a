//! What a server says of itself in its metadata.

/// The server's name.
pub const NAME: &str = "consort";

/// The server's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The protocol extensions that are answered; load generators look for `statistics`.
pub const EXTENSIONS: [&str; 6] = [
    "classification",
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];
