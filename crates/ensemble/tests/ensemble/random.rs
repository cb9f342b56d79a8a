//! Random graphs with random delays: every step runs as often as it should, in order, and nothing
//! is lost, doubled, kept or waited for in vain.

use std::sync::Arc;

use consort_stage::{Request, Response, Responses, Stage, Tensor};
use consort_testkit::{Probe, signature};
use futures::{StreamExt, stream};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::graph::{Graph, ensemble, request};

/// What a random step is like.
#[derive(Clone, Debug)]
struct Node {
    /// Where its two inputs come from.
    sources: [Index; 2],
    /// How often it answers, when it streams: once for each of these, after so many yields.
    answers: Option<Vec<u8>>,
    /// How many yields it takes before it answers, in turn.
    delays: Vec<u8>,
}

fn node() -> impl Strategy<Value = Node> {
    let answers = prop_oneof![
        2 => Just(None),
        1 => prop::collection::vec(0..4_u8, 0..5).prop_map(Some),
    ];
    (any::<[Index; 2]>(), answers, prop::collection::vec(0..6_u8, 1..4))
        .prop_map(|(sources, answers, delays)| Node { sources, answers, delays })
}

/// A stage that answers with where its tensors have been: `3(1.0,x)` is what step 3 made of the
/// first response of step 1 and of the input.
struct Tracer {
    name: usize,
    node: Node,
}

impl Stage for Tracer {
    fn call(&self, request: Request) -> Responses {
        let text = |tensor: &Tensor| String::from_utf8(tensor.data[4..].to_vec()).unwrap();
        let inputs: Vec<String> = request.inputs.iter().map(text).collect();
        let trace = format!("{}({})", self.name, inputs.join(","));
        let turn = trace.len() % self.node.delays.len();
        let delay = self.node.delays[turn];
        let pauses = match &self.node.answers {
            None => vec![(trace, 0)],
            Some(pauses) => {
                let numbered = pauses.iter().enumerate();
                numbered.map(|(index, pause)| (format!("{trace}.{index}"), *pause)).collect()
            }
        };
        let count = pauses.len();
        Box::pin(stream::iter(pauses).enumerate().then(move |(index, (trace, pause))| async move {
            for _ in 0..delay + pause {
                tokio::task::yield_now().await;
            }
            let outputs = vec![Tensor::from_strings("OUT", &[1], &[trace])];
            Ok(Response { outputs, is_last: index + 1 == count, ..Response::default() })
        }))
    }
}

/// The ensemble of these nodes, each reading what came before it, and a probe on each of them;
/// joins of unrelated streams read the input instead.
fn assemble(nodes: &[Node], inflight: u32) -> (Graph, Vec<Probe>) {
    let mut graph = ensemble("x BYTES[1] ->").inflight(inflight);
    let mut probes = Vec::new();
    let mut names = vec!["x".to_owned()];
    for (index, node) in nodes.iter().enumerate() {
        let tracer = Tracer { name: index, node: node.clone() };
        let (probe, stage) = Probe::on(Arc::new(tracer));
        let arrow = if node.answers.is_some() { "->>" } else { "->" };
        let model = format!("m{index}");
        let own = format!("A BYTES[1], B BYTES[1] {arrow} OUT BYTES[1]");
        let [a, b] = node.sources.map(|source| source.get(&names).clone());
        let joined = graph.clone().runs(&model, &own, stage.clone());
        let joined = joined.step(&model, &format!("A={a} B={b} -> OUT=t{index}"));
        let meets_another_stream = checked(&joined).is_err();
        graph = if meets_another_stream {
            let edges = format!("A={a} B=x -> OUT=t{index}");
            graph.runs(&model, &own, stage).step(&model, &edges)
        } else {
            joined
        };
        names.push(format!("t{index}"));
        probes.push(probe);
    }
    (with_outputs(&graph), probes)
}

/// The graph with every tensor that nobody reads as an output, so that all of it is used.
fn with_outputs(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let read = |name: &str| {
        let edges = graph.spec.steps.iter().flat_map(|step| &step.inputs);
        edges.map(|edge| &*edge.ensemble_tensor).any(|tensor| tensor == name)
    };
    let made = (0..graph.spec.steps.len()).map(|index| format!("t{index}"));
    let unread: Vec<String> =
        made.filter(|name| !read(name)).map(|name| format!("{name} BYTES[1]")).collect();
    graph.spec.signature = signature(&format!("x BYTES[1] -> {}", unread.join(", ")));
    graph
}

fn checked(graph: &Graph) -> Result<consort_ensemble::Plan, Vec<consort_ensemble::Defect>> {
    with_outputs(graph).check()
}

