//! The program `consort-preprocess`: Hugging Face tokenizers as a service.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    consort_server::stage_main("consort-preprocess", consort_preprocess::ALL)
}
