//! What `/infer` says to a request that is wrong.

use consort_stage::Tensor;

use super::*;
use crate::http::compression::{Encoding, compress};

fn shelf() -> Router {
    let two = Signature {
        inputs: vec![
            TensorSpec::new("a", DataType::Fp32, &[1]),
            TensorSpec::new("b", DataType::Fp32, &[1]),
            TensorSpec::new("c", DataType::Fp32, &[1]),
        ],
        ..Signature::default()
    };
    let decoupled = Signature { is_decoupled: true, ..Signature::default() };
    let halves = Signature {
        outputs: vec![TensorSpec::new("y", DataType::Fp16, &[1])],
        ..Signature::default()
    };
    front(vec![
        echo(),
        one_input("wide", DataType::Fp32, &[-1, -1], 0),
        one_input("words", DataType::Bytes, &[-1], 0),
        model("three", two, echo_back),
        model("decoupled", decoupled, echo_back),
        model("twice", Signature::default(), |_| {
            all(vec![Ok(Response::default()), Ok(Response::default())])
        }),
        model("halves", halves, |_| {
            let half = Tensor {
                name: "y".into(),
                datatype: DataType::Fp16,
                shape: vec![1],
                data: Bytes::from_static(&[0, 0]),
            };
            one(async { Ok(Response::only(vec![half])) })
        }),
    ])
}

async fn refused(body: &str, status: u16, text: &str) {
    let reply = post(shelf(), "/v2/models/echo/infer", body.to_owned()).await;
    assert!(reply.error().contains(text), "{body}: {}", reply.error());
    assert_eq!(reply.status, status, "{body}");
}

