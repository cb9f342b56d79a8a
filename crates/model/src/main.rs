//! The program `consort-model`: ONNX Runtime models and decoders as a service.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    consort_server::stage_main_on_gpus("consort-model", consort_model::ALL, consort_model::gpus)
}
