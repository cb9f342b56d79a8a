//! Wire types of the KServe v2 / Triton gRPC protocol and model configuration, and their conversions.

mod contents;
mod infer;
mod json;
mod metadata;
mod parameters;
mod pieces;
mod receive;
mod request;
mod response;
mod status;

/// The code generated from `proto/`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod generated {
    tonic::include_proto!("inference");
}

pub use generated::*;
pub use infer::MESSAGE_LIMIT;
pub use json::{config_from_json, descriptor_of, descriptors, to_json};
pub use pieces::Pieces;
pub use receive::receive;
pub use request::{Call, parse_version};
pub use status::{from_status, to_status};

/// Every message and service of `proto/`, as a serialised `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
