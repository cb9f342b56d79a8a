//! `consort plan`.

use expect_test::{Expect, expect};

use crate::repository::{ECHO, Repository, consort, repository, shipped};

/// Texts to tokens, a streaming model, and a step behind it that is also given what came before.
fn talk() -> Repository {
    let script = |inputs: &str, outputs: &str, more: &str| {
        let list = |tensors: &str| {
            let each = tensors.split(',').map(|tensor| {
                let (name, rest) = tensor.trim().split_once(' ').unwrap();
                let (datatype, dims) = rest.split_once(' ').unwrap();
                format!("{{ name: \"{name}\" data_type: TYPE_{datatype} dims: [ {dims} ] }}")
            });
            each.collect::<Vec<_>>().join(", ")
        };
        format!(
            "backend: \"python\"\n{more}\ninput [ {} ]\noutput [ {} ]\n",
            list(inputs),
            list(outputs)
        )
    };
    let decoupled = "model_transaction_policy { decoupled: true }";
    repository(&[
        (
            "split/config.pbtxt",
            &script("TEXT STRING 1", "IDS INT64 -1, MASK INT64 -1", "max_batch_size: 8"),
        ),
        ("split/1/model.py", ""),
        ("model/config.pbtxt", &script("IDS INT64 -1, LENGTH INT32 1", "TOKEN INT64 1", decoupled)),
        ("model/1/model.py", ""),
        ("join/config.pbtxt", &script("TOKEN INT64 1, PROMPT INT64 -1", "TEXT STRING 1", "")),
        ("join/1/model.py", ""),
        ("talk/config.pbtxt", TALK),
        ("talk/1/", ""),
    ])
}

const TALK: &str = r#"
platform: "ensemble"
input [ { name: "prompt" data_type: TYPE_STRING dims: [ 1 ] },
        { name: "length" data_type: TYPE_INT32 dims: [ 1 ] optional: true } ]
output [ { name: "answer" data_type: TYPE_STRING dims: [ 1 ] },
         { name: "mask" data_type: TYPE_INT64 dims: [ -1 ] } ]
ensemble_scheduling {
  step [
    { model_name: "join"
      input_map { key: "TOKEN" value: "token" } input_map { key: "PROMPT" value: "ids" }
      output_map { key: "TEXT" value: "answer" } },
    { model_name: "split" model_version: 1
      input_map { key: "TEXT" value: "prompt" }
      output_map { key: "IDS" value: "ids" } output_map { key: "MASK" value: "mask" } },
    { model_name: "model"
      input_map { key: "IDS" value: "ids" } input_map { key: "LENGTH" value: "length" }
      output_map { key: "TOKEN" value: "token" } }
  ]
}
"#;

