//! Models that generate for these tests, the tensors of requests, and what is in responses.

use consort_config::Model;
use consort_stage::{Request, Response, Signature, Tensor};

use crate::generating::Generating;
use crate::loaded::{Folder, graphs, model, root};

/// The backend's name.
pub(crate) const NAME: &str = "onnxruntime_llm";

/// Its tensors.
pub(crate) fn signature() -> Signature {
    Folder::of("add_sub").signature(NAME).unwrap().unwrap()
}

/// A model with these parameters.
pub(crate) fn configured(settings: &[(&str, &str)]) -> Model {
    model(NAME, signature(), settings)
}

/// The language model that ships.
pub(crate) fn ferris(settings: &[(&str, &str)]) -> Generating {
    Generating::start(&root().join("model_repository/ferris"), &configured(settings))
}

/// A small Llama with random weights, in the convention that its folder is named for.
pub(crate) fn tiny(convention: &str, settings: &[(&str, &str)]) -> Generating {
    let files = std::fs::read_dir(graphs().join(convention)).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    Generating::start(Folder::with(&files).path(), &configured(settings))
}

/// The request with more tensors.
pub(crate) fn with(mut request: Request, tensors: impl IntoIterator<Item = Tensor>) -> Request {
    request.inputs.extend(tensors);
    request
}

/// A whole number.
pub(crate) fn int(name: &str, value: i32) -> Tensor {
    Tensor::from_vec(name, &[1, 1], vec![value])
}

/// A number.
pub(crate) fn float(name: &str, value: f32) -> Tensor {
    Tensor::from_vec(name, &[1, 1], vec![value])
}

/// A switch.
pub(crate) fn flag(name: &str, value: bool) -> Tensor {
    Tensor::from_bools(name, &[1, 1], &[value])
}

/// A seed.
pub(crate) fn seed(value: u64) -> Tensor {
    Tensor::from_vec("random_seed", &[1, 1], vec![value])
}

/// One word as a list.
pub(crate) fn word(name: &str, tokens: &[i32]) -> Tensor {
    let mut ends = vec![-1; tokens.len()];
    ends[0] = tokens.len() as i32;
    Tensor::from_vec(name, &[1, 2, tokens.len() as i64], [tokens, &ends].concat())
}

/// The same, token by token.
pub(crate) fn streaming(request: Request) -> Request {
    with(request, [flag("streaming", true)])
}

/// The numbers in an output.
pub(crate) fn ids(response: &Response, name: &str) -> Vec<i32> {
    response.output(name).unwrap().to_slice::<i32>().unwrap().into_owned()
}

/// All that was generated.
pub(crate) fn tokens(responses: &[Response]) -> Vec<i32> {
    responses.iter().flat_map(|response| ids(response, "output_ids")).collect()
}

/// Why it ended, in the last response.
pub(crate) fn finish(responses: &[Response]) -> String {
    let last = responses.last().unwrap();
    assert!(last.is_last && last.output("is_final").unwrap().to_bools().unwrap()[0]);
    let reason = last.output("finish_reason").unwrap();
    String::from_utf8(reason.to_strings().unwrap()[0].to_vec()).unwrap()
}

/// A string.
pub(crate) fn text(name: &str, value: &str) -> Tensor {
    Tensor::from_strings(name, &[1, 1], &[value])
}
