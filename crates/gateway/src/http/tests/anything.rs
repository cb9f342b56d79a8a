//! Whatever a client sends, it gets an answer, and an error is JSON.

use proptest::prelude::*;

use super::*;

static SHELF: LazyLock<Router> = LazyLock::new(|| {
    front(vec![
        echo(),
        one_input("raw", DataType::Fp32, &[-1], 4),
        model("generate", language(true), echo_back),
    ])
});

/// Any value, with the words that requests are made of turning up often.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let word = proptest::sample::select(vec![
        "x",
        "FP32",
        "INT8",
        "BYTES",
        "BOOL",
        "text_input",
        "max_tokens",
        "stream",
        "echo",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-2_i64..5).prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        word.prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let key = proptest::sample::select(vec![
            "id",
            "inputs",
            "outputs",
            "parameters",
            "name",
            "shape",
            "datatype",
            "data",
            "binary_data_size",
            "binary_data",
            "classification",
            "text_input",
            "max_tokens",
            "x",
        ]);
        let key = prop_oneof![4 => key.prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            proptest::collection::vec((key, inner), 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A request to `/infer` that is well formed but for the values in it.
fn almost_right() -> impl Strategy<Value = serde_json::Value> {
    let input = (value(), value(), value(), value());
    proptest::collection::vec(input, 0..3).prop_map(|inputs| {
        let inputs: Vec<_> = inputs
            .into_iter()
            .map(|(name, shape, data, parameters)| {
                serde_json::json!({"name": name, "shape": shape, "datatype": "INT8", "data": data,
                "parameters": parameters})
            })
            .collect();
        serde_json::json!({"inputs": inputs})
    })
}

fn answers(path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<(), TestCaseError> {
    let reply = block_on(post_with(SHELF.clone(), path, headers, body));
    if reply.status != 200 && reply.headers["content-type"] == "application/json" {
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        prop_assert!(body["error"].is_string());
    } else if reply.status != 200 {
        let is_event = reply.text().starts_with(r#"data: {"error":"#);
        prop_assert!(is_event);
    }
    Ok(())
}

const PATHS: [&str; 5] = [
    "/v2/models/echo/infer",
    "/v2/models/raw/infer",
    "/generate",
    "/generate_stream",
    "/v2/repository/index",
];

proptest! {
    #[test]
    fn any_json_gets_an_answer(value in value(), path in 0..PATHS.len()) {
        answers(PATHS[path], &[], value.to_string().into_bytes())?;
    }

    #[test]
    fn a_request_that_is_almost_right_gets_an_answer(value in almost_right()) {
        answers(PATHS[0], &[], value.to_string().into_bytes())?;
    }

    #[test]
    fn any_bytes_get_an_answer(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        path in 0..PATHS.len(),
        length in -1_i64..200,
    ) {
        let length = length.to_string();
        let headers = [("inference-header-content-length", &*length)];
        answers(PATHS[path], &headers, body.clone())?;
        answers(PATHS[path], &[("content-encoding", "gzip")], body)?;
    }

    #[test]
    fn json_that_is_cut_off_or_garbled_gets_an_answer(
        value in almost_right(),
        place in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = value.to_string().into_bytes();
        let place = place.index(body.len());
        body[place] = byte;
        answers(PATHS[0], &[], body[..place].to_vec())?;
        answers(PATHS[0], &[], body)?;
    }
}
