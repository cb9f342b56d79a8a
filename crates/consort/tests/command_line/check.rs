//! `consort check`.

use expect_test::{Expect, expect};

use crate::repository::{ECHO, Repository, consort, repository, shipped};

fn checks(repository: &Repository, code: i32, printed: &Expect) {
    let said = consort(&["check".as_ref(), repository.path().as_os_str()]);
    printed.assert_eq(&said.stdout);
    assert_eq!((said.code, said.stderr.as_str()), (code, ""));
}

/// An ensemble of `echo` once, and then whatever else is appended.
const CHAIN: &str = r#"
platform: "ensemble"
input [ { name: "x" data_type: TYPE_INT32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_INT32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "echo"
      input_map { key: "IN" value: "x" }
      output_map { key: "OUT" value: "y" }
    }
  ]
}
"#;

#[test]
fn the_shipped_repository_lacks_nothing_but_what_is_fetched_apart() {
    let said = consort(&["check".as_ref(), shipped().as_os_str()]);
    let is_fetched = |line: &str| line.starts_with("note: ") || line.starts_with("minilm");
    let (findings, sum) = said.stdout.trim_end().rsplit_once("\n\n").unwrap_or(("", &said.stdout));
    assert!(findings.lines().all(is_fetched), "{}{}", said.stdout, said.stderr);
    assert!(sum.contains("8 models"), "{sum}");
}