/// What each step should make, in order, worked out without running anything: the value of every
/// tensor for every iteration.
fn expected(graph: &Graph, nodes: &[Node]) -> Vec<Vec<(Vec<u32>, String)>> {
    let plan = graph.check().unwrap();
    let mut made: Vec<Vec<(Vec<u32>, String)>> = vec![vec![(Vec::new(), "x".to_owned())]];
    for (index, node) in nodes.iter().enumerate() {
        let step = &plan.steps[index];
        let sources: Vec<_> = step.inputs.iter().map(|input| &made[input.tensor]).collect();
        let depth = step.lineage.len();
        let driving = step.inputs.iter().zip(&sources);
        let driving = driving
            .filter(|(input, _)| plan.tensors[input.tensor].lineage.len() == depth)
            .map(|(_, values)| *values)
            .next()
            .unwrap();
        let mut outputs = Vec::new();
        for (iteration, _) in driving {
            let given = sources.iter().map(|values| {
                let of = values.iter().find(|(key, _)| iteration.starts_with(key)).unwrap();
                of.1.clone()
            });
            let trace = format!("{index}({})", given.collect::<Vec<_>>().join(","));
            match &node.answers {
                None => outputs.push((iteration.clone(), trace)),
                Some(answers) => outputs.extend((0..answers.len() as u32).map(|answer| {
                    ([iteration.as_slice(), &[answer]].concat(), format!("{trace}.{answer}"))
                })),
            }
        }
        made.push(outputs);
    }
    made
}

/// The traces that came as each output, in order, and whether any response was said to be last.
async fn run(graph: &Graph) -> (Vec<(String, Vec<String>)>, Vec<bool>) {
    let names = graph.spec.signature.outputs.iter().map(|output| output.name.to_string());
    let mut seen: Vec<(String, Vec<String>)> = names.map(|name| (name, Vec::new())).collect();
    let mut is_last = Vec::new();
    let x = Tensor::from_strings("x", &[1], &["x"]);
    let stage = graph.build();
    let mut responses = stage.call(request(vec![x]));
    while let Some(response) = responses.next().await {
        let response = response.unwrap();
        is_last.push(response.is_last);
        for output in &response.outputs {
            let trace = String::from_utf8(output.data[4..].to_vec()).unwrap();
            let of = seen.iter_mut().find(|(name, _)| **name == *output.name).unwrap();
            of.1.push(trace);
        }
    }
    (seen, is_last)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let limited = async {
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, future).await.expect("the graph came to a standstill")
    };
    runtime.block_on(limited)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_step_runs_once_for_each_iteration_and_in_order(
        nodes in prop::collection::vec(node(), 1..9),
        inflight in 1..5_u32,
    ) {
        let (graph, probes) = assemble(&nodes, inflight);
        let made = expected(&graph, &nodes);
        let (seen, is_last) = block_on(run(&graph));

        let plan = graph.check().unwrap();
        for (index, probe) in probes.iter().enumerate() {
            let step = &plan.steps[index];
            let depth = step.lineage.len();
            let mut driving = step.inputs.iter().map(|input| input.tensor);
            let driving = driving.find(|tensor| plan.tensors[*tensor].lineage.len() == depth);
            prop_assert_eq!(probe.ended(), made[driving.unwrap()].len(), "step {}", index);
            prop_assert_eq!(probe.running(), 0);
            prop_assert!(probe.most_running() <= 1, "iterations of one step run in turn");
        }
        for (name, traces) in &seen {
            let tensor = plan.tensors.iter().position(|tensor| *tensor.name == **name).unwrap();
            let mut traces = traces.clone();
            // What is held comes with every response; its changes are its values.
            traces.dedup();
            let values: Vec<_> = made[tensor].iter().map(|(_, trace)| trace.clone()).collect();
            let is_alone = plan.outputs.iter().all(|group| {
                group.lineage == plan.tensors[tensor].lineage
                    || !group.lineage.starts_with(&plan.tensors[tensor].lineage)
            });
            if is_alone {
                prop_assert_eq!(traces, values, "{}", name);
            } else {
                prop_assert!(traces.iter().all(|trace| values.contains(trace)), "{}", name);
            }
        }
        let before_last = is_last.len().saturating_sub(1);
        prop_assert!(!is_last[..before_last].contains(&true), "{is_last:?}");
        if !plan.signature.is_decoupled {
            prop_assert_eq!(is_last, [true]);
        }
    }

    #[test]
    fn a_caller_may_leave_at_any_moment(
        nodes in prop::collection::vec(node(), 1..9),
        polls in 0..40_usize,
    ) {
        let (graph, probes) = assemble(&nodes, 2);
        block_on(async {
            let x = Tensor::from_strings("x", &[1], &["x"]);
            let stage = graph.build();
            let mut responses = stage.call(request(vec![x]));
            for _ in 0..polls {
                drop(futures::FutureExt::now_or_never(responses.next()));
                tokio::task::yield_now().await;
            }
        });
        for probe in probes {
            prop_assert_eq!(probe.running(), 0);
        }
    }
}
