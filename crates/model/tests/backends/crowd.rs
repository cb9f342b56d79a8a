//! A crowd of requests to one model: references among callers that sample, stop early and leave.

use consort_stage::{Request, Responses, Tensor};

use crate::generating::{Generating, request};
use crate::reference::Case;

/// Numbers that are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Asks a model so many things at once, in an order drawn by lot, and checks that every reference
/// among them is answered with its tokens.
pub(crate) fn check(model: &Generating, cases: &[Case], requests: u64) {
    let mut numbers = Numbers(7);
    let mut asked: Vec<(Case, usize, Responses)> = Vec::new();
    let mut leaving = Vec::new();
    for _ in 0..requests {
        let case = &cases[numbers.below(cases.len() as u64) as usize];
        match numbers.below(4) {
            0 => leaving.push(model.ask(streaming(case, longest(case)), 64)),
            1 => drop(model.ask(sampled(case, numbers.below(1000)), 64)),
            _ => {
                let length = 1 + numbers.below(longest(case) as u64) as usize;
                let streams = numbers.below(2) == 0;
                let ask = if streams { streaming } else { request_for };
                asked.push((case.clone(), length, model.ask(ask(case, length as i32), 64)));
            }
        }
        if numbers.below(3) == 0 && !leaving.is_empty() {
            let mut responses = leaving.swap_remove(0);
            model.next(&mut responses);
        }
        if numbers.below(5) == 0 && !asked.is_empty() {
            let index = numbers.below(asked.len() as u64) as usize;
            compare(model, asked.swap_remove(index));
        }
    }
    drop(leaving);
    for one in asked {
        compare(model, one);
    }
}

fn compare(model: &Generating, (case, length, responses): (Case, usize, Responses)) {
    let answer = model.read(responses).unwrap();
    let ids = answer.iter().flat_map(|response| {
        response.output("output_ids").unwrap().to_slice::<i32>().unwrap().into_owned()
    });
    assert_eq!(ids.collect::<Vec<_>>(), case.greedy_ids[..length], "{}", case.prompt);
}

fn longest(case: &Case) -> i32 {
    case.greedy_ids.len() as i32
}

fn request_for(case: &Case, length: i32) -> Request {
    endless(&case.input_ids, length)
}

/// A request that nothing but its length ends.
pub(crate) fn endless(ids: &[i32], length: i32) -> Request {
    let mut request = request(ids, length);
    request.inputs.push(Tensor::from_vec("end_id", &[1, 1], vec![-1]));
    request
}

fn streaming(case: &Case, length: i32) -> Request {
    let mut request = request_for(case, length);
    request.inputs.push(Tensor::from_bools("streaming", &[1, 1], &[true]));
    request
}

fn sampled(case: &Case, seed: u64) -> Request {
    let mut request = streaming(case, longest(case));
    request.inputs.push(Tensor::from_vec("temperature", &[1, 1], vec![1.5_f32]));
    request.inputs.push(Tensor::from_vec("random_seed", &[1, 1], vec![seed]));
    request
}