#[test]
fn a_good_repository_is_said_to_be_good() {
    checks(
        &repository(&[
            ("echo/config.pbtxt", ECHO),
            ("echo/1/", ""),
            ("chain/config.pbtxt", CHAIN),
            ("chain/1/", ""),
            ("not a model/README.md", "nothing to see"),
        ]),
        0,
        &expect![[r#"
            2 models are good
        "#]],
    );
    checks(
        &repository(&[("echo/config.pbtxt", ECHO), ("echo/1/", "")]),
        0,
        &expect![[r#"
        1 model is good
    "#]],
    );
    checks(
        &repository(&[]),
        0,
        &expect![[r#"
        there is no model
    "#]],
    );
}

#[test]
fn all_problems_are_told_together_with_their_places() {
    checks(
        &repository(&[
            ("echo/config.pbtxt", ECHO),
            ("echo/1/", ""),
            ("folderless/config.pbtxt", ECHO),
            (
                "misspelt/config.pbtxt",
                "backend: \"identity\"\nmax_bach_size: 4\ninput [ { name: \"IN\" data_type: \
                 TYPE_INT33 dims: [ 4 ] } ]\noutput [ { name: \"OUT\" data_type: TYPE_INT32 dims: \
                 [ 4 ] } ]\n",
            ),
            ("misspelt/1/", ""),
            ("onnx/config.pbtxt", &ECHO.replace("identity", "onnxruntime")),
            ("onnx/1/", ""),
            ("texts/config.pbtxt", TOKENIZER),
            ("texts/1/tokenizer.json", "{}"),
            (
                "wired/config.pbtxt",
                &CHAIN.replace("\"OUT\"", "\"OUTPUT\"").replace("TYPE_INT32", "TYPE_INT64"),
            ),
            ("wired/1/", ""),
            (
                "unwired/config.pbtxt",
                &CHAIN
                    .replace("\"echo\"", "\"ecko\"")
                    .replace("key: \"OUT\" value: \"y\"", "key: \"OUT\" value: \"z\""),
            ),
            ("versioned/config.pbtxt", &CHAIN.replace("\"echo\"", "\"echo\" model_version: 3")),
        ]),
        1,
        &expect![[r#"
            folderless: no version is available; put the model's files into a version folder such as `folderless/1/`
            misspelt/config.pbtxt:2:1: unknown field `max_bach_size`; did you mean `max_batch_size`?
            misspelt/config.pbtxt:3:33: `data_type` has no value `TYPE_INT33`; did you mean `TYPE_INT32`?
            onnx/1/model.onnx: the model file does not exist
            texts/config.pbtxt: `tokenizer.json` of model `texts` is not a Hugging Face tokenizer: Model missing. at line 1 column 2
            note: unwired: Triton would want an empty version folder such as `1/` here
            unwired/config.pbtxt:4:10: ensemble output 'y' for ensemble 'unwired' is not used
            unwired/config.pbtxt:8:7: ensemble unwired contains models that are not available or ambiguous: ecko; did you mean `echo`?
            unwired/config.pbtxt:10:7: ensemble tensor 'z' is unused in ensemble 'unwired'
            note: versioned: Triton would want an empty version folder such as `1/` here
            versioned/config.pbtxt:8:26: ensemble 'versioned' depends on 'echo' whose required version 3 is not loaded; the versions served are [1]
            wired/config.pbtxt:9:19: in ensemble wired, ensemble tensor x: inconsistent data type: TYPE_INT64 is inferred from model wired while TYPE_INT32 is inferred from model echo
            wired/config.pbtxt:10:20: ensemble tensor y is mapping to non-existing output OUTPUT in model echo in ensemble wired; the model's outputs are: OUT

            11 problems in 7 of 8 models
        "#]],
    );
}

const TOKENIZER: &str = r#"
backend: "tokenizer"
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] } ]
"#;

#[test]
fn ensembles_may_be_nested_but_not_in_circles() {
    let of = |model: &str| {
        CHAIN
            .replace("\"echo\"", &format!("\"{model}\""))
            .replace("\"IN\"", "\"x\"")
            .replace("\"OUT\"", "\"y\"")
    };
    checks(
        &repository(&[
            ("echo/config.pbtxt", ECHO),
            ("echo/1/", ""),
            ("inner/config.pbtxt", CHAIN),
            ("inner/1/", ""),
            ("outer/config.pbtxt", &of("inner")),
            ("outer/1/", ""),
            ("head/config.pbtxt", &of("tail")),
            ("head/1/", ""),
            ("tail/config.pbtxt", &of("head")),
            ("tail/1/", ""),
        ]),
        1,
        &expect![[r#"
            head/config.pbtxt:5:1: circular dependency between ensembles: head -> tail -> head
            tail/config.pbtxt:5:1: circular dependency between ensembles: tail -> head -> tail

            2 problems in 2 of 5 models
        "#]],
    );
}

#[test]
fn a_backend_of_another_server_is_a_note() {
    checks(
        &repository(&[
            ("script/config.pbtxt", &ECHO.replace("identity", "python")),
            ("script/1/model.py", ""),
            (
                "echo/config.pbtxt",
                &CHAIN.replace("\"echo\"", "\"script\"").replace("name: \"echo\"", ""),
            ),
            ("echo/1/", ""),
            ("gone/config.pbtxt", &ECHO.replace("identity", "python")),
            ("gone/1/", ""),
        ]),
        1,
        &expect![[r#"
            gone/1/model.py: the model file does not exist
            note: gone/config.pbtxt:2:1: backend `python` is none of Consort's, which are tokenizer, onnxruntime, onnxruntime_llm, detokenizer, pooling, classifier, identity; another server has to serve it
            note: script/config.pbtxt:2:1: backend `python` is none of Consort's, which are tokenizer, onnxruntime, onnxruntime_llm, detokenizer, pooling, classifier, identity; another server has to serve it

            1 problem in 1 of 3 models
        "#]],
    );
}

#[test]
fn one_name_in_two_repositories_is_a_problem() {
    let first = repository(&[("echo/config.pbtxt", ECHO), ("echo/1/", "")]);
    let second = repository(&[("echo/config.pbtxt", ECHO), ("echo/1/", "")]);
    let said = consort(&["check".as_ref(), first.path().as_os_str(), second.path().as_os_str()]);
    let name = |repository: &Repository, name: &str, text: &str| {
        let folder = repository.path().file_name().unwrap();
        text.replace(folder.to_str().unwrap(), name)
    };
    expect![[r#"
        echo: model `echo` appears in two repositories, `FIRST` and `SECOND`; rename one of them

        1 problem in 1 of 1 models
    "#]]
    .assert_eq(&name(&second, "SECOND", &name(&first, "FIRST", &said.stdout)));
    assert_eq!(said.code, 1);
}

/// A model that joins rows of any length, with this appended.
fn ragged(more: &str) -> Repository {
    let config = format!(
        r#"
max_batch_size: 4
input [ {{ name: "VALUES" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }} ]
output [ {{ name: "DOUBLED" data_type: TYPE_FP32 dims: [ -1 ] }}, {{ name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] }} ]
batch_input [ {{ kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "BOUNDS"
  data_type: TYPE_INT32 source_input: "VALUES" }} ]
batch_output [ {{ target_name: "DOUBLED" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "VALUES" }} ]
{more}
"#
    );
    let repository = repository(&[("ragged/config.pbtxt", &config), ("ragged/1/", "")]);
    let graph = shipped().join("../crates/model/tests/graphs/ragged.onnx");
    std::fs::copy(graph, repository.path().join("ragged/1/model.onnx")).unwrap();
    repository
}

#[test]
fn a_model_of_ragged_batches_is_good_as_it_is_served() {
    for load in [&[][..], &["--load"]] {
        let repository = ragged("");
        let mut arguments = vec!["check".as_ref(), repository.path().as_os_str()];
        arguments.extend(load.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
        let said = consort(&arguments);
        assert_eq!((said.code, said.stdout.as_str()), (0, "1 model is good\n"), "{load:?}");
    }
}

#[test]
fn warm_up_requests_that_cannot_be_made_are_found_without_loading_the_model() {
    let with_file = |file: &str| {
        ragged(&format!(
            r#"model_warmup [ {{ name: "first" batch_size: 1 inputs {{ key: "VALUES"
                value {{ data_type: TYPE_FP32 dims: [ 3 ] input_data_file: "{file}" }} }} }} ]"#
        ))
    };
    let expected = |repository: &Repository, part: &str| {
        let said = consort(&["check".as_ref(), repository.path().as_os_str()]);
        let is_so = said.stdout.starts_with("ragged/config.pbtxt:8:1: in warmup sample 'first': ")
            && said.stdout.contains(part);
        assert!(is_so && said.code == 1, "{}", said.stdout);
    };
    expected(&with_file("none"), "`warmup/none` cannot be read");
    expected(&with_file("../1/model.onnx"), "is not inside the folder `warmup`");
    let short = with_file("short");
    std::fs::create_dir(short.path().join("ragged/warmup")).unwrap();
    std::fs::write(short.path().join("ragged/warmup/short"), [0; 4]).unwrap();
    expected(&short, "expects 12 bytes");
}

/// What asks for an accelerator of the processor.
const ACCELERATORS: &str = r#"
optimization { execution_accelerators { cpu_execution_accelerator [ { name: "openvino" } ] } }
"#;

#[test]
fn what_a_backend_would_refuse_of_its_parameters_is_found_without_loading_the_model() {
    let parameter = |key: &str, value: &str| {
        format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}\n")
    };
    let onnx = ECHO.replace("identity", "onnxruntime");
    let llm = "backend: \"onnxruntime_llm\"\n";
    checks(
        &repository(&[
            ("accelerated/config.pbtxt", &(onnx.clone() + ACCELERATORS)),
            ("accelerated/1/", ""),
            ("good/config.pbtxt", &(llm.to_owned() + &parameter("max_active_requests", "4"))),
            ("good/1/model.onnx", ""),
            (
                "greedy/config.pbtxt",
                &(llm.to_owned() + &parameter("max_active_requests", "100000")),
            ),
            ("greedy/1/model.onnx", ""),
            ("llm/config.pbtxt", &(llm.to_owned() + &parameter("max_sequence_length", "0"))),
            ("llm/1/model.onnx", ""),
            ("onnx/config.pbtxt", &(onnx.clone() + &parameter("enable_mem_arena", "perhaps"))),
            ("onnx/1/", ""),
            (
                "threads/config.pbtxt",
                &(llm.to_owned() + &parameter("intra_op_thread_count", "all")),
            ),
            ("threads/1/model.onnx", ""),
        ]),
        1,
        &expect![[r#"
            accelerated/1/model.onnx: the model file does not exist
            accelerated/config.pbtxt: unknown execution provider `openvino` in `cpu_execution_accelerator`; known here: none, the CPU does without
            greedy/config.pbtxt: `max_active_requests` is 100000, more than 65536
            llm/config.pbtxt:2:14: parameter `max_sequence_length` must be a whole number above 0, not `0`
            onnx/1/model.onnx: the model file does not exist
            onnx/config.pbtxt:5:14: parameter `enable_mem_arena` must be `true` or `false`, not `perhaps`
            threads/config.pbtxt:2:14: parameter `intra_op_thread_count` must be a whole number that is not negative, not `all`

            7 problems in 5 of 6 models
        "#]],
    );
}

#[test]
fn a_warm_up_that_fails_is_found_where_models_are_loaded() {
    let config = r#"
max_batch_size: 4
input [ { name: "INDEX" data_type: TYPE_INT64 dims: [ 1 ] } ]
output [ { name: "PICKED" data_type: TYPE_FP32 dims: [ 1 ] } ]
model_warmup [ { name: "beyond" batch_size: 1 inputs { key: "INDEX"
  value { data_type: TYPE_INT64 dims: [ 1 ] input_data_file: "nine" } } } ]
"#;
    let repository = repository(&[("pick/config.pbtxt", config), ("pick/1/", "")]);
    let graph = shipped().join("../crates/model/tests/graphs/pick.onnx");
    std::fs::copy(graph, repository.path().join("pick/1/model.onnx")).unwrap();
    std::fs::create_dir(repository.path().join("pick/warmup")).unwrap();
    std::fs::write(repository.path().join("pick/warmup/nine"), 9_i64.to_le_bytes()).unwrap();
    let alone = consort(&["check".as_ref(), repository.path().as_os_str()]);
    assert_eq!(alone.stdout, "1 model is good\n");
    let said = consort(&["check".as_ref(), "--load".as_ref(), repository.path().as_os_str()]);
    let found = "pick/config.pbtxt: failed to run warmup sample 'beyond': ";
    assert!(said.stdout.starts_with(found) && said.code == 1, "{}", said.stdout);
}

#[test]
fn versions_that_are_missing_and_folders_that_are_none_are_noted() {
    let config = format!("{ECHO}version_policy {{ specific {{ versions: [ 1, 7 ] }} }}\n");
    checks(
        &repository(&[("echo/config.pbtxt", &config), ("echo/1/", ""), ("echo/02/", "")]),
        0,
        &expect![[r#"
            note: echo: folder '02' is no version and is passed over: a version is a whole number above 0 without leading zeros
            note: echo: version 7 is specified in `version_policy`, but there is no such folder

            1 model is good
        "#]],
    );
}

#[test]
fn programs_are_told_in_json() {
    let broken = repository(&[
        ("echo/config.pbtxt", "backend: \"identity\"\nmax_bach_size: 4\n"),
        ("echo/1/", ""),
    ]);
    let said = consort(&["check".as_ref(), "--json".as_ref(), broken.path().as_os_str()]);
    expect![[r#"
        {
          "models": [
            "echo"
          ],
          "problems": [
            {
              "model": "echo",
              "file": "echo/config.pbtxt",
              "line": 2,
              "column": 1,
              "message": "unknown field `max_bach_size`",
              "help": "did you mean `max_batch_size`?"
            }
          ],
          "notes": []
        }
    "#]]
    .assert_eq(&said.stdout);
    assert_eq!(said.code, 1);
}

#[test]
fn a_repository_that_is_not_there_is_an_error() {
    let said = consort(&["check", "/no/such/folder"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.contains("/no/such/folder"), "{}", said.stderr);
}
