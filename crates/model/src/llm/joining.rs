//! A graph that puts rows of two caches together into one where they lie, whatever their layout:
//! each token's keys and values are taken by their numbers, and what is none is zero.

use ort::value::TensorElementType;

use super::graph::{CacheTensor, Graph, Layout};
use super::onnx::{
    BFLOAT16, FLOAT, FLOAT16, INT64, Nodes, integers, model, number, shaped_integers, value_of,
};
use super::protobuf::Message;

/// INT64[rows, columns]: how far the numbers of neighbouring lanes of a token are apart.
pub(crate) const STRIDES: &str = "stride";

/// What the tensors are called that the graph reads and writes in the place of a cache tensor.
pub(crate) fn names(index: usize) -> [String; 3] {
    ["first", "second", "joined"].map(|name| format!("{name}.{index}"))
}

/// INT64[rows, columns]: the number of each token's first lane, for tensors with so many lanes.
pub(crate) fn starts(lanes: usize) -> String {
    format!("starts.{lanes}")
}

/// INT64[rank]: the shape of the joined tensors in a layout.
pub(crate) fn shape(layout: Layout) -> &'static str {
    match layout {
        Layout::Heads => "shape.heads",
        Layout::FlatHeads => "shape.flat_heads",
        Layout::FlatTransposed => "shape.flat_transposed",
    }
}

/// How a cache tensor lies: in so many lanes a row, each of so many neighbouring numbers a token.
///
/// Its numbers are [rows, lanes, tokens, unit] in every layout.
pub(crate) fn lanes(tensor: &CacheTensor) -> (usize, usize) {
    let (heads, size) = (tensor.heads as usize, tensor.head_size as usize);
    match tensor.layout {
        Layout::Heads | Layout::FlatHeads => (heads, size),
        Layout::FlatTransposed => (heads * size, 1),
    }
}

/// The numbers of lanes that tensors of the graph have.
pub(crate) fn all_lanes(graph: &Graph) -> Vec<usize> {
    let mut all: Vec<_> = graph.cache.iter().map(|tensor| lanes(tensor).0).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The layouts that tensors of the graph have.
pub(crate) fn all_layouts(graph: &Graph) -> Vec<Layout> {
    let mut all: Vec<Layout> = Vec::new();
    for tensor in &graph.cache {
        if !all.contains(&tensor.layout) {
            all.push(tensor.layout);
        }
    }
    all
}

/// The graph for the caches of a decoder; `None` where one has numbers of an unknown type.
pub(crate) fn graph(decoder: &Graph) -> Option<Vec<u8>> {
    let mut nodes = Nodes::default().add("Unsqueeze", &[STRIDES, "axis.1"], "stride.3");
    let mut others = vec![integers("axis.1", &[1])];
    let columns = ["rows", "columns"];
    let mut ends = vec![(number::graph::INPUT, value_of(STRIDES, INT64, columns))];
    for lanes in all_lanes(decoder) {
        nodes = numbers_of_tokens(nodes, lanes);
        let counted: Vec<i64> = (0..lanes as i64).collect();
        others.push(shaped_integers(&format!("lanes.{lanes}"), &[1, lanes, 1], &counted));
        ends.push((number::graph::INPUT, value_of(&starts(lanes), INT64, columns)));
    }
    for layout in all_layouts(decoder) {
        ends.push((number::graph::INPUT, value_of(shape(layout), INT64, ["rank"])));
    }
    for (index, tensor) in decoder.cache.iter().enumerate() {
        let element = number_of(tensor.element)?;
        let (lanes, unit) = lanes(tensor);
        nodes = joined(nodes, index, (lanes, unit), tensor);
        others.push(integers(&format!("flat.{index}"), &[-1, unit as i64]));
        others.push(zeros(&format!("zero.{index}"), element, unit, tensor.element)?);
        let [first, second, joined] = names(index);
        ends.push((number::graph::INPUT, value_of_rank(&first, element, tensor.layout)));
        ends.push((number::graph::INPUT, value_of_rank(&second, element, tensor.layout)));
        ends.push((number::graph::OUTPUT, value_of_rank(&joined, element, tensor.layout)));
    }
    let mut graph = nodes.into_graph("join");
    for other in others {
        graph = graph.bytes(number::graph::INITIALIZER, other);
    }
    for (kind, value) in ends {
        graph = graph.bytes(kind, value);
    }
    Some(model(graph))
}

/// The number of each lane of each token, [rows, lanes, columns].
fn numbers_of_tokens(nodes: Nodes, lanes: usize) -> Nodes {
    let named = |name: &str| format!("{name}.{lanes}");
    let (first, counted, apart) = (named("starts.3"), named("lanes"), named("apart"));
    nodes
        .add("Unsqueeze", &[&starts(lanes), "axis.1"], &first)
        .add("Mul", &["stride.3", &counted], &apart)
        .add("Add", &[&first, &apart], &named("numbers"))
}

/// One tensor of the joined cache.
fn joined(nodes: Nodes, index: usize, (lanes, _): (usize, usize), tensor: &CacheTensor) -> Nodes {
    let [first, second, joined] = names(index);
    let named = |name: &str| format!("{name}.{index}");
    let (flat, all, taken) = (named("flat"), named("all"), named("taken"));
    let (flat_first, flat_second) = (named("flat.first"), named("flat.second"));
    nodes
        .add("Reshape", &[&first, &flat], &flat_first)
        .add("Reshape", &[&second, &flat], &flat_second)
        .add("Concat", &[&flat_first, &flat_second, &named("zero")], &all)
        .with("axis", 0)
        .add("Gather", &[&all, &format!("numbers.{lanes}")], &taken)
        .with("axis", 0)
        .add("Reshape", &[&taken, shape(tensor.layout)], &joined)
}

/// What is taken where there is no token.
fn zeros(name: &str, number: u64, unit: usize, element: TensorElementType) -> Option<Message> {
    let bytes = vec![0_u8; element.byte_size(unit)?];
    let tensor = Message::default()
        .number(number::tensor::DIMENSION, 1)
        .number(number::tensor::DIMENSION, unit as u64)
        .number(number::tensor::TYPE, number)
        .bytes(number::tensor::NAME, name);
    Some(tensor.bytes(number::tensor::RAW, bytes))
}

fn value_of_rank(name: &str, element: u64, layout: Layout) -> Message {
    let named = |place: usize| format!("{name}.{place}");
    let [a, b, c, d] = [0, 1, 2, 3].map(named);
    match layout {
        Layout::Heads => value_of(name, element, [&*a, &*b, &*c, &*d]),
        Layout::FlatHeads | Layout::FlatTransposed => value_of(name, element, [&*a, &*b, &*c]),
    }
}

fn number_of(element: TensorElementType) -> Option<u64> {
    match element {
        TensorElementType::Float32 => Some(FLOAT),
        TensorElementType::Float16 => Some(FLOAT16),
        TensorElementType::Bfloat16 => Some(BFLOAT16),
        _ => None,
    }
}
