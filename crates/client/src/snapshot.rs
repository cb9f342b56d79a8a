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
    /// The reasons of those that have never said which models they have: it may be any.
    pub(crate) unheard: Vec<String>,
}

/// One version of a model.
pub(crate) struct Row {
    pub(crate) entry: IndexEntry,
    /// Whether it was there before all that had it went away.
    pub(crate) is_away: bool,
    /// There when it is ready.
    pub(crate) ready: Option<Ready>,
}

/// A version that is ready: what callers are given and where it comes from.
#[derive(Clone)]
pub(crate) struct Ready {
    /// For callers that name the version.
    pub(crate) served: Arc<Served>,
    /// For those that take the newest, whichever that is once the request arrives.
    pub(crate) newest: Arc<Served>,
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
        let rows = self.models.get(name).ok_or_else(|| self.nowhere(name))?;
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

    /// Why a model that may be ready cannot be reached.
    pub(crate) fn away(&self, name: &str, version: Option<u64>) -> Option<&str> {
        let Some(rows) = self.models.get(name) else {
            return self.unheard.first().map(String::as_str);
        };
        if version.is_none() && rows.iter().any(|row| row.ready.is_some()) {
            return None;
        }
        let asked = |row: &&Row| version.is_none() || row.entry.version == version;
        let mut asked = rows.iter().rev().filter(asked);
        asked.find(|row| row.is_away).map(|row| row.entry.reason.as_str())
    }

    /// The error for a model that no service has said to have.
    fn nowhere(&self, name: &str) -> Error {
        let unknown = unknown(name);
        match self.unheard.first() {
            Some(reason) => {
                Error::unavailable(format!("{unknown} is not at ready state: {reason}"))
            }
            None => Error::not_found(format!("{unknown} is not found")),
        }
    }

    /// Whether callers would see no difference between the two.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.waiting.is_empty() == other.waiting.is_empty()
            && self.unheard == other.unheard
            && self.models.len() == other.models.len()
            && self.rows().count() == other.rows().count()
            && self.rows().zip(other.rows()).all(|(row, other)| row.is_like(other))
    }
}

impl Row {
    fn is_like(&self, other: &Self) -> bool {
        self.entry == other.entry
            && self.is_away == other.is_away
            && match (&self.ready, &other.ready) {
                (Some(one), Some(other)) => {
                    one.served.versions == other.served.versions
                        && one.served.config == other.served.config
                        && one.served.labels == other.served.labels
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

/// A model that was ready somewhere is not there now; one that failed or that nobody wants loaded
/// is not there, as where the server itself loads it.
fn none_ready(name: &str, rows: &[Row]) -> Error {
    if let Some(away) = rows.iter().rev().find(|row| row.is_away) {
        return not_ready(away);
    }
    let failed = rows.iter().rev().find(|row| {
        row.entry.state == State::Unavailable && !is_fine(row.entry.state, &row.entry.reason)
    });
    let why = failed.map(|row| format!(" ({})", row.entry.reason)).unwrap_or_default();
    Error::not_found(format!("{} has no available versions{why}", unknown(name)))
}
