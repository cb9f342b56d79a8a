//! A graph that draws tokens by lot from all of a vocabulary, where its logits lie: what comes back
//! is a few numbers a row, however many tokens are likely.
//!
//! Each lot falls on a block of tokens by the blocks' sums, then on a token of the block. Beside the
//! token comes how probable it is and how much the tokens before it have, from the likeliest down
//! and equals in the order of their numbers: whoever wants only those that together reach a
//! probability takes the first token that has less before it, which is drawn from those alone as
//! if the others did not exist.

use ort::value::TensorElementType;

use super::choosing::{COOLNESS, SCORES};
use super::onnx::{
    FLOAT, INT64, Nodes, integers, model, number, of_scores, scalar, shaped_integers, value,
    value_of,
};

/// FP32[rows, lots]: numbers from 0 to below 1.
pub(crate) const LOTS: &str = "consort.lots";
/// INT64[rows, lots]: the tokens that they fell on.
pub(crate) const DRAWN: &str = "consort.drawn";
/// FP32[rows, lots, 1]: how probable those are among all.
pub(crate) const DRAWN_PROBABILITIES: &str = "consort.drawn_probabilities";
/// FP32[rows, lots]: how probable those together are that come before them.
pub(crate) const BEFORE: &str = "consort.before";

/// How many tokens a block has: about as many as there are blocks.
const BLOCK: usize = 256;

/// How many blocks a vocabulary has.
fn blocks(vocabulary: usize) -> usize {
    vocabulary.div_ceil(BLOCK)
}

/// How many numbers a run of the graph works with for each row and lot.
pub(crate) fn width(vocabulary: usize) -> usize {
    blocks(vocabulary) * BLOCK
}

/// The graph; `None` for logits of a type that no other search here knows either.
pub(crate) fn graph(element: TensorElementType, vocabulary: usize) -> Option<Vec<u8>> {
    let element = of_scores(element)?;
    let nodes = Nodes::default();
    let nodes = token(sums(nodes, vocabulary), vocabulary);
    let nodes = before(nodes);
    let mut graph = nodes.into_graph("draw");
    for constant in constants(vocabulary) {
        graph = graph.bytes(number::graph::INITIALIZER, constant);
    }
    let [rows, lots, one] = ["consort.rows", "consort.lots_of_each", "consort.one"];
    let scores = value_of(SCORES, element, [rows, "consort.vocabulary"]);
    let probabilities = value_of(DRAWN_PROBABILITIES, FLOAT, [rows, lots, one]);
    let graph = graph
        .bytes(number::graph::INPUT, scores)
        .bytes(number::graph::INPUT, value_of(COOLNESS, FLOAT, [rows, one]))
        .bytes(number::graph::INPUT, value_of(LOTS, FLOAT, [rows, lots]))
        .bytes(number::graph::OUTPUT, value(DRAWN, [rows, lots]))
        .bytes(number::graph::OUTPUT, probabilities)
        .bytes(number::graph::OUTPUT, value_of(BEFORE, FLOAT, [rows, lots]));
    Some(model(graph))
}

/// The probabilities by block, [rows, blocks, tokens], and the sums of the blocks.
fn sums(nodes: Nodes, vocabulary: usize) -> Nodes {
    let nodes = nodes.cast(SCORES, "wide", FLOAT).add("Mul", &["wide", COOLNESS], "cooled");
    let nodes = if width(vocabulary) == vocabulary {
        nodes.along("Softmax", &["cooled"], "padded")
    } else {
        let nodes = nodes.along("Softmax", &["cooled"], "likely");
        nodes.add("Pad", &["likely", "padding"], "padded")
    };
    nodes
        .add("Reshape", &["padded", "by_block"], "blocks")
        .reduce("ReduceSum", &["blocks", "third"], "masses")
        .add("CumSum", &["masses", "second_axis"], "ends")
        .add("CumSum", &["masses", "second_axis"], "starts")
        .with("exclusive", 1)
}