/// A request with one input that is like this but for what `change` says.
async fn refused_input(fields: &str, status: u16, text: &str) {
    refused(&format!(r#"{{"inputs":[{{{fields}}}]}}"#), status, text).await;
}

#[tokio::test]
async fn an_unknown_model_or_version_is_not_found() {
    let reply = post(shelf(), "/v2/models/nothing/infer", "{}").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.error(), "Request for unknown model: 'nothing' is not found");
    let reply = post(shelf(), "/v2/models/echo/versions/2/infer", "{}").await;
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn malformed_json_is_refused_with_the_place() {
    let start = "failed to parse the request JSON buffer: ";
    refused("", 500, &format!("{start}The document is empty. at 0")).await;
    refused("{", 500, &format!("{start}EOF while parsing an object at 1")).await;
    refused("\n {\"inputs\": oops}", 500, &format!("{start}expected value at 14")).await;
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(120), "]".repeat(120));
    refused(&deep, 400, "JSON nesting depth exceeds maximum allowed limit (100)").await;
}

#[tokio::test]
async fn a_member_of_the_wrong_type_is_named() {
    let member =
        |field: &str, text: &str| format!("Unable to parse '{field}': attempt to access {text}");
    refused("{}", 500, &member("inputs", "non-existing object member 'inputs'")).await;
    refused(r#"{"inputs":5}"#, 500, "expected a sequence").await;
    refused("[]", 500, "failed to parse the request: expected an object").await;
    refused("[null,null,[],null]", 500, "failed to parse the request: expected an object").await;
    let text = member("id", "JSON non-string as string");
    refused(r#"{"id":5,"inputs":[]}"#, 500, &text).await;
    let text = member("parameters", "JSON non-object as object");
    refused(r#"{"parameters":[],"inputs":[]}"#, 500, &text).await;
    let text = member("name", "JSON non-string as string");
    refused_input(r#""name":1"#, 500, &text).await;
    refused(r#"{"inputs":[],"outputs":[{"name":1}]}"#, 500, &text).await;
    let text = member("name", "non-existing object member 'name'");
    refused_input(r#""datatype":"FP32""#, 500, &text).await;
    let text = member("shape", "JSON non-unsigned-integer as unsigned-integer");
    refused_input(r#""name":"x","shape":[-1]"#, 500, &text).await;
    refused_input(r#""name":"x","shape":[1.5]"#, 500, &text).await;
    let text = member("binary_data", "JSON non-boolean as boolean");
    let outputs = r#"[{"name":"y","parameters":{"binary_data":"yes"}}]"#;
    refused(&format!(r#"{{"inputs":[],"outputs":{outputs}}}"#), 500, &text).await;
}

#[tokio::test]
async fn data_that_does_not_fit_is_refused() {
    let data = |datatype: &str, shape: &str, data: &str| {
        format!(r#""name":"x","datatype":"{datatype}","shape":{shape},"data":{data}"#)
    };
    let count = "Unable to parse 'data': Shape does not match true shape of 'data' field";
    refused_input(&data("FP32", "[3]", "[1,2]"), 500, count).await;
    refused_input(&data("FP32", "[1]", "[[1],[2]]"), 500, count).await;
    for (datatype, value, text) in [
        ("BYTES", "[5]", "JSON non-string as string"),
        ("INT32", "[\"5\"]", "JSON non-signed-integer as signed-integer"),
        ("UINT8", "[1.5]", "JSON non-unsigned-integer as unsigned-integer"),
        ("BOOL", "[\"true\"]", "JSON non-boolean as boolean"),
        ("FP64", "[true]", "JSON non-number as double"),
        ("FP32", "1", "JSON non-array as array"),
        ("FP32", "[null]", "JSON non-number as double"),
    ] {
        let text = format!("Unable to parse 'data': attempt to access {text}");
        refused_input(&data(datatype, "[1]", value), 500, &text).await;
    }
    refused_input(&data("UINT8", "[1]", "[256]"), 500, "out of the range of UINT8").await;
    refused_input(&data("UINT8", "[1]", "[-1]"), 500, "out of the range of UINT8").await;
    refused_input(&data("FP32", "[1]", "[1e39]"), 500, "out of the range of FP32").await;
    for datatype in ["FP16", "BF16"] {
        let text = format!(
            "receiving {datatype} data via JSON is not supported. Please use the binary data \
             format for input x"
        );
        refused_input(&data(datatype, "[1]", "[1]"), 400, &text).await;
    }
    let text = "inference input 'FP32' data-type is 'FLOAT', but model 'echo' expects 'FP32'";
    let input = r#""name":"FP32","shape":[1],"datatype":"FLOAT","data":[1]"#;
    refused_input(input, 400, text).await;
}

#[tokio::test]
async fn shapes_that_no_memory_holds_are_refused() {
    let input =
        |shape: &str| format!(r#""name":"x","datatype":"INT64","shape":{shape},"data":[1]"#);
    let text = "causes total element count to exceed maximum size of";
    refused_input(&input("[4294967296,4294967296]"), 400, text).await;
    refused_input(&input("[18446744073709551615,2]"), 400, text).await;
    let text = "exceeds the maximum allowed input size of 10000 bytes";
    refused_input(&input("[9223372036854775807]"), 400, text).await;
    refused_input(&input("[1251]"), 400, &format!("request JSON size of 10008 bytes {text}")).await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_however_it_comes() {
    let text = "request JSON size of 10001 bytes exceeds the maximum allowed input size of 10000 \
                bytes. Use --http-max-input-size to increase the limit.";
    refused(&" ".repeat(10_001), 400, text).await;
    let reply = post(shelf(), "/v2/models/echo/infer", vec![b' '; 20_001]).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["connection"]),
        (400, &"close".parse().unwrap())
    );
    let endless = stream::repeat_with(|| Ok::<_, Error>(Bytes::from_static(&[b' '; 100])));
    let reply = post(shelf(), "/v2/models/echo/infer", Body::from_stream(endless)).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.headers["connection"], "close");
    assert!(reply.error().contains("exceeds the maximum allowed input size of 10000 bytes"));
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let bomb = compress(vec![b' '; 1 << 20], encoding).unwrap();
        let headers = [("content-encoding", encoding.name())];
        let reply = post_with(shelf(), "/v2/models/echo/infer", &headers, bomb).await;
        assert_eq!(reply.status, 400);
        assert!(reply.error().contains("exceeds the maximum allowed input size of 10000 bytes"));
    }
}

#[tokio::test]
async fn a_body_in_too_many_pieces_is_refused() {
    let pieces = stream::repeat_with(|| Ok::<_, Error>(Bytes::from_static(b" ")));
    let shelf = Shelf { models: vec![echo()], is_ready: true };
    let front = router(Arc::new(shelf), Options::default());
    let reply = post(front, "/v2/models/echo/infer", Body::from_stream(pieces)).await;
    assert_eq!(reply.status, 400);
    assert!(reply.error().contains("more than 65536 chunks"));
}

#[tokio::test]
async fn an_unknown_or_broken_compression_is_refused() {
    let reply =
        post_with(shelf(), "/v2/models/echo/infer", &[("content-encoding", "br")], "").await;
    assert_eq!(reply.status, 501);
    assert_eq!(reply.error(), "Unsupported compression type");
    assert_eq!(reply.headers["accept-encoding"], "gzip, deflate");
    let headers = [("content-encoding", "gzip")];
    let reply = post_with(shelf(), "/v2/models/echo/infer", &headers, "not gzip").await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.error(), "the request body is not valid gzip data");
}

#[tokio::test]
async fn the_json_length_must_lie_within_the_body() {
    for length in ["-1", "3", "x", "99999999999999999999"] {
        let headers = [("inference-header-content-length", length)];
        let reply = post_with(shelf(), "/v2/models/echo/infer", &headers, "{}").await;
        assert_eq!(reply.status, 400);
        assert_eq!(
            reply.error(),
            format!("inference header size should be in range (0, 2), got: {length}")
        );
    }
}

#[tokio::test]
async fn binary_data_must_be_all_there_and_no_more() {
    let input = |size: usize| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    let refused = async |json: String, blobs: &[u8], text: &str| {
        let reply = post_binary(shelf(), "/v2/models/echo/infer", &json, blobs).await;
        assert_eq!(reply.status, 400);
        assert_eq!(reply.error(), text);
    };
    let text = "unexpected size for input 'x', expecting 3 additional bytes for model 'echo'";
    refused(input(4), &[0], text).await;
    let text = "unexpected additional input data for model 'echo'";
    refused(input(4), &[0; 5], text).await;
    let reply = post(shelf(), "/v2/models/echo/infer", input(4)).await;
    assert_eq!(reply.status, 400);
    assert!(reply.error().starts_with("must specify valid 'Infer-Header-Content-Length' in"));
}

#[tokio::test]
async fn an_input_has_one_source() {
    let text = "Input must set only one of the following fields: ";
    let input = r#""name":"x","shape":[1],"datatype":"FP32""#;
    refused_input(input, 400, text).await;
    let both = format!(r#"{input},"data":[1],"parameters":{{"binary_data_size":4}}"#);
    refused_input(&both, 400, text).await;
    let memory = format!(r#"{input},"parameters":{{"shared_memory_region":"r"}}"#);
    refused_input(&memory, 501, "Client shared memory is disabled").await;
    let output =
        r#"{"inputs":[],"outputs":[{"name":"x","parameters":{"shared_memory_region":"r"}}]}"#;
    refused(output, 501, "Client shared memory is disabled").await;
}

#[tokio::test]
async fn nothing_is_named_twice() {
    let twice = r#"{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}"#;
    refused(twice, 400, "output 'y' already exists in request").await;
    let input = r#"{"name":"x","shape":[1],"datatype":"INT8","data":[1]}"#;
    let twice = format!(r#"{{"inputs":[{input},{input}]}}"#);
    refused(&twice, 400, "input 'x' already exists in request").await;
}

#[tokio::test]
async fn reserved_and_mistyped_parameters_are_refused() {
    let refused_parameter = async |parameter: &str, status, text: &str| {
        let body = format!(r#"{{"inputs":[],"parameters":{{{parameter}}}}}"#);
        refused(&body, status, text).await;
    };
    let text = "parameter keys starting with 'triton_' are reserved for Triton usage and should \
                not be specified.";
    refused_parameter(r#""triton_x":1"#, 400, text).await;
    let text = "parameter 'x' has invalid type. It should be either 'int', 'bool', or 'string'.";
    for value in ["[]", "{}", "null"] {
        refused_parameter(&format!(r#""x":{value}"#), 400, text).await;
    }
    let unsigned = "attempt to access JSON non-unsigned-integer as unsigned-integer";
    refused_parameter(r#""priority":-1"#, 500, unsigned).await;
    refused_parameter(r#""timeout":"soon""#, 500, unsigned).await;
    refused_parameter(r#""sequence_id":true"#, 500, unsigned).await;
    let boolean = "attempt to access JSON non-boolean as boolean";
    refused_parameter(r#""sequence_start":1"#, 500, boolean).await;
    refused_parameter(r#""binary_data_output":1"#, 500, boolean).await;
}

#[tokio::test]
async fn a_raw_body_needs_a_model_that_leaves_no_choice() {
    let raw = [("inference-header-content-length", "0")];
    for (model, text) in [
        (
            "three",
            "Raw request must only have 1 input (found 1) to be deduced but got 3 inputs in \
             'three' model configuration",
        ),
        (
            "wide",
            "The shape of the raw input 'x' can not be deduced because there are more than one \
             variable-sized dimension",
        ),
        ("words", "For BYTE datatype raw input 'x', the model must have input shape [1]"),
    ] {
        let reply = post_with(shelf(), &format!("/v2/models/{model}/infer"), &raw, "text").await;
        assert_eq!(reply.status, 400);
        assert_eq!(reply.error(), text);
    }
}

#[tokio::test]
async fn answers_that_one_response_can_not_hold_are_refused() {
    let reply = post(shelf(), "/v2/models/decoupled/infer", "{}").await;
    assert_eq!(reply.status, 501);
    assert_eq!(
        reply.error(),
        "HTTP end point doesn't support models with decoupled transaction policy"
    );
    let reply = post(shelf(), "/v2/models/twice/infer", r#"{"inputs":[]}"#).await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.error(), "expected a single response, got 2");
    let reply = post(shelf(), "/v2/models/halves/infer", r#"{"inputs":[]}"#).await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.error(),
        "sending FP16 data via JSON is not supported. Please use the binary data format for \
         output y"
    );
}

#[tokio::test]
async fn text_can_not_be_classified() {
    let body = r#"{"inputs":[{"name":"BYTES","shape":[1],"datatype":"BYTES","data":["a"]}],
        "outputs":[{"name":"BYTES","parameters":{"classification":1}}]}"#;
    refused(body, 400, "due to unsupported type 'BYTES'").await;
}
