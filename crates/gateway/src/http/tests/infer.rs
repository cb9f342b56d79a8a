//! What `/infer` answers when nothing is wrong.

use consort_middleware::HTTP_TIMEOUT_HEADER;
use consort_stage::{Parameter, Tensor, encode_strings};
use serde_json::json;

use super::*;
use crate::http::compression::{Encoding, compress, decompress};

const ECHO: &str = "/v2/models/echo/infer";

fn binary_part(reply: &Reply) -> (serde_json::Value, Bytes) {
    assert_eq!(reply.headers["content-type"], "application/octet-stream");
    let length = reply.headers["inference-header-content-length"].to_str();
    let length = length.unwrap().parse().unwrap();
    let mut body = reply.body.clone();
    let text = body.split_to(length);
    (serde_json::from_slice(&text).unwrap(), body)
}

#[tokio::test]
async fn json_in_gives_json_out() {
    let body = r#"{"id":"a\"b","inputs":[
        {"data":[[1,2.5],[-3e2,4]],"name":"FP32","shape":[2,2],"datatype":"FP32"},
        {"name":"BYTES","shape":[2],"datatype":"BYTES","data":["Ω \"q\"","\n"]}]}"#;
    for path in [ECHO, "/v2/models/echo/versions/3/infer"] {
        let reply = post(front(vec![echo()]), path, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let expected = json!({
            "id": "a\"b",
            "model_name": "echo",
            "model_version": "3",
            "outputs": [
                {"name": "FP32", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.5, -300.0, 4.0]},
                {"name": "BYTES", "datatype": "BYTES", "shape": [2], "data": ["Ω \"q\"", "\n"]},
            ],
        });
        assert_eq!(reply.json(), expected);
    }
}

#[tokio::test]
async fn binary_in_gives_binary_out_where_asked() {
    let json = r#"{"inputs":[
        {"name":"FP16","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}},
        {"name":"INT8","shape":[1],"datatype":"INT8","data":[-5]},
        {"name":"UINT8","shape":[3],"datatype":"UINT8","parameters":{"binary_data_size":3}}],
        "outputs":[
        {"name":"FP16","parameters":{"binary_data":true}},
        {"name":"INT8","parameters":{"binary_data":false}},
        {"name":"UINT8","parameters":{"binary_data":true}}]}"#;
    let reply = post_binary(front(vec![echo()]), ECHO, json, &[1, 2, 3, 4, 5, 6, 7]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (text, blobs) = binary_part(&reply);
    assert_eq!(text["outputs"][0]["parameters"]["binary_data_size"], 4);
    assert_eq!(text["outputs"][1]["data"], json!([-5]));
    assert_eq!(text["outputs"][2]["parameters"]["binary_data_size"], 3);
    assert_eq!(&*blobs, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn binary_may_be_the_default_for_all_outputs() {
    let body = r#"{"parameters":{"binary_data_output":true},"inputs":[
        {"name":"INT8","shape":[1],"datatype":"INT8","data":[7]},
        {"name":"BYTES","shape":[1],"datatype":"BYTES","data":["hi"]}]}"#;
    let (text, blobs) = binary_part(&post(front(vec![echo()]), ECHO, body).await);
    assert_eq!(text["outputs"][1]["parameters"]["binary_data_size"], 6);
    assert_eq!(&*blobs, b"\x07\x02\0\0\0hi");
    assert_eq!(text.get("parameters"), None);
}

#[tokio::test]
async fn a_wish_overrides_the_default_and_leaves_the_others_out() {
    let body = r#"{"parameters":{"binary_data_output":true},"inputs":[
        {"name":"INT8","shape":[1],"datatype":"INT8","data":[7]},
        {"name":"UINT8","shape":[1],"datatype":"UINT8","data":[9]}],
        "outputs":[{"name":"UINT8","parameters":{"binary_data":false}}]}"#;
    let outputs = post(front(vec![echo()]), ECHO, body).await.json()["outputs"].take();
    assert_eq!(outputs, json!([{"name": "UINT8", "datatype": "UINT8", "shape": [1], "data": [9]}]));
}

#[tokio::test]
async fn parameters_reach_the_model_and_come_back() {
    let body = r#"{"inputs":[],"parameters":{"sequence_id":"s","priority":2,"timeout":5,
        "sequence_start":true,"headers":{"a":1},"text":"t","number":-1,"big":18446744073709551615,
        "real":0.5,"flag":false}}"#;
    let reply = post(front(vec![echo()]), ECHO, body).await.json();
    let expected = json!({"big": u64::MAX, "flag": false, "number": -1, "priority": 2,
        "real": 0.5, "sequence_id": "s", "sequence_start": true, "text": "t", "timeout": 5});
    assert_eq!(reply["parameters"], expected);
}

#[tokio::test]
async fn values_that_json_has_no_words_for_are_written_as_triton_does() {
    let nan = model("nan", Signature::default(), |_| {
        let values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1];
        one(async { Ok(Response::only(vec![Tensor::from_vec("y", &[4], values)])) })
    });
    let reply = post(front(vec![nan]), "/v2/models/nan/infer", r#"{"inputs":[]}"#).await;
    assert!(reply.text().contains(r#""data":[NaN,Infinity,-Infinity,0.1]"#));
}

#[tokio::test]
async fn text_that_is_not_utf8_is_written_as_it_is() {
    let json = r#"{"inputs":[{"name":"BYTES","shape":[1],"datatype":"BYTES",
        "parameters":{"binary_data_size":8}}]}"#;
    let blob = encode_strings(&[b"a\"\xffb"]);
    let reply = post_binary(front(vec![echo()]), ECHO, json, &blob).await;
    let data = b"\"data\":[\"a\\\"\xffb\"]";
    assert!(reply.body.windows(data.len()).any(|window| window == data));
}

