//! The libraries without a server: two instances of one thread each, which embed batch after batch.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::cases::Settings;
use crate::cases::embed::direct::Direct;
use crate::sample::Sample;

/// How many instances there are.
pub(super) const INSTANCES: usize = 2;

/// The batch sizes of which the best is taken.
const SIZES: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// The instances.
pub(super) struct Alone(Vec<Direct>);

impl Alone {
    /// Opens them.
    pub(super) fn open(settings: &Settings) -> Result<Self> {
        Ok(Self(Direct::open_all(&settings.models, INSTANCES, 1)?))
    }

    /// How many tokens they compute for a sentence.
    pub(super) fn tokens(&self, sentence: &str) -> Result<usize> {
        self.0.first().context("there are instances")?.tokens(sentence)
    }

    /// The size of batch at which they embed most.
    pub(super) fn best(&mut self, sentence: &str, time: Duration) -> Result<usize> {
        let mut rates = Vec::new();
        for size in SIZES {
            self.round(sentence, size, time / 4)?;
            rates.push((self.round(sentence, size, time)?.rate(), size));
        }
        let best = rates.into_iter().max_by(|one, other| one.0.total_cmp(&other.0));
        Ok(best.context("there are sizes")?.1)
    }

    /// What they embed in so much time, `size` sentences at once.
    pub(super) fn round(&mut self, sentence: &str, size: usize, time: Duration) -> Result<Sample> {
        let batch = vec![sentence; size];
        let begun_at = Instant::now();
        let latencies = thread::scope(|scope| {
            let work = |direct| scope.spawn(|| embed(direct, &batch, begun_at + time));
            let threads: Vec<_> = self.0.iter_mut().map(work).collect();
            let done = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("an instance broke down"))?);
            done.collect::<Result<Vec<_>>>()
        })?;
        Ok(Sample::new(latencies.concat(), begun_at.elapsed(), Duration::ZERO))
    }
}

/// How long each sentence took, batch after batch.
fn embed(direct: &mut Direct, batch: &[&str], until: Instant) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let begun_at = Instant::now();
        direct.embed_all(batch)?;
        latencies.extend(batch.iter().map(|_| begun_at.elapsed()));
    }
    Ok(latencies)
}
