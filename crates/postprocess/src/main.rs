//! The program `consort-postprocess`: detokenizer, pooling and classifier as a service.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    consort_server::stage_main("consort-postprocess", consort_postprocess::ALL)
}
