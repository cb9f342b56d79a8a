//! What the fleet serves at one moment, and what it answers to whoever asks for a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use consort_repository::{IndexEntry, Served, State};
use consort_stage::{Error, Result};

use crate::remote::Remote;
use crate::report::is_fine;

/// Every known model with its versions, at one moment.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// By model, the versions in ascending order.
    pub(crate) models: BTreeMap<Arc<str>, Vec<Row>>,
    /// The stages without a ready replica, each with the reason.
    pub(crate) waiting: BTreeMap<Arc<str>, String>,
}

/// One version of a model.
pub(crate) struct Row {
    pub(crate) entry: IndexEntry,
    /// There when it is ready.
    pub(crate) ready: Option<Ready>,
}

/// A version that is ready: what callers are given and where it comes from.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) served: Arc<Served>,
    pub(crate) remote: Arc<Remote>,
}

impl Snapshot {
    /// The rows of all models, in the order of their names.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.models.values().flatten()
    }

    /// Whether every stage has a ready replica and no model is still to come. Which models must
    /// not fail is the stage's own business: an optional one that did holds up nobody.
    pub(crate) fn is_ready(&self) -> bool {
        let is_settled = |row: &Row| row.entry.state != State::Loading;
        self.waiting.is_empty() && self.rows().all(is_settled)
    }

    /// The model in this version, or in its latest ready one.
    pub(crate) fn get(&self, name: &str, version: Option<u64>) -> Result<&Ready> {
        let rows = self
            .models
            .get(name)
            .ok_or_else(|| Error::not_found(format!("{} is not found", unknown(name))))?;
        match version {
            Some(version) => rows
                .iter()
                .find(|row| row.entry.version == Some(version))
                .ok_or_else(|| {
                    let unknown = unknown(name);
                    Error::not_found(format!("{unknown} version {version} is not found"))
                })
                .and_then(|row| row.ready.as_ref().ok_or_else(|| not_ready(row))),
            None => rows
                .iter()
                .rev()
                .find_map(|row| row.ready.as_ref())
                .ok_or_else(|| none_ready(name, rows)),
        }
    }

    /// Whether callers would see no difference between the two.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.waiting.is_empty() == other.waiting.is_empty()
            && self.models.len() == other.models.len()
            && self.rows().count() == other.rows().count()
            && self.rows().zip(other.rows()).all(|(row, other)| row.is_like(other))
    }
}

impl Row {
    fn is_like(&self, other: &Self) -> bool {
        self.entry == other.entry
            && match (&self.ready, &other.ready) {
                (Some(one), Some(other)) => {
                    one.served.versions == other.served.versions
                        && one.served.config == other.served.config
                        && Arc::ptr_eq(&one.remote, &other.remote)
                }
                (one, other) => one.is_none() && other.is_none(),
            }
    }
}

/// What Triton begins with, whatever is wrong with the model asked for.
fn unknown(name: &str) -> String {
    format!("Request for unknown model: '{name}'")
}

fn not_ready(row: &Row) -> Error {
    let IndexEntry { name, version, reason, .. } = &row.entry;
    let version = version.map(|version| format!(" version {version}"));
    let version = version.unwrap_or_default();
    let colon = if reason.is_empty() { "" } else { ": " };
    Error::unavailable(format!("{}{version} is not at ready state{colon}{reason}", unknown(name)))
}

/// A model that nobody wants loaded is not there; one that should be is not there now.
fn none_ready(name: &str, rows: &[Row]) -> Error {
    let missed = rows.iter().rev().find(|row| {
        row.entry.state != State::Unknown && !is_fine(row.entry.state, &row.entry.reason)
    });
    missed.map_or_else(
        || Error::not_found(format!("{} has no available versions", unknown(name))),
        not_ready,
    )
}
