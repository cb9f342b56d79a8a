//! Adds to a decoder's graph what a card needs: the choice of the likeliest token, so that a number
//! a row comes back and not a vocabulary, and a mask that is made where it is read.
//!
//! Nodes, inputs and outputs are put into the file's bytes before ONNX Runtime reads them; weights
//! are carried over unread.

use half::f16;
use ort::value::TensorElementType;

use super::config::Names;
use super::graph::CACHE_BRANCH;
use super::onnx::{
    BFLOAT16, FLOAT, FLOAT16, INT32, INT64, LAST, integers, model, node, number, of_scores, scalar,
    value, value_of, with,
};
use super::protobuf::{Field, Message, Value, fields, first};

/// INT64[rows, 1]: how many tokens each row has after the step, where the mask was.
pub(crate) const LENGTHS: &str = "consort.lengths";
/// INT64[1, columns]: 0, 1, 2 and so on, as many as the mask is wide.
pub(crate) const COLUMNS: &str = "consort.columns";
/// INT64[rows, sequence, 1]: the likeliest token, or -1 where no logit is above minus infinity; of
/// the last position alone where the graph keeps its mask.
pub(crate) const CHOSEN: &str = "consort.chosen";

/// The logits that [`top`] reads, [rows, vocabulary].
pub(crate) const SCORES: &str = "consort.scores";
/// FP32[rows, 1]: what they are multiplied with before they are turned into probabilities.
pub(crate) const COOLNESS: &str = "consort.coolness";
/// INT64[1]: how many tokens [`top`] finds of each row.
pub(crate) const COUNT: &str = "consort.most";
/// FP32[rows, count]: the largest of them, from the largest down.
pub(crate) const LARGEST_SCORES: &str = "consort.top";
/// FP32[rows, count]: how probable their tokens are among all.
pub(crate) const PROBABILITIES: &str = "consort.probabilities";
/// INT64[rows, count]: whose they are.
pub(crate) const TOP_TOKENS: &str = "consort.tokens";
/// How many [`top`] finds mostly: more than most requests ask for, and few enough to be found at once.
pub(crate) const MOST: usize = 64;
/// How many it finds where a request asks for more, at most.
pub(crate) const MOST_OF_ALL: usize = 1024;

/// The logits of the last position, [rows, 1, vocabulary], of a graph that keeps its mask.
pub(crate) const LAST_LOGITS: &str = "consort.last_logits";

/// The operator that counts tokens by the mask.
const COUNTS_TOKENS: &[u8] = b"GroupQueryAttention";

const LIKELIEST: &str = "consort.likeliest";
const LARGEST: &str = "consort.largest";
const LOWEST: &str = "consort.lowest";

/// Whether rows of a model may have padding before them: not where an operator counts its tokens by
/// the mask and takes the first ones, as that of the shared caches does even over one that grows.
pub(crate) fn pads(model: &[u8]) -> bool {
    let graph = first(model, number::model::GRAPH).and_then(fields);
    graph.is_some_and(|graph| is_padded(&graph))
}

fn is_padded(graph: &[Field<'_>]) -> bool {
    let nodes = graph.iter().filter_map(|field| field.bytes(number::graph::NODE));
    let mut operators = nodes.filter_map(|node| first(node, number::node::OPERATOR));
    !operators.any(|operator| operator == COUNTS_TOKENS)
}

/// What becomes of a graph's mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// The graph makes it from the lengths of its rows, which have no padding.
    Made,
    /// It stays an input, for rows with padding; all but the last position's logits are left where
    /// they are. Only where rows may be padded, and every step goes the same way through the graph.
    Kept,
}

/// A model file's bytes with the choice added; `None` where its tensors are not as expected.
///
/// The graph must have opset 11 or later, as every decoder's has.
pub(crate) fn add(model: &[u8], names: &Names, mask: Mask) -> Option<Vec<u8>> {
    let mut edited = Message::default();
    let mut is_edited = false;
    for field in fields(model)? {
        match field.bytes(number::model::GRAPH) {
            Some(graph) => {
                edited = edited.bytes(number::model::GRAPH, edit(graph, names, mask)?);
                is_edited = true;
            }
            None => edited.extend(field.whole),
        }
    }
    is_edited.then(|| edited.into_vec())
}