/// The token that each lot falls on, and its probability.
fn token(nodes: Nodes, vocabulary: usize) -> Nodes {
    let last = blocks(vocabulary) - 1;
    debug_assert!(last < (1 << 24), "a float counts so many");
    nodes
        .add("Gather", &["ends", "last_block"], "total.flat")
        .with("axis", 1)
        .add("Mul", &[LOTS, "total.flat"], "lots")
        .add("Unsqueeze", &["lots", "third"], "lots.3")
        .add("Unsqueeze", &["ends", "second"], "ends.3")
        .add("LessOrEqual", &["ends.3", "lots.3"], "is_passed")
        .cast("is_passed", "passed", FLOAT)
        .reduce("ReduceSum", &["passed", "third"], "counted")
        // A lot that rounding leaves beyond the last one falls on that.
        .add("Min", &["counted", "last_block.float"], "counted.within")
        .cast("counted.within", "block", INT64)
        .add("GatherElements", &["starts", "block"], "start")
        .with("axis", 1)
        .add("Sub", &["lots", "start"], "rest")
        .add("Unsqueeze", &["rest", "third"], "rest.3")
        .add("Unsqueeze", &["block", "third"], "block.3")
        .add("GatherND", &["blocks", "block.3"], "drawn_blocks")
        .with("batch_dims", 1)
        .add("CumSum", &["drawn_blocks", "third_axis"], "inner_ends")
        .add("LessOrEqual", &["inner_ends", "rest.3"], "is_passed.inner")
        .cast("is_passed.inner", "passed.inner", FLOAT)
        .reduce("ReduceSum", &["passed.inner", "third"], "counted.inner")
        .add("Min", &["counted.inner", "last_place.float"], "counted.inner.within")
        .cast("counted.inner.within", "place", INT64)
        .add("Mul", &["block", "block_size"], "first")
        .add("Add", &["first", "place"], DRAWN)
        .add("Unsqueeze", &["place", "third"], "place.3")
        .add("GatherElements", &["drawn_blocks", "place.3"], DRAWN_PROBABILITIES)
        .with("axis", 2)
}

/// How much the tokens before the drawn ones have.
fn before(nodes: Nodes) -> Nodes {
    nodes
        .add("Unsqueeze", &["padded", "second"], "padded.3")
        .add("Unsqueeze", &[DRAWN, "third"], "drawn.3")
        .add("Greater", &["padded.3", DRAWN_PROBABILITIES], "is_likelier")
        .add("Equal", &["padded.3", DRAWN_PROBABILITIES], "is_equal")
        .add("Less", &["tokens", "drawn.3"], "is_earlier")
        .add("And", &["is_equal", "is_earlier"], "is_equal_and_earlier")
        .add("Or", &["is_likelier", "is_equal_and_earlier"], "is_before")
        .add("Where", &["is_before", "padded.3", "nothing"], "before")
        // By block first: a sum of so many is exact, and fast, only where it is made in two steps.
        .add("Reshape", &["before", "by_lot_and_block"], "before.blocks")
        .reduce("ReduceSum", &["before.blocks", "fourth"], "before.masses")
        .reduce("ReduceSum", &["before.masses", "third"], BEFORE)
}

fn constants(vocabulary: usize) -> Vec<super::protobuf::Message> {
    let (blocks, width) = (blocks(vocabulary), width(vocabulary));
    let float = |name, number: usize| scalar(name, FLOAT, &(number as f32).to_le_bytes());
    let counted: Vec<i64> = (0..width as i64).collect();
    vec![
        integers("padding", &[0, 0, 0, (width - vocabulary) as i64]),
        integers("by_block", &[-1, blocks as i64, BLOCK as i64]),
        integers("by_lot_and_block", &[0, 0, blocks as i64, BLOCK as i64]),
        integers("second", &[1]),
        integers("third", &[2]),
        integers("fourth", &[3]),
        integers("last_block", &[blocks as i64 - 1]),
        integers("block_size", &[BLOCK as i64]),
        scalar("second_axis", INT64, &1_i64.to_le_bytes()),
        scalar("third_axis", INT64, &2_i64.to_le_bytes()),
        float("last_block.float", blocks - 1),
        float("last_place.float", BLOCK - 1),
        float("nothing", 0),
        shaped_integers("tokens", &[1, 1, width], &counted),
    ]
}

#[cfg(test)]
mod tests {
    use ort::session::Session;
    use ort::session::builder::SessionBuilder;
    use ort::value::Tensor;

    use super::*;
    use crate::llm::decoder::{Drawn, Token};
    use crate::runtime::Runtime;

    fn session(vocabulary: usize) -> Session {
        let environment = &Runtime::get().expect("run `cargo xtask setup`").environment;
        let model = graph(TensorElementType::Float32, vocabulary).unwrap();
        SessionBuilder::new(environment).unwrap().commit_from_memory(&model).unwrap()
    }

