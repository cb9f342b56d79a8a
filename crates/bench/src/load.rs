//! Closed-loop callers: each sends its next request when it has the answer to the one before.

pub(crate) mod grpc;
pub(crate) mod http;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::program::Program;
use crate::sample::{Sample, Series};

/// Somebody who can call a server again and again, with the same request.
pub(crate) trait Caller: Send + 'static {
    /// Calls once; an answer other than the first one's is an error.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Calls several servers, one after another, as if that were one call.
pub(crate) struct InTurn<C>(pub(crate) Vec<C>);

impl<C: Caller> Caller for InTurn<C> {
    async fn call(&mut self) -> Result<()> {
        for caller in &mut self.0 {
            caller.call().await?;
        }
        Ok(())
    }
}

/// Sends one of several requests after another, and counts each as a call of its own.
pub(crate) struct ByTurns<C> {
    /// The callers with the requests.
    pub(crate) callers: Vec<C>,
    /// Which one is next.
    pub(crate) next: usize,
}

impl<C: Caller> Caller for ByTurns<C> {
    async fn call(&mut self) -> Result<()> {
        let place = self.next % self.callers.len();
        self.next += 1;
        self.callers[place].call().await
    }
}

/// Callers of one server, and the processes whose processor time counts for it.
pub(crate) struct Contender<'a, C> {
    /// What it is called in the tables.
    pub(crate) name: String,
    /// The callers, who work side by side.
    pub(crate) callers: Vec<C>,
    /// The processes behind it.
    pub(crate) programs: Vec<&'a Program>,
}

/// How many calls each caller makes before anything is measured.
const WARM_UP: usize = 200;

/// Lets the contenders work one after another, round by round, each for `time` in a round.
pub(crate) async fn interleave<C: Caller>(
    mut contenders: Vec<Contender<'_, C>>,
    rounds: usize,
    time: Duration,
) -> Result<Vec<Series>> {
    let mut all: Vec<_> =
        contenders.iter().map(|contender| Series::new(contender.name.clone())).collect();
    for contender in &mut contenders {
        for caller in &mut contender.callers {
            for _ in 0..WARM_UP {
                caller.call().await?;
            }
        }
    }
    for round in 0..rounds {
        // Every other round goes backwards, so that nobody is always first.
        let places = 0..contenders.len();
        let order: Vec<_> = if round % 2 == 0 { places.collect() } else { places.rev().collect() };
        for place in order {
            let sample = round_of(&mut contenders[place], time).await?;
            all[place].push(sample);
        }
    }
    Ok(all)
}

/// One round of a contender.
pub(crate) async fn round_of<C: Caller>(
    contender: &mut Contender<'_, C>,
    time: Duration,
) -> Result<Sample> {
    let cpu_before = cpu(&contender.programs)?;
    let started_at = Instant::now();
    let until = started_at + time;
    let mut running = tokio::task::JoinSet::new();
    for caller in contender.callers.drain(..) {
        running.spawn(work(caller, until));
    }
    let mut latencies = Vec::new();
    while let Some(done) = running.join_next().await {
        let (caller, mut own) = done??;
        contender.callers.push(caller);
        latencies.append(&mut own);
    }
    let elapsed = started_at.elapsed();
    Ok(Sample::new(latencies, elapsed, cpu(&contender.programs)?.saturating_sub(cpu_before)))
}

async fn work<C: Caller>(mut caller: C, until: Instant) -> Result<(C, Vec<Duration>)> {
    let mut latencies = Vec::with_capacity(1 << 16);
    let mut begun_at = Instant::now();
    while begun_at < until {
        caller.call().await?;
        let ended_at = Instant::now();
        latencies.push(ended_at - begun_at);
        begun_at = ended_at;
    }
    Ok((caller, latencies))
}

fn cpu(programs: &[&Program]) -> Result<Duration> {
    programs.iter().map(|program| program.cpu()).sum()
}
