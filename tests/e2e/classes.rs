//! Classes are told with the labels that the models' files give them.

use crate::repository::Repository;
use crate::system::{Layout, System};

const LABELLED: &str = r#"backend: "identity"
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "animals.txt" } ]"#;

const RELABELLED: &str = r#"platform: "ensemble"
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "french.txt" } ]
    ensemble_scheduling { step [ {
        model_name: "animals" model_version: -1
        input_map { key: "x" value: "x" }
        output_map { key: "y" value: "y" }
    } ] }"#;

const BEST_TWO: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[4],"data":[1,4,2,3]}],
    "outputs":[{"name":"y","parameters":{"classification":2}}]}"#;

#[test]
fn a_class_has_the_label_of_the_model_of_its_step_or_of_the_ensemble() {
    for layout in Layout::ALL {
        let repository = Repository::new()
            .with("animals", LABELLED)
            // One fewer than there are elements.
            .with_file("animals", "animals.txt", b"cat\ndog\ncow\n")
            .with_chain("chain", &["animals"])
            .with("animaux", RELABELLED)
            .with_file("animaux", "french.txt", b"chat\nchien\nvache\ncheval\n");
        let system = System::start(layout, repository.path());
        for (model, classes) in [
            ("animals", ["4.000000:1:dog", "3.000000:3"]),
            ("chain", ["4.000000:1:dog", "3.000000:3"]),
            ("animaux", ["4.000000:1:chien", "3.000000:3:cheval"]),
        ] {
            let answer = system.post(&format!("/v2/models/{model}/infer"), BEST_TWO);
            assert_eq!(answer.status, 200, "{layout:?}: {}", answer.text);
            let data = &answer.json()["outputs"][0]["data"];
            assert_eq!(*data, serde_json::json!(classes), "{layout:?} {model}");
        }
    }
}

#[test]
fn a_label_file_that_is_not_there_is_told_by_its_name() {
    let repository = Repository::new()
        .with("animals", LABELLED)
        .with_identity("quick")
        .with("animaux", &RELABELLED.replace(r#""animals""#, r#""quick""#));
    let system = System::launch(Layout::OneProcess, repository.path(), &[]);
    for (model, file) in [("animals", "animals.txt"), ("animaux", "french.txt")] {
        let answer = system.post(&format!("/v2/models/{model}/infer"), BEST_TWO);
        assert_ne!(answer.status, 200);
        let index = system.index().to_string();
        let text = format!("label file `{file}` of model `{model}` cannot be read");
        assert!(index.contains(&text), "{index}");
    }
}