    fn draw(
        session: &mut Session,
        (logits, rows): (&[f32], usize),
        coolness: &[f32],
        lots: &[f32],
    ) -> Vec<Drawn> {
        let tensor = |numbers: &[f32]| {
            let shape = [rows, numbers.len() / rows];
            Tensor::from_array((shape, numbers.to_vec())).unwrap()
        };
        let inputs = ort::inputs! {
            SCORES => tensor(logits), COOLNESS => tensor(coolness), LOTS => tensor(lots)
        };
        let outputs = session.run(inputs).unwrap();
        let floats = |name: &str| outputs[name].try_extract_tensor::<f32>().unwrap().1.to_vec();
        let (probabilities, before) = (floats(DRAWN_PROBABILITIES), floats(BEFORE));
        let (_, tokens) = outputs[DRAWN].try_extract_tensor::<i64>().unwrap();
        let places = tokens.iter().zip(probabilities).zip(before);
        places
            .map(|((token, probability), before)| Drawn {
                token: *token as Token,
                probability,
                before,
            })
            .collect()
    }

    /// Numbers that look like logits, with many equals among them.
    fn logits(count: usize, seed: u64) -> Vec<f32> {
        let mixed = |index: u64| (index + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        (0..count as u64).map(|index| mixed(index) as f32 / 32.0).collect()
    }

    /// The same by reading every logit.
    fn expected(logits: &[f32], coolness: f32, lot: f32) -> Drawn {
        let weight = |logit: &f32| f64::from(logit * coolness).exp();
        let total: f64 = logits.iter().map(weight).sum();
        let mut left = f64::from(lot) * total;
        let token = logits.iter().position(|logit| {
            left -= weight(logit);
            left < 0.0
        });
        let token = token.unwrap_or(logits.len() - 1);
        let is_before = |other: usize| {
            let order = logits[other].total_cmp(&logits[token]);
            order.then(token.cmp(&other)).is_gt()
        };
        let before = (0..logits.len()).filter(|other| is_before(*other));
        let before: f64 = before.map(|other| weight(&logits[other])).sum();
        Drawn {
            token: token as Token,
            probability: (weight(&logits[token]) / total) as f32,
            before: (before / total) as f32,
        }
    }

    #[test]
    fn lots_fall_where_reading_every_logit_says() {
        for vocabulary in [1, 255, 256, 257, 5000] {
            let mut session = session(vocabulary);
            let rows = [logits(vocabulary, 1), logits(vocabulary, 99), logits(vocabulary, 7)];
            let coolness = [1.0, 0.2, 2.0];
            let lots = [0.0, 0.17, 0.5, 0.999_99, 0.33, 0.8, 0.05, 0.61, 0.25, 0.75, 0.9, 0.42];
            let drawn = draw(&mut session, (&rows.concat(), 3), &coolness, &lots);
            for (index, drawn) in drawn.iter().enumerate() {
                let row = index / 4;
                let expected = expected(&rows[row], coolness[row], lots[index]);
                // Where a lot falls on the border of two tokens, rounding says which.
                assert!(drawn.token.abs_diff(expected.token) <= 1, "{drawn:?}, {expected:?}");
                if drawn.token == expected.token {
                    let near = |left: f32, right: f32| (left - right).abs() < 1e-5;
                    assert!(near(drawn.probability, expected.probability), "{vocabulary}");
                    assert!(near(drawn.before, expected.before), "{drawn:?}, {expected:?}");
                }
            }
        }
    }

    #[test]
    fn a_token_without_probability_is_never_drawn_and_no_number_is_told() {
        let mut impossible = vec![f32::NEG_INFINITY; 600];
        (impossible[255], impossible[300]) = (1.0, 1.0);
        let lots = [0.0, 0.49, 0.51, 1.0_f32.next_down()];
        let drawn = draw(&mut session(600), (&impossible, 1), &[1.0], &lots);
        let tokens: Vec<_> = drawn.iter().map(|drawn| (drawn.token, drawn.before)).collect();
        assert_eq!(tokens, [(255, 0.0), (255, 0.0), (300, 0.5), (300, 0.5)]);
        let drawn = draw(&mut session(600), (&[f32::NAN; 600], 1), &[1.0], &[0.5]);
        assert!(drawn[0].probability.is_nan());
    }
}
