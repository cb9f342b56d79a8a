//! The gateway: HTTP and gRPC fronts, ensembles, routing.

mod at_end;
mod catalog;
mod ensemble_stage;
mod http;
mod options;
mod step_stage;
mod stop;
mod stop_words;
mod text_tensors;

pub use catalog::{Catalog, CatalogOptions};
pub use http::{Options as HttpOptions, router};
pub use options::FrontOptions;
