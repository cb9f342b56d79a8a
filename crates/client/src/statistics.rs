//! The statistics of models that several replicas serve, added up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use consort_protocol::{
    InferBatchStatistics, InferResponseStatistics, InferStatistics, MemoryUsage, ModelStatistics,
    ModelStatisticsRequest, StatisticDuration,
};
use consort_stage::{Error, Result};
use futures::future::join_all;
use tokio::time::timeout;

use crate::failure::reason;
use crate::replica::Replica;
use crate::snapshot::{Ready, Snapshot};

/// A replica that has not answered for so long is left out of the sum.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The statistics of one version, of all ready versions of a model, or of everything.
pub(crate) async fn collect(
    snapshot: &Snapshot,
    name: &str,
    version: Option<u64>,
) -> Result<Vec<ModelStatistics>> {
    let asked = select(snapshot, name, version)?;
    let answers = by_replica(&asked).into_iter().map(|wanted| ask(wanted, name));
    let mut sums: BTreeMap<(String, u64), ModelStatistics> = BTreeMap::new();
    for statistics in join_all(answers).await.into_iter().flatten() {
        let version = statistics.version.parse().unwrap_or_default();
        let key = (statistics.name.clone(), version);
        let Some(sum) = sums.get_mut(&key) else {
            sums.insert(key, statistics);
            continue;
        };
        add(sum, statistics);
    }
    if sums.is_empty() && !asked.is_empty() {
        return Err(Error::unavailable(format!(
            "no replica tells the statistics of model '{name}'"
        )));
    }
    Ok(sums.into_values().collect())
}

/// The ready versions that are asked about; the errors are Triton's.
fn select<'a>(snapshot: &'a Snapshot, name: &str, version: Option<u64>) -> Result<Vec<&'a Ready>> {
    let rows = snapshot.rows();
    let ready: Vec<_> = rows
        .filter_map(|row| row.ready.as_ref())
        .filter(|ready| name.is_empty() || *ready.served.name == *name)
        .collect();
    if ready.is_empty() && !name.is_empty() {
        let text = format!("requested model '{name}' is not available");
        return Err(Error::invalid(text));
    }
    let Some(version) = version.filter(|_| !name.is_empty()) else {
        return Ok(ready);
    };
    let one = ready.into_iter().find(|ready| ready.served.version == version);
    one.map(|ready| vec![ready]).ok_or_else(|| {
        let text = format!("requested model version is not available for model '{name}'");
        Error::invalid(text)
    })
}

/// What is asked of one replica: model versions by their names.
struct Wanted {
    replica: Arc<Replica>,
    versions: BTreeSet<(Arc<str>, u64)>,
}

/// Each replica once, with everything that it is asked about.
fn by_replica(asked: &[&Ready]) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for ready in asked {
        let version = (ready.served.name.clone(), ready.served.version);
        for replica in ready.remote.replicas().iter() {
            match wanted.iter_mut().find(|known| Arc::ptr_eq(&known.replica, replica)) {
                Some(known) => drop(known.versions.insert(version.clone())),
                None => wanted
                    .push(Wanted { replica: replica.clone(), versions: [version.clone()].into() }),
            }
        }
    }
    wanted
}

/// Asks one replica, once however many versions it has; nothing when it does not answer.
async fn ask(Wanted { replica, versions }: Wanted, name: &str) -> Vec<ModelStatistics> {
    let request = match versions.first() {
        Some((name, version)) if versions.len() == 1 => {
            ModelStatisticsRequest { name: name.to_string(), version: version.to_string() }
        }
        // All versions of the model, or all models.
        _ => ModelStatisticsRequest { name: name.to_owned(), version: String::new() },
    };
    let mut client = replica.client();
    let answer = timeout(ANSWER_TIMEOUT, client.model_statistics(request)).await;
    let reason = match answer {
        Ok(Ok(response)) => {
            let mut told = response.into_inner().model_stats;
            // A model of this name may be served by another stage alone.
            told.retain(|told| {
                let version = told.version.parse().unwrap_or_default();
                versions.len() == 1 || versions.contains(&(told.name.as_str().into(), version))
            });
            return told;
        }
        Ok(Err(status)) => reason(&status),
        Err(_) => format!("no answer within {ANSWER_TIMEOUT:?}"),
    };
    let (stage, address) = (&*replica.stage, replica.address);
    tracing::debug!(stage, %address, model = name, "no statistics: {reason}");
    Vec::new()
}

fn add(sum: &mut ModelStatistics, more: ModelStatistics) {
    sum.last_inference = sum.last_inference.max(more.last_inference);
    sum.inference_count += more.inference_count;
    sum.execution_count += more.execution_count;
    if let Some(more) = more.inference_stats {
        add_inferences(sum.inference_stats.get_or_insert_default(), more);
    }
    for batch in more.batch_stats {
        add_batch(&mut sum.batch_stats, batch);
    }
    for usage in more.memory_usage {
        add_memory(&mut sum.memory_usage, usage);
    }
    for (position, more) in more.response_stats {
        add_responses(sum.response_stats.entry(position).or_default(), more);
    }
}

fn add_duration(sum: &mut Option<StatisticDuration>, more: Option<StatisticDuration>) {
    if let Some(more) = more {
        let sum = sum.get_or_insert_default();
        sum.count += more.count;
        sum.ns += more.ns;
    }
}

fn add_inferences(sum: &mut InferStatistics, more: InferStatistics) {
    add_duration(&mut sum.success, more.success);
    add_duration(&mut sum.fail, more.fail);
    add_duration(&mut sum.queue, more.queue);
    add_duration(&mut sum.compute_input, more.compute_input);
    add_duration(&mut sum.compute_infer, more.compute_infer);
    add_duration(&mut sum.compute_output, more.compute_output);
    add_duration(&mut sum.cache_hit, more.cache_hit);
    add_duration(&mut sum.cache_miss, more.cache_miss);
}

fn add_responses(sum: &mut InferResponseStatistics, more: InferResponseStatistics) {
    add_duration(&mut sum.compute_infer, more.compute_infer);
    add_duration(&mut sum.compute_output, more.compute_output);
    add_duration(&mut sum.success, more.success);
    add_duration(&mut sum.fail, more.fail);
    add_duration(&mut sum.empty_response, more.empty_response);
    add_duration(&mut sum.cancel, more.cancel);
}

/// Adds one batch size, keeping the sizes in ascending order.
fn add_batch(sums: &mut Vec<InferBatchStatistics>, more: InferBatchStatistics) {
    match sums.binary_search_by_key(&more.batch_size, |batch| batch.batch_size) {
        Ok(found) => {
            let sum = &mut sums[found];
            add_duration(&mut sum.compute_input, more.compute_input);
            add_duration(&mut sum.compute_infer, more.compute_infer);
            add_duration(&mut sum.compute_output, more.compute_output);
        }
        Err(place) => sums.insert(place, more),
    }
}

fn add_memory(sums: &mut Vec<MemoryUsage>, more: MemoryUsage) {
    let same = |sum: &&mut MemoryUsage| sum.r#type == more.r#type && sum.id == more.id;
    match sums.iter_mut().find(same) {
        Some(sum) => sum.byte_size += more.byte_size,
        None => sums.push(more),
    }
}