fn edit(graph: &[u8], names: &Names, mask: Mask) -> Option<Message> {
    let fields = fields(graph)?;
    let find = |kind, name: &str| {
        let mut values = fields.iter().filter_map(|field| field.bytes(kind));
        values.find(|value| is_named(value, name))
    };
    let logits = &names.outputs.logits;
    let scores = element(find(number::graph::OUTPUT, logits)?)?;
    let mut edited = Message::default();
    if mask == Mask::Kept {
        let has_branch = find(number::graph::INPUT, CACHE_BRANCH).is_some();
        if has_branch || !is_padded(&fields) {
            return None;
        }
        edited.extend(graph);
        edited.extend(last_nodes(logits, scores).as_ref());
        edited.extend(choice_nodes(LAST_LOGITS, scores)?.as_ref());
        return Some(edited);
    }
    let made = find(number::graph::INPUT, &names.attention_mask)?;
    // In front, so that nodes stay in the order in which they can run.
    edited.extend(mask_nodes(&names.attention_mask, element(made)?)?.as_ref());
    let is_mask = |field: &Field<'_>| field.bytes(number::graph::INPUT) == Some(made);
    for field in fields.iter().filter(|field| !is_mask(field)) {
        edited.extend(field.whole);
    }
    edited.extend(choice_nodes(logits, scores)?.as_ref());
    Some(edited)
}

/// The logits of the last position.
fn last_nodes(logits: &str, element: u64) -> Message {
    let bounds = ["consort.last", "consort.end", "consort.axis"];
    let [from, to, axis] = bounds;
    Message::default()
        .bytes(number::graph::NODE, node("Slice", &[logits, from, to, axis], LAST_LOGITS))
        .bytes(number::graph::INITIALIZER, integers(from, &[-1]))
        .bytes(number::graph::INITIALIZER, integers(to, &[i64::MAX]))
        .bytes(number::graph::INITIALIZER, integers(axis, &[1]))
        .bytes(
            number::graph::OUTPUT,
            value_of(LAST_LOGITS, element, ["consort.rows", "consort.one", "consort.vocabulary"]),
        )
}

/// The mask of rows of some lengths: 1 in the columns before it.
fn mask_nodes(mask: &str, element: u64) -> Option<Message> {
    matches!(element, INT64 | INT32).then(|| {
        Message::default()
            .bytes(number::graph::NODE, node("Less", &[COLUMNS, LENGTHS], "consort.seen"))
            .bytes(number::graph::NODE, with(node("Cast", &["consort.seen"], mask), "to", element))
            .bytes(number::graph::INPUT, value(LENGTHS, ["consort.rows", "consort.one_length"]))
            .bytes(number::graph::INPUT, value(COLUMNS, ["consort.one_row", "consort.width"]))
    })
}

/// The likeliest token of each row, and what says that there is none.
fn choice_nodes(logits: &str, element: u64) -> Option<Message> {
    let wide = SCORES;
    let (scores, lowest) = match element {
        FLOAT => (logits, scalar(LOWEST, FLOAT, &f32::NEG_INFINITY.to_le_bytes())),
        FLOAT16 => (logits, scalar(LOWEST, FLOAT16, &f16::NEG_INFINITY.to_le_bytes())),
        // The operators know no bfloat16, all of whose numbers are floats.
        BFLOAT16 => (wide, scalar(LOWEST, FLOAT, &f32::NEG_INFINITY.to_le_bytes())),
        _ => return None,
    };
    let widened = with(node("Cast", &[logits], wide), "to", FLOAT);
    let likeliest = with(node("ArgMax", &[scores], LIKELIEST), "axis", LAST);
    let largest = with(node("GatherElements", &[scores, LIKELIEST], LARGEST), "axis", LAST);
    let nodes = [
        (scores == wide).then_some(widened),
        Some(likeliest),
        Some(largest),
        Some(node("Greater", &[LARGEST, LOWEST], "consort.is_any")),
        Some(node("Where", &["consort.is_any", LIKELIEST, "consort.none"], CHOSEN)),
    ];
    let mut added = Message::default();
    for node in nodes.into_iter().flatten() {
        added = added.bytes(number::graph::NODE, node);
    }
    let none = scalar("consort.none", INT64, &(-1_i64).to_le_bytes());
    let shape = ["consort.rows", "consort.sequence", "consort.one"];
    Some(
        added
            .bytes(number::graph::INITIALIZER, lowest)
            .bytes(number::graph::INITIALIZER, none)
            .bytes(number::graph::OUTPUT, value(CHOSEN, shape)),
    )
}

