//! What a plain loop over a decoder's graph gives: one text, its whole cache in and out of each run.
//!
//! It runs where the tests run. Texts written down elsewhere would not do for weights of few bits,
//! whose kernels round differently from processor to processor.

use consort_repository::Backend;
use consort_stage::{Batch, BatchBackend, Signature, Tensor};

use crate::loaded::{Folder, graphs, model};

/// The backend that runs a graph as it is.
const NAME: &str = "onnxruntime";

/// The likeliest tokens behind a prompt, one by one, as the graph in a folder of these tests has
/// them. The graph has the tensors of Optimum's exports and FP32 logits.
pub(crate) fn continuation(graph: &str, prompt: &[i32], tokens: usize) -> Vec<i32> {
    let folder = Folder::with(&[graphs().join(graph).join("model.onnx")]);
    let signature = folder.signature(NAME).expect("run `cargo xtask setup`").unwrap();
    let Backend::Batch(mut backend) = folder.load(&model(NAME, signature.clone(), &[])).unwrap()
    else {
        panic!("it is a batch backend");
    };
    let (mut past, mut text, mut fed) = (empty_past(&signature), prompt.to_vec(), prompt.len());
    for _ in 0..tokens {
        let mut inputs = step(&signature, &text, fed);
        inputs.append(&mut past);
        let outputs = run(&mut *backend, inputs);
        text.push(likeliest(&outputs));
        (past, fed) = (carried(outputs), 1);
    }
    text.split_off(prompt.len())
}

/// A cache without tokens.
fn empty_past(signature: &Signature) -> Vec<Tensor> {
    let past = signature.inputs.iter().filter(|spec| spec.name.starts_with("past_key_values."));
    let empty = |spec: &consort_stage::TensorSpec| {
        let [heads, _, head_size] = *spec.dims else {
            panic!("`{}` has the dimensions {:?}", spec.name, spec.dims);
        };
        Tensor::from_vec(&*spec.name, &[1, heads, 0, head_size], Vec::<f32>::new())
    };
    past.map(empty).collect()
}

/// The inputs beside the cache that feed the last `fed` tokens of a text.
fn step(signature: &Signature, text: &[i32], fed: usize) -> Vec<Tensor> {
    let (total, begin) = (text.len() as i64, text.len() - fed);
    let numbers =
        |name: &str, values: Vec<i64>| Tensor::from_vec(name, &[1, values.len() as i64], values);
    let fed = text[begin..].iter().map(|token| i64::from(*token)).collect();
    let all = [
        numbers("input_ids", fed),
        numbers("attention_mask", vec![1; text.len()]),
        numbers("position_ids", (begin as i64..total).collect()),
    ];
    all.into_iter().filter(|tensor| signature.input(&tensor.name).is_some()).collect()
}

fn run(backend: &mut dyn BatchBackend, inputs: Vec<Tensor>) -> Vec<Tensor> {
    backend.run(Batch { inputs, ..Batch::default() }).unwrap()
}

/// The token with the highest logit in the last place.
fn likeliest(outputs: &[Tensor]) -> i32 {
    let logits = outputs.iter().find(|output| &*output.name == "logits").unwrap();
    let vocabulary = *logits.shape.last().unwrap() as usize;
    let all = logits.to_slice::<f32>().unwrap();
    let last = &all[all.len() - vocabulary..];
    let highest = (0..vocabulary).max_by(|a, b| last[*a].total_cmp(&last[*b]).then(b.cmp(a)));
    highest.unwrap() as i32
}

/// The cache that a run gave, for the next.
fn carried(outputs: Vec<Tensor>) -> Vec<Tensor> {
    let present = outputs.into_iter().filter_map(|output| {
        let name = output.name.strip_prefix("present.")?;
        Some(Tensor { name: format!("past_key_values.{name}").into(), ..output })
    });
    present.collect()
}
