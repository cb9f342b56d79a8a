//! Merges what the replicas of all stages say into the models of the fleet.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use consort_repository::State;

use crate::remotes::Remotes;
use crate::replica::Replica;
use crate::report::{Description, Health, Report, Reported};
use crate::snapshot::Snapshot;

/// A model and its version; `None` for a model that was never loaded.
pub(crate) type Key = (Arc<str>, Option<u64>);

/// How many replicas a reason names; the others fare much the same.
const REPLICAS_NAMED: usize = 3;

/// One stage as the merge sees it.
pub(crate) struct StageView<'a> {
    pub(crate) name: &'a Arc<str>,
    /// Its replicas with what they said, in the order of their addresses.
    pub(crate) replicas: Vec<(Arc<Replica>, Arc<Report>)>,
    /// The models it had when it last had replicas.
    pub(crate) remembered: &'a [Key],
    /// Why its replicas are not known, if they are not.
    pub(crate) lost: Option<&'a str>,
}

impl StageView<'_> {
    /// Every model version that its replicas name.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let reports = self.replicas.iter().map(|(_, report)| report);
        let models = reports.flat_map(|report| &report.models);
        let mut keys: Vec<Key> = models.map(|model| (model.name.clone(), model.version)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// What its replicas say of their models.
    fn models(&self) -> BTreeMap<Key, Merged> {
        let mut merged = BTreeMap::new();
        let problem = self.problem();
        for (replica, report) in &self.replicas {
            for model in &report.models {
                let offered = if report.is_callable() {
                    Merged::heard(replica, model)
                } else {
                    let own = || {
                        let trouble = trouble(&report.health).unwrap_or_default();
                        format!("service '{}' ({}): {trouble}", self.name, replica.address)
                    };
                    Merged::missed(model.version, problem.clone().unwrap_or_else(own))
                };
                offer(&mut merged, (model.name.clone(), model.version), offered);
            }
        }
        if let ([], Some(problem)) = (&self.replicas[..], problem) {
            for key in self.remembered {
                offer(&mut merged, key.clone(), Merged::missed(key.1, problem.clone()));
            }
        }
        merged
    }

    /// Why it has no ready replica; `None` when it has one.
    pub(crate) fn problem(&self) -> Option<String> {
        let mut problems = Vec::new();
        for (replica, report) in &self.replicas {
            problems.push(format!("{}: {}", replica.address, trouble(&report.health)?));
        }
        problems.truncate(REPLICAS_NAMED);
        let problems = match self.lost {
            Some(lost) if problems.is_empty() => lost.to_owned(),
            _ if problems.is_empty() => "it has no address".to_owned(),
            _ => problems.join(", "),
        };
        Some(format!("no ready replica of stage `{}`: {problems}", self.name))
    }
}

/// Why a replica in this health is not ready.
fn trouble(health: &Health) -> Option<&str> {
    match health {
        Health::Ready => None,
        Health::Connecting => Some("not reached yet"),
        Health::Partial => Some("not all of its models are ready"),
        Health::Failed(reason) => Some(reason),
    }
}

/// What is known of one model version, the best that any replica says.
pub(crate) struct Merged {
    pub(crate) state: State,
    pub(crate) reason: String,
    /// Whether nobody who could be asked says so.
    is_hearsay: bool,
    /// Whether it was there when somebody last answered.
    pub(crate) is_away: bool,
    /// Whether all that have it ready say that their files are another one by now.
    is_stale: bool,
    /// The first description by stage and address, with all replicas that agree with it.
    pub(crate) ready: Option<(Arc<Description>, Vec<Arc<Replica>>)>,
}

impl Merged {
    /// What its replica last said, when it can be called.
    fn heard(replica: &Arc<Replica>, model: &Reported) -> Self {
        let description = model.description.clone();
        Self {
            state: model.state,
            reason: model.reason.clone(),
            is_hearsay: false,
            is_away: false,
            is_stale: !model.reason.is_empty(),
            ready: description.map(|description| (description, vec![replica.clone()])),
        }
    }

    /// A model that was there when its replica last answered.
    fn missed(version: Option<u64>, reason: String) -> Self {
        Self {
            state: version.map_or(State::Unknown, |_| State::Unavailable),
            reason: version.map_or_else(String::new, |_| reason),
            is_hearsay: true,
            is_away: version.is_some(),
            is_stale: false,
            ready: None,
        }
    }

    /// What is the better news, and from whom.
    fn rank(&self) -> (u8, bool) {
        let state = match self.state {
            State::Unknown => 0,
            State::Unavailable => 1,
            State::Unloading => 2,
            State::Loading => 3,
            State::Ready => 4,
        };
        (state, !self.is_hearsay)
    }
}

/// The models of all stages, as the fleet offers them.
pub(crate) fn merge(stages: &[StageView<'_>], remotes: &mut Remotes) -> Snapshot {
    let mut merged: BTreeMap<Key, Merged> = BTreeMap::new();
    for stage in stages {
        for (key, offered) in stage.models() {
            offer_of_stage(&mut merged, key, offered);
        }
    }
    drop_unloaded_names(&mut merged);
    Snapshot {
        waiting: stages
            .iter()
            .filter_map(|stage| Some((stage.name.clone(), stage.problem()?)))
            .collect(),
        unheard: stages
            .iter()
            .filter(|stage| stage.remembered.is_empty() && stage.keys().is_empty())
            .filter_map(StageView::problem)
            .collect(),
        models: remotes.rows(merged),
    }
}

/// Joins what one more stage says: a model that has become another stage's, and that the one before
/// keeps in case nobody can load it, is called where its files are what is served.
fn offer_of_stage(merged: &mut BTreeMap<Key, Merged>, key: Key, offered: Merged) {
    match merged.get_mut(&key) {
        Some(known)
            if known.ready.is_some()
                && offered.ready.is_some()
                && known.is_stale != offered.is_stale =>
        {
            if known.is_stale {
                *known = offered;
            }
        }
        _ => offer(merged, key, offered),
    }
}

/// Joins one more opinion: a ready one beats all others, and the first of equals wins.
fn offer(merged: &mut BTreeMap<Key, Merged>, key: Key, offered: Merged) {
    let known = match merged.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(offered);
            return;
        }
        Entry::Occupied(occupied) => occupied.into_mut(),
    };
    if let (Some((first, replicas)), Some((other, more))) = (&mut known.ready, &offered.ready) {
        if first.signature == other.signature {
            replicas.extend_from_slice(more);
            known.is_stale &= offered.is_stale;
        } else {
            known.reason = conflict(replicas, more);
        }
    } else if offered.rank() > known.rank() {
        *known = offered;
    }
}

fn conflict(used: &[Arc<Replica>], unused: &[Arc<Replica>]) -> String {
    let name = |replicas: &[Arc<Replica>]| {
        let replica = replicas.first();
        replica.map(|replica| format!("service '{}' ({})", replica.stage, replica.address))
    };
    format!(
        "{} serves it with other tensors than {} and is not used",
        name(unused).unwrap_or_default(),
        name(used).unwrap_or_default()
    )
}

/// A model that one service has loaded and another has not is loaded.
fn drop_unloaded_names(merged: &mut BTreeMap<Key, Merged>) {
    let loaded: Vec<Key> = merged
        .keys()
        .filter(|(_, version)| version.is_some())
        .map(|(name, _)| (name.clone(), None))
        .collect();
    for key in loaded {
        merged.remove(&key);
    }
}
