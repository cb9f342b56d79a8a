//! What the program says when ONNX Runtime cannot be loaded: each case in a process of its own, as
//! one that has loaded the library once has it for good.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What `consort-model` says, with this file as ONNX Runtime, of a repository with one ONNX model
/// that it must load.
fn said_with(library: &Path) -> String {
    let repository = tempfile::tempdir().expect("it can be made");
    let version = repository.path().join("add_sub/1");
    fs::create_dir_all(&version).expect("it can be made");
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graphs/add_sub.onnx");
    fs::copy(graph, version.join("model.onnx")).expect("it is there");
    let output = Command::new(env!("CARGO_BIN_EXE_consort-model"))
        .env("ORT_DYLIB_PATH", library)
        .arg("--model-repository")
        .arg(repository.path())
        .args(["--exit-on-error=true", "--grpc-address=127.0.0.1", "--grpc-port=0"])
        .args(["--metrics-address=127.0.0.1", "--metrics-port=0"])
        .output()
        .expect("it was built with the test");
    assert_eq!(output.status.code(), Some(1), "it ends where a model cannot be loaded");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stderr) + &text(&output.stdout)
}

#[test]
fn a_file_that_is_no_library_is_an_error_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libonnxruntime.so");
    fs::write(&file, "not a library").unwrap();
    let said = said_with(&file);
    for part in ["model `add_sub`", "ONNX Runtime cannot be used", "ORT_DYLIB_PATH"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn a_library_that_is_named_and_is_not_there_is_an_error_with_the_remedy() {
    let said = said_with(Path::new("/no/such/library.so"));
    for part in ["model `add_sub`", "`/no/such/library.so`", "cargo xtask setup"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}
