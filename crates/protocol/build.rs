//! Compiles `proto/` into Rust without needing `protoc`.

use std::error::Error;
use std::path::Path;

use prost::Message;

/// The folder of the protocol's files, seen from this crate.
const PROTO: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let files = protox::compile(["grpc_service.proto", "model_config.proto"], [PROTO])?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    // Reflection and the readers of configurations look messages up in this; comments are no use there.
    let mut bare = files.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    std::fs::write(Path::new(&out).join("inference.bin"), bare.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // Tensors are slices of the message they came in, not copies.
    config.bytes([
        ".inference.ModelInferRequest",
        ".inference.ModelInferResponse",
        ".inference.InferTensorContents",
        ".inference.ModelRepositoryParameter",
    ]);
    // Ordered, so that the same configuration is always shown the same.
    config.btree_map(["."]);
    // Lets a message be looked up in the descriptor set by its type.
    config.enable_type_names();
    tonic_prost_build::configure().compile_fds_with_config(files, config)?;
    Ok(())
}