#[tokio::test]
async fn a_raw_body_is_the_only_input_with_its_shape_deduced() {
    let raw = [("inference-header-content-length", "0")];
    for (dims, batch, bytes, shape) in [
        (&[2_i64, -1][..], 0, 24, json!([2, 3])),
        (&[-1], 4, 8, json!([1, 2])),
        (&[2], 4, 8, json!([1, 2])),
        (&[], 0, 4, json!([])),
    ] {
        let front = front(vec![one_input("m", DataType::Fp32, dims, batch)]);
        let body = vec![1; bytes];
        let reply = post_with(front, "/v2/models/m/infer", &raw, body.clone()).await;
        let (text, blob) = binary_part(&reply);
        assert_eq!(text["outputs"][0]["shape"], shape);
        assert_eq!(&*blob, body);
    }
    let front = front(vec![one_input("m", DataType::Bytes, &[1], 0)]);
    let reply = post_with(front, "/v2/models/m/infer", &raw, "some text").await;
    assert_eq!(&*binary_part(&reply).1, b"\x09\0\0\0some text");
}

#[tokio::test]
async fn the_highest_elements_stand_for_a_classified_output() {
    let body = r#"{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32",
        "data":[0.25,0.5,0.25, 3,1,2]}],"outputs":[{"name":"x","parameters":{"classification":2}}]}"#;
    let front = front(vec![one_input("m", DataType::Fp32, &[3], 8)]);
    let reply = post(front, "/v2/models/m/infer", body).await.json();
    let expected = json!([{"name": "x", "datatype": "BYTES", "shape": [2, 2],
        "data": ["0.500000:1", "0.250000:0", "3.000000:0", "2.000000:2"]}]);
    assert_eq!(reply["outputs"], expected);
}

#[tokio::test]
async fn more_classes_than_elements_are_all_of_them_and_integers_stay_so() {
    let body = r#"{"inputs":[{"name":"x","shape":[2],"datatype":"INT32","data":[-7,4]}],
        "outputs":[{"name":"x","parameters":{"classification":9}}]}"#;
    let front = front(vec![one_input("m", DataType::Int32, &[2], 0)]);
    let reply = post(front, "/v2/models/m/infer", body).await.json();
    assert_eq!(reply["outputs"][0]["shape"], json!([2]));
    assert_eq!(reply["outputs"][0]["data"], json!(["4:1", "-7:0"]));
}

#[tokio::test]
async fn compressed_bodies_pass_both_ways() {
    let body = r#"{"inputs":[{"name":"INT8","shape":[1],"datatype":"INT8","data":[7]}]}"#;
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let name = encoding.name();
        let headers = [("content-encoding", name), ("accept-encoding", name)];
        let packed = compress(body.as_bytes().to_vec(), encoding).unwrap();
        let reply = post_with(front(vec![echo()]), ECHO, &headers, packed).await;
        assert_eq!(reply.headers["content-encoding"], name);
        let plain = decompress(&reply.body, encoding, 1000).unwrap();
        let reply: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(reply["outputs"][0]["data"], json!([7]));
    }
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() {
    let body = r#"{"inputs":[{"name":"INT8","shape":[1],"datatype":"INT8","data":[7]}]}"#;
    let pieces = body.as_bytes().chunks(5).map(|piece| Ok::<_, Error>(Bytes::from(piece)));
    let body = Body::from_stream(stream::iter(pieces));
    let reply = post(front(vec![echo()]), ECHO, body).await;
    assert_eq!(reply.json()["outputs"][0]["data"], json!([7]));
}

#[tokio::test]
async fn binary_inputs_are_slices_of_the_body() {
    let place = Arc::new(std::sync::Mutex::new(0));
    let seen = Arc::clone(&place);
    let spy = model("spy", Signature::default(), move |request| {
        *seen.lock().unwrap() = request.inputs[0].data.as_ptr() as usize;
        echo_back(request)
    });
    let json = r#"{"inputs":[{"name":"x","shape":[4],"datatype":"UINT8","parameters":{"binary_data_size":4}}]}"#;
    let body = Bytes::from([json.as_bytes(), &[1, 2, 3, 4]].concat());
    let expected = body.as_ptr() as usize + json.len();
    let length = json.len().to_string();
    let headers = [("inference-header-content-length", &*length)];
    post_with(front(vec![spy]), "/v2/models/spy/infer", &headers, body).await;
    assert_eq!(*place.lock().unwrap(), expected);
}

#[tokio::test]
async fn the_request_carries_its_callers_trace_and_deadline() {
    let spy = model("spy", Signature::default(), |request| {
        let trace = request.context.traceparent.as_deref().unwrap_or("none");
        let has_deadline = request.context.deadline.is_some();
        let parameters = [
            ("trace".to_owned(), Parameter::String(trace.to_owned())),
            ("has_deadline".to_owned(), Parameter::Bool(has_deadline)),
        ];
        let parameters = parameters.into();
        one(async { Ok(Response { parameters, ..Response::default() }) })
    });
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), (HTTP_TIMEOUT_HEADER, "5000")];
    let front = layered(front(vec![spy]));
    let reply = post_with(front, "/v2/models/spy/infer", &headers, r#"{"inputs":[]}"#).await;
    let parameters = &reply.json()["parameters"];
    assert_eq!(parameters["trace"], trace);
    assert_eq!(parameters["has_deadline"], true);
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let slow = model("slow", Signature::default(), |_| Box::pin(stream::pending()));
    let front = layered(front(vec![slow]));
    let headers = [(HTTP_TIMEOUT_HEADER, "20")];
    let reply = post_with(front, "/v2/models/slow/infer", &headers, r#"{"inputs":[]}"#).await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.error(), "request deadline exceeded");
}
