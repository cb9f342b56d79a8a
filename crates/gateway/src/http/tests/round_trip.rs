//! Tensors of every type pass in and out unchanged, in JSON and in binary.

use consort_stage::{Tensor, encode_strings};
use proptest::prelude::*;

use super::*;

/// Any elements of this type, as a tensor has them, and how many there are.
fn elements(datatype: DataType) -> BoxedStrategy<(usize, Bytes)> {
    let bytes = |size: usize| {
        let element = proptest::collection::vec(any::<u8>(), size);
        let elements = proptest::collection::vec(element, 0..8);
        elements.prop_map(|all| (all.len(), Bytes::from(all.concat()))).boxed()
    };
    match datatype {
        DataType::Bool => proptest::collection::vec(any::<bool>(), 0..8)
            .prop_map(|all| (all.len(), all.into_iter().map(u8::from).collect()))
            .boxed(),
        DataType::Bytes => proptest::collection::vec(any::<String>(), 0..8)
            .prop_map(|all| (all.len(), encode_strings(&all)))
            .boxed(),
        // JSON has one value that is not a number, and no way to tell its many forms apart.
        DataType::Fp32 => proptest::collection::vec(
            proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO,
            0..8,
        )
        .prop_map(|all| (all.len(), Tensor::from_vec("x", &[all.len() as i64], all).data))
        .boxed(),
        DataType::Fp64 => proptest::collection::vec(
            proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO,
            0..8,
        )
        .prop_map(|all| (all.len(), Tensor::from_vec("x", &[all.len() as i64], all).data))
        .boxed(),
        datatype => bytes(datatype.size().unwrap()),
    }
}

fn tensors() -> impl Strategy<Value = (DataType, usize, Bytes)> {
    proptest::sample::select(&DataType::ALL[..])
        .prop_flat_map(|datatype| elements(datatype).prop_map(move |(n, data)| (datatype, n, data)))
}

static ECHO: LazyLock<Router> = LazyLock::new(|| front(vec![echo()]));

proptest! {
    #[test]
    fn binary_comes_back_as_it_went_in((datatype, count, data) in tensors()) {
        let json = format!(
            r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"{datatype}",
            "datatype":"{datatype}","shape":[{count}],"parameters":{{"binary_data_size":{}}}}}]}}"#,
            data.len()
        );
        let path = "/v2/models/echo/infer";
        let reply = block_on(post_binary(ECHO.clone(), path, &json, &data));
        prop_assert!(reply.body.ends_with(&data));
        let length = reply.headers["inference-header-content-length"].to_str().unwrap();
        prop_assert_eq!(reply.body.len(), length.parse::<usize>().unwrap() + data.len());
    }

    #[test]
    fn json_comes_back_as_it_went_in((datatype, count, data) in tensors()) {
        prop_assume!(!matches!(datatype, DataType::Fp16 | DataType::Bf16));
        let path = "/v2/models/echo/infer";
        // Binary to JSON first, and what was said in JSON back to binary.
        let json = format!(
            r#"{{"inputs":[{{"name":"{datatype}","datatype":"{datatype}","shape":[{count}],
            "parameters":{{"binary_data_size":{}}}}}]}}"#,
            data.len()
        );
        let reply = block_on(post_binary(ECHO.clone(), path, &json, &data));
        prop_assert_eq!(reply.status, 200);
        let outputs = &reply.json()["outputs"];
        let json = format!(r#"{{"parameters":{{"binary_data_output":true}},"inputs":{outputs}}}"#);
        let reply = block_on(post(ECHO.clone(), path, json));
        prop_assert_eq!(reply.status, 200, "{}", reply.text());
        prop_assert!(reply.body.ends_with(&data));
    }
}
