//! Writes nodes, tensors and models in ONNX's format.

use ort::value::TensorElementType;

use super::protobuf::Message;

/// The numbers of the fields in `onnx.proto`.
pub(super) mod number {
    pub(crate) mod model {
        pub(crate) const VERSION: u64 = 1;
        pub(crate) const GRAPH: u64 = 7;
        pub(crate) const OPERATORS: u64 = 8;
    }
    pub(crate) mod operators {
        pub(crate) const VERSION: u64 = 2;
    }
    pub(crate) mod graph {
        pub(crate) const NODE: u64 = 1;
        pub(crate) const NAME: u64 = 2;
        pub(crate) const INITIALIZER: u64 = 5;
        pub(crate) const INPUT: u64 = 11;
        pub(crate) const OUTPUT: u64 = 12;
    }
    pub(crate) mod node {
        pub(crate) const INPUT: u64 = 1;
        pub(crate) const OUTPUT: u64 = 2;
        pub(crate) const NAME: u64 = 3;
        pub(crate) const OPERATOR: u64 = 4;
        pub(crate) const ATTRIBUTE: u64 = 5;
    }
    pub(crate) mod attribute {
        pub(crate) const NAME: u64 = 1;
        pub(crate) const INTEGER: u64 = 3;
        pub(crate) const TYPE: u64 = 20;
    }
    pub(crate) mod tensor {
        pub(crate) const DIMENSION: u64 = 1;
        pub(crate) const TYPE: u64 = 2;
        pub(crate) const NAME: u64 = 8;
        pub(crate) const RAW: u64 = 9;
    }
    pub(crate) mod value {
        pub(crate) const NAME: u64 = 1;
        pub(crate) const TYPE: u64 = 2;
    }
    pub(crate) mod value_type {
        pub(crate) const TENSOR: u64 = 1;
    }
    pub(crate) mod tensor_type {
        pub(crate) const ELEMENT: u64 = 1;
        pub(crate) const SHAPE: u64 = 2;
    }
    pub(crate) mod shape {
        pub(crate) const DIMENSION: u64 = 1;
        pub(crate) const SYMBOL: u64 = 2;
    }
}

/// -1, the last axis, as a whole number is written.
pub(super) const LAST: u64 = u64::MAX;

/// An attribute that holds a whole number, in `AttributeProto.AttributeType`.
const INTEGER: u64 = 2;
/// The versions of the format and of the operators, old enough for every ONNX Runtime in use.
const IR: u64 = 8;
const OPSET: u64 = 17;
/// The types of elements, in `TensorProto.DataType`.
pub(super) const FLOAT: u64 = 1;
pub(super) const INT32: u64 = 6;
pub(super) const INT64: u64 = 7;
pub(super) const FLOAT16: u64 = 10;
pub(super) const BFLOAT16: u64 = 16;

/// A model file's bytes with this graph.
pub(super) fn model(graph: Message) -> Vec<u8> {
    let operators = Message::default().number(number::operators::VERSION, OPSET);
    Message::default()
        .number(number::model::VERSION, IR)
        .bytes(number::model::GRAPH, graph)
        .bytes(number::model::OPERATORS, operators)
        .into_vec()
}

/// The nodes of a graph, one after the other.
#[derive(Default)]
pub(super) struct Nodes(Vec<Message>);

impl Nodes {
    /// The same with one more.
    pub(super) fn add(mut self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.0.push(node(operator, inputs, output));
        self
    }

    /// The same with an attribute of the last one.
    pub(super) fn with(mut self, attribute: &str, integer: u64) -> Self {
        let last = self.0.pop();
        self.0.extend(last.map(|node| with(node, attribute, integer)));
        self
    }

    /// The same with one that works along the last axis.
    pub(super) fn along(self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.add(operator, inputs, output).with("axis", LAST)
    }

    /// The same with one that takes an axis away.
    pub(super) fn reduce(self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.add(operator, inputs, output).with("keepdims", 0)
    }

    /// The same with one that gives elements of another type.
    pub(super) fn cast(self, input: &str, output: &str, element: u64) -> Self {
        self.add("Cast", &[input], output).with("to", element)
    }

    /// A graph of them, without anything else yet.
    pub(super) fn into_graph(self, name: &str) -> Message {
        let graph = Message::default().bytes(number::graph::NAME, name);
        self.0.into_iter().fold(graph, |graph, node| graph.bytes(number::graph::NODE, node))
    }
}

/// The type of scores that operators take which search or sort; they know no bfloat16.
pub(super) fn of_scores(element: TensorElementType) -> Option<u64> {
    match element {
        TensorElementType::Float32 => Some(FLOAT),
        TensorElementType::Float16 => Some(FLOAT16),
        _ => None,
    }
}

/// A node named as its output.
pub(super) fn node(operator: &str, inputs: &[&str], output: &str) -> Message {
    let mut node = Message::default();
    for input in inputs {
        node = node.bytes(number::node::INPUT, input);
    }
    node.bytes(number::node::OUTPUT, output)
        .bytes(number::node::NAME, output)
        .bytes(number::node::OPERATOR, operator)
}

/// A node with an attribute.
pub(super) fn with(node: Message, attribute: &str, integer: u64) -> Message {
    let attribute = Message::default()
        .bytes(number::attribute::NAME, attribute)
        .number(number::attribute::INTEGER, integer)
        .number(number::attribute::TYPE, INTEGER);
    node.bytes(number::node::ATTRIBUTE, attribute)
}

/// A tensor of one number, without dimensions.
pub(super) fn scalar(name: &str, element: u64, number: &[u8]) -> Message {
    Message::default()
        .number(number::tensor::TYPE, element)
        .bytes(number::tensor::NAME, name)
        .bytes(number::tensor::RAW, number)
}

/// An input or output of INT64 whose dimensions have names.
pub(super) fn value<const RANK: usize>(name: &str, shape: [&str; RANK]) -> Message {
    value_of(name, INT64, shape)
}

/// The same of another type.
pub(super) fn value_of<const RANK: usize>(
    name: &str,
    element: u64,
    shape: [&str; RANK],
) -> Message {
    let mut dimensions = Message::default();
    for symbol in shape {
        let dimension = Message::default().bytes(number::shape::SYMBOL, symbol);
        dimensions = dimensions.bytes(number::shape::DIMENSION, dimension);
    }
    let tensor = Message::default()
        .number(number::tensor_type::ELEMENT, element)
        .bytes(number::tensor_type::SHAPE, dimensions);
    let value_type = Message::default().bytes(number::value_type::TENSOR, tensor);
    Message::default().bytes(number::value::NAME, name).bytes(number::value::TYPE, value_type)
}

/// A tensor of whole numbers, INT64 with one dimension.
pub(super) fn integers(name: &str, numbers: &[i64]) -> Message {
    shaped_integers(name, &[numbers.len()], numbers)
}

/// The same of any shape.
pub(super) fn shaped_integers(name: &str, shape: &[usize], numbers: &[i64]) -> Message {
    let mut tensor = Message::default();
    for dimension in shape {
        tensor = tensor.number(number::tensor::DIMENSION, *dimension as u64);
    }
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    tensor
        .number(number::tensor::TYPE, INT64)
        .bytes(number::tensor::NAME, name)
        .bytes(number::tensor::RAW, bytes)
}