fn prints(format: &str, printed: &Expect) {
    let repository = talk();
    let folder = repository.path().as_os_str();
    let said = consort(&[
        "plan".as_ref(),
        "talk".as_ref(),
        "--format".as_ref(),
        format.as_ref(),
        "--model-repository".as_ref(),
        folder,
    ]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    printed.assert_eq(&said.stdout);
}

#[test]
fn text_tells_the_steps_in_order_and_every_tensor() {
    prints(
        "text",
        &expect![[r#"
        ensemble talk, streams, at most 16 responses of a step in flight

        request
              prompt  BYTES[1]
              length  INT32[1]  optional

        then
          step 1 split (python, version 1)
              TEXT <- prompt  BYTES[-1,1]   gains a batch dimension
              IDS -> ids      INT64[-1,-1]
              MASK -> mask    INT64[-1,-1]

        then
          step 2 model (python, streams)
              IDS <- ids        INT64[-1]  loses a batch of one
              LENGTH <- length  INT32[1]
              TOKEN -> token    INT64[1]

        then
          step 0 join (python, once for each response of step 2 (model))
              TOKEN <- token  INT64[1]   streaming
              PROMPT <- ids   INT64[-1]  held, loses a batch of one
              TEXT -> answer  BYTES[1]

        response (one for each response of step 2 (model))
              answer <- answer  BYTES[1]   streaming
              mask <- mask      INT64[-1]  held, loses a batch of one
    "#]],
    );
}

#[test]
fn mermaid_tells_the_flows_apart() {
    prints(
        "mermaid",
        &expect![[r#"
        ---
        title: talk
        ---
        flowchart LR
            b0(["<b>request</b>"])
            b1["<b>0 join</b><br/><i>python</i><br/><i>once for each response of step 2 (model)</i>"]
            b2["<b>1 split</b><br/><i>python</i><br/><i>version 1</i>"]
            b3["<b>2 model</b><br/><i>python</i><br/><i>streams</i>"]
            b4(["<b>response</b><br/><i>one for each response of step 2 (model)</i>"])
            b3 ==>|"token<br/><i>streaming</i>"| b1
            b2 -.->|"ids<br/><i>held</i>"| b1
            b0 -->|"prompt"| b2
            b2 -->|"ids"| b3
            b0 -->|"length"| b3
            b1 ==>|"answer<br/><i>streaming</i>"| b4
            b2 -.->|"mask<br/><i>held</i>"| b4
    "#]],
    );
}

#[test]
fn a_picture_has_every_box_and_line_inside_itself() {
    for (ensemble, lines) in [("generate", 31), ("embed", 8)] {
        let repository = shipped();
        let said = consort(&[
            "plan".as_ref(),
            ensemble.as_ref(),
            "--format".as_ref(),
            "svg".as_ref(),
            "--model-repository".as_ref(),
            repository.as_os_str(),
        ]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(said.stdout.starts_with("<svg xmlns="), "{}", said.stdout);
        let drawn = said.stdout.matches("<path d=\"M").count();
        assert!(drawn >= lines, "{drawn} paths");
        assert!(!said.stdout.contains("NaN") && !said.stdout.contains("inf"));
    }
}

#[test]
fn an_ensemble_that_is_not_there_is_asked_back() {
    let repository = talk();
    let plan = |name: &str| {
        let folder = repository.path().as_os_str();
        consort(&["plan".as_ref(), name.as_ref(), "--model-repository".as_ref(), folder])
    };
    let said = plan("tolk");
    assert_eq!(said.stderr, "consort: there is no ensemble `tolk`; did you mean `talk`?\n");
    let said = plan("something");
    assert_eq!(said.stderr, "consort: there is no ensemble `something`; the ensembles are: talk\n");
    let said = plan("join");
    assert_eq!(said.stderr, "consort: model `join` is no ensemble, so it has no plan\n");
    assert_eq!(said.code, 1);
}

#[test]
fn an_ensemble_with_problems_has_them_told() {
    let broken = TALK.replace("TYPE_INT32", "TYPE_INT16");
    let repository = repository(&[
        ("talk/config.pbtxt", &broken),
        ("talk/1/", ""),
        ("join/config.pbtxt", ECHO),
        ("join/1/", ""),
        ("aside/config.pbtxt", "nonsense: 1"),
    ]);
    let folder = repository.path().as_os_str();
    let said = consort(&["plan".as_ref(), "talk".as_ref(), "--model-repository".as_ref(), folder]);
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    expect![[r#"
        talk/config.pbtxt:10:7: input IN in model join is not mapped to any ensemble tensors in ensemble talk
        talk/config.pbtxt:10:19: ensemble tensor token is mapping to non-existing input TOKEN in model join in ensemble talk; the model's inputs are: IN
        talk/config.pbtxt:10:61: ensemble tensor ids is mapping to non-existing input PROMPT in model join in ensemble talk; the model's inputs are: IN
        talk/config.pbtxt:11:20: ensemble tensor answer is mapping to non-existing output TEXT in model join in ensemble talk; the model's outputs are: OUT
        talk/config.pbtxt:12:7: ensemble talk contains models that are not available or ambiguous: split
        talk/config.pbtxt:15:7: ensemble talk contains models that are not available or ambiguous: model
    "#]].assert_eq(&said.stderr);
}
