//! The yardstick: the same graph run by a loop that binds, runs and takes the likeliest token.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ort::environment::Environment;
use ort::memory::Allocator;
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session};
use ort::value::{Tensor, ValueType};

use super::REPEATS;
use super::engine::PROMPT;

/// Tokens a second over so many rows, and the seconds of one run alone.
///
/// Each row has as many tokens before those that are measured as it is given then.
pub(super) fn measure(file: &Path, rows: usize, tokens: usize) -> Result<[f64; 2]> {
    let library = std::env::var("ORT_DYLIB_PATH").context("`ORT_DYLIB_PATH` is not set")?;
    let environment = ort::init_from(library)?.build()?;
    let mut decoder = Bare::new(&environment, file, rows, 1024)?;
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..REPEATS {
        decoder.length = PROMPT as usize;
        decoder.decode(tokens)?;
        decoder.in_runs = Duration::ZERO;
        let started = Instant::now();
        decoder.decode(tokens)?;
        let [all, in_runs] = shortest;
        shortest = [started.elapsed().min(all), decoder.in_runs.min(in_runs)];
    }
    let [all, in_runs] = shortest.map(|time| time.as_secs_f64());
    Ok([(rows * tokens) as f64 / all, in_runs / tokens as f64])
}

struct Bare {
    session: Session,
    binding: IoBinding,
    rows: usize,
    length: usize,
    vocabulary: usize,
    next: Vec<i64>,
    /// How long the runs took so far.
    in_runs: Duration,
}

impl Bare {
    fn new(environment: &Environment, file: &Path, rows: usize, context: i64) -> Result<Self> {
        let builder = SessionBuilder::new(environment)?.with_intra_threads(1);
        let mut builder = builder.map_err(|error| anyhow::anyhow!("{error}"))?;
        let session = builder.commit_from_file(file)?;
        let mut binding = session.create_binding()?;
        let allocator = Allocator::default();
        for input in session.inputs() {
            let ValueType::Tensor { shape, .. } = input.dtype() else { continue };
            if let &[_, heads, _, size] = &**shape {
                let mut cache =
                    Tensor::<f32>::new(&allocator, [rows as i64, heads, context, size])?;
                binding.bind_input(input.name(), &cache)?;
                let present = input.name().replace("past_key_values", "present");
                binding.bind_output(present, &mut cache)?;
            }
        }
        let logits = session.outputs().iter().find(|output| output.name() == "logits");
        let shape = logits.and_then(|output| output.dtype().tensor_shape());
        let vocabulary = shape.and_then(|shape| shape.last().copied()).context("it has logits")?;
        let logits = Tensor::<f32>::new(&allocator, [rows as i64, 1, vocabulary])?;
        binding.bind_output("logits", logits)?;
        let vocabulary = vocabulary as usize;
        // As far as the other contender is when it begins to decode.
        Ok(Self {
            session,
            binding,
            rows,
            length: PROMPT as usize,
            vocabulary,
            next: vec![9; rows],
            in_runs: Duration::ZERO,
        })
    }

    fn decode(&mut self, steps: usize) -> Result<()> {
        let rows = self.rows;
        for _ in 0..steps {
            self.length += 1;
            let ids = Tensor::from_array(([rows as i64, 1], self.next.clone()))?;
            let mask = vec![1_i64; rows * self.length];
            let mask = Tensor::from_array(([rows as i64, self.length as i64], mask))?;
            self.binding.bind_input("input_ids", &ids)?;
            self.binding.bind_input("attention_mask", &mask)?;
            let started = Instant::now();
            let outputs = self.session.run_binding(&self.binding)?;
            self.in_runs += started.elapsed();
            let (_, logits) = outputs["logits"].try_extract_tensor::<f32>()?;
            for (next, row) in self.next.iter_mut().zip(logits.chunks(self.vocabulary)) {
                let likeliest = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                *next = likeliest.map_or(0, |(token, _)| token as i64);
            }
        }
        Ok(())
    }
}