/// A graph that finds the likeliest tokens; `None` for logits of another type than the
/// operator knows.
pub(crate) fn top(element: TensorElementType) -> Option<Vec<u8>> {
    let element = of_scores(element)?;
    let found =
        node("TopK", &[SCORES, COUNT], "consort.found").bytes(number::node::OUTPUT, TOP_TOKENS);
    let to_float = |node| with(node, "to", FLOAT);
    let nodes = [
        with(found, "axis", LAST),
        to_float(node("Cast", &["consort.found"], LARGEST_SCORES)),
        to_float(node("Cast", &[SCORES], "consort.wide")),
        node("Mul", &["consort.wide", COOLNESS], "consort.cooled"),
        with(node("Softmax", &["consort.cooled"], "consort.likely"), "axis", LAST),
        with(node("GatherElements", &["consort.likely", TOP_TOKENS], PROBABILITIES), "axis", LAST),
    ];
    let mut graph = Message::default().bytes(number::graph::NAME, "top");
    for node in nodes {
        graph = graph.bytes(number::graph::NODE, node);
    }
    let shape = |last| ["consort.rows", last];
    let graph = graph
        .bytes(number::graph::INPUT, value(COUNT, ["consort.one"]))
        .bytes(number::graph::INPUT, value_of(SCORES, element, shape("consort.vocabulary")))
        .bytes(number::graph::INPUT, value_of(COOLNESS, FLOAT, shape("consort.one")))
        .bytes(number::graph::OUTPUT, value_of(LARGEST_SCORES, FLOAT, shape("consort.kept")))
        .bytes(number::graph::OUTPUT, value(TOP_TOKENS, shape("consort.kept")))
        .bytes(number::graph::OUTPUT, value_of(PROBABILITIES, FLOAT, shape("consort.kept")));
    Some(model(graph))
}

fn is_named(value: &[u8], name: &str) -> bool {
    first(value, number::value::NAME) == Some(name.as_bytes())
}

/// The type of the elements of an input or output that is a tensor.
fn element(value: &[u8]) -> Option<u64> {
    let tensor = first(first(value, number::value::TYPE)?, number::value_type::TENSOR)?;
    fields(tensor)?.into_iter().find_map(|field| match field.value {
        Value::Number(element) if field.number == number::tensor_type::ELEMENT => Some(element),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::default()
    }

    fn graph(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graphs");
        std::fs::read(folder.join(name).join("model.onnx")).unwrap()
    }

    #[test]
    fn the_mask_is_made_in_the_graph_and_everything_else_is_as_it_was() {
        let model = graph("llama_gqa");
        let edited = add(&model, &names(), Mask::Made).unwrap();
        let fields_of = |model: &[u8]| {
            let graph = first(model, number::model::GRAPH).unwrap();
            fields(graph).unwrap().iter().map(|field| field.whole.to_vec()).collect::<Vec<_>>()
        };
        let (before, after) = (fields_of(&model), fields_of(&edited));
        let lost: Vec<_> = before.iter().filter(|field| !after.contains(field)).collect();
        assert_eq!(lost.len(), 1);
        let mask = fields(lost[0]).unwrap()[0].bytes(number::graph::INPUT).unwrap();
        assert!(is_named(mask, "attention_mask"));
        assert_eq!(after.len() - before.len(), 2 + 2 + 4 + 2 + 1 - 1);
    }

    #[test]
    fn a_mask_that_is_kept_is_an_input_still_and_nothing_is_left_out() {
        let model = graph("llama_optimum");
        let edited = add(&model, &names(), Mask::Kept).unwrap();
        let graph_of = |model: &[u8]| first(model, number::model::GRAPH).unwrap().to_vec();
        let (before, after) = (graph_of(&model), graph_of(&edited));
        assert!(after.starts_with(&before));
        let outputs = fields(&after[before.len()..]).unwrap();
        let outputs = outputs.iter().filter_map(|field| field.bytes(number::graph::OUTPUT));
        let names: Vec<_> = outputs.map(|value| first(value, number::value::NAME)).collect();
        assert_eq!(names, [LAST_LOGITS, CHOSEN].map(|name| Some(name.as_bytes())));
    }

    #[test]
    fn rows_are_padded_only_where_the_mask_says_which_tokens_count() {
        assert!(pads(&graph("llama_optimum")) && pads(&graph("bloom")));
        assert!(!pads(&graph("llama_gqa")));
        assert_eq!(add(&graph("llama_gqa"), &names(), Mask::Kept), None);
    }

    #[test]
    fn a_graph_without_the_names_and_a_file_without_a_graph_are_left_alone() {
        let mut others = names();
        others.attention_mask = "mask".into();
        assert_eq!(add(&graph("llama_gqa"), &others, Mask::Made), None);
        let mut others = names();
        others.outputs.logits = "scores".into();
        assert_eq!(add(&graph("llama_gqa"), &others, Mask::Made), None);
        assert_eq!(add(b"", &names(), Mask::Kept), None);
        assert_eq!(add(b"not a model", &names(), Mask::Made), None);
    }
}
