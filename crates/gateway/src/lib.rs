//! The gateway: HTTP and gRPC fronts, ensembles, routing.

mod catalog;
mod ensemble_stage;
mod http;
mod options;

pub use catalog::{Catalog, CatalogOptions};
pub use http::{Options as HttpOptions, router};
pub use options::FrontOptions;
