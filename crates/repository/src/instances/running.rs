//! The instances of a version that is being served, and changes of their number meanwhile.

use std::io;
use std::sync::{Arc, Weak};

use consort_config::Device;
use consort_scheduler::{PoolStage, SequenceStage, StreamingStage};
use consort_stage::{BatchBackend, Error, Result, StreamingBackend};
use consort_telemetry::Meter;
use parking_lot::Mutex;

use super::{Instances, Life, Placement, Post, Profile, Pulse, Source, active_count, placements};
use crate::kind::Backend;

/// The stage that the active instances of a version work for.
pub(crate) enum Pool {
    /// One backend is there for all callers, however many instances are asked for.
    Inline,
    Batch(Weak<PoolStage>),
    Streaming(Weak<StreamingStage>),
    Sequence(Weak<SequenceStage>),
}

/// The instances of one version while it is served.
pub(crate) struct Running {
    pool: Pool,
    meter: Arc<Meter>,
    life: Life,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// Each active instance, and its number in the pool.
    active: Vec<(Profile, usize)>,
    /// Loaded and given no requests.
    passive: Vec<(Post, Backend)>,
}

/// A change of the instances, with those that it adds loaded and warmed up.
#[derive(Default)]
pub(crate) struct Regroup {
    added: Instances,
    retired: Vec<usize>,
    retired_passive: Vec<usize>,
}

impl Running {
    /// What runs once `pool` was started with the active ones of `instances`.
    ///
    /// `life` is what the instances were made part of.
    pub(crate) fn new(pool: Pool, instances: Instances, meter: Arc<Meter>, life: Life) -> Self {
        let active = instances.profiles.into_iter().zip(0..).collect();
        let members = Members { active, passive: instances.passive };
        meter.instances(members.active.len());
        Self { pool, meter, life, members: Mutex::new(members) }
    }

    /// What tells whether any of it is left, once this is dropped.
    pub(crate) fn pulse(&self) -> Pulse {
        self.life.pulse()
    }

    /// Loads what is missing of the instances that `source` asks for, beside those that serve.
    ///
    /// `None` when they cannot be exchanged under the same queue: requests are batched otherwise
    /// on a processor than on a GPU, and somebody must be there for those that wait.
    pub(crate) fn prepare(&self, source: Source<'_>) -> Result<Option<Regroup>> {
        if matches!(self.pool, Pool::Inline) {
            return Ok(Some(Regroup::default()));
        }
        let groups = &source.model.instances;
        let mut wanted = placements(groups);
        let (retired, retired_passive) = {
            let members = self.members.lock();
            let posts = || members.active.iter().map(|(profile, _)| profile.post.clone());
            let was_gpu = posts().any(|post| post.device != Device::Cpu);
            let will_be_gpu = wanted.iter().any(|one| one.device != Device::Cpu);
            let nobody = members.active.is_empty() || active_count(groups) == 0;
            if nobody || was_gpu != will_be_gpu {
                return Ok(None);
            }
            let active = spare(posts(), &mut wanted);
            let numbers = active.into_iter().map(|index| members.active[index].1).collect();
            let passive = members.passive.iter().map(|(post, _)| post.clone());
            (numbers, spare(passive, &mut wanted))
        };
        let added = Instances::load_these(source, wanted)?;
        Ok(Some(Regroup { added, retired, retired_passive }))
    }

    /// Lets the added instances begin and the retired ones go; what waits stays in its place.
    ///
    /// Gives how many instances there were and are. Errors, with all as it was, when a thread
    /// cannot be started.
    pub(crate) fn apply(&self, regroup: Regroup) -> Result<(usize, usize)> {
        let Regroup { mut added, retired, retired_passive } = regroup;
        let mut members = self.members.lock();
        let before = members.active.len();
        let active = added.take_active(&self.life);
        let numbers = self.pool.change(active, &retired)?;
        members.active.retain(|(_, number)| !retired.contains(number));
        members.active.extend(added.profiles.into_iter().zip(numbers));
        members.active.sort_unstable_by_key(|(_, number)| *number);
        for index in retired_passive.into_iter().rev() {
            members.passive.remove(index);
        }
        members.passive.extend(added.passive);
        self.meter.instances(members.active.len());
        Ok((before, members.active.len()))
    }

    /// Opens anew, one after another, the instances that have other threads than their share of
    /// the cores is by now: each serves until the one in its place is warm. Gives how many.
    ///
    /// There is an instance with all cores afterwards, if one belongs to so many.
    /// When one cannot be opened, those that were not done yet serve on as they are.
    pub(crate) fn settle(&self, source: Source<'_>) -> Result<usize> {
        let wide = match &self.pool {
            Pool::Batch(stage) => stage.upgrade(),
            Pool::Inline | Pool::Streaming(_) | Pool::Sequence(_) => None,
        };
        let wants_wide = self.wants_wide(wide.as_deref(), source)?;
        if let Some(stage) = wide.as_ref().filter(|_| !wants_wide) {
            stage.retire_wide();
        }
        let outgrown = self.outgrown(source);
        for (post, number) in &outgrown {
            let mut places = placements(&source.model.instances);
            places.retain(|place| place.post() == *post);
            places.truncate(1);
            let added = Instances::load_these(source, places)?;
            self.apply(Regroup { added, retired: vec![*number], ..Regroup::default() })?;
        }
        if let Some(stage) = wide.filter(|stage| wants_wide && !stage.has_wide()) {
            let Backend::Batch(backend) = self.life.with(source.open_wide()?) else {
                return Err(another_kind());
            };
            stage.add_wide(backend).map_err(no_thread)?;
        }
        Ok(outgrown.len())
    }

    fn wants_wide(&self, stage: Option<&PoolStage>, source: Source<'_>) -> Result<bool> {
        let members = self.members.lock();
        let active = members.active.iter().map(|(profile, _)| profile);
        source.wants_wide(active, stage.is_some_and(PoolStage::runs_at_once))
    }

    /// The instances that have other threads than their share is.
    fn outgrown(&self, source: Source<'_>) -> Vec<(Post, usize)> {
        let share = source.share();
        let members = self.members.lock();
        let others = members
            .active
            .iter()
            .filter(|(profile, _)| profile.threads.is_some_and(|threads| threads != share));
        others.map(|(profile, number)| (profile.post.clone(), *number)).collect()
    }
}

/// The places of those posts that nobody among `wanted` needs; the others are taken from it.
fn spare(posts: impl Iterator<Item = Post>, wanted: &mut Vec<Placement<'_>>) -> Vec<usize> {
    let mut spare = Vec::new();
    for (index, post) in posts.enumerate() {
        match wanted.iter().position(|placement| placement.post() == post) {
            Some(place) => drop(wanted.remove(place)),
            None => spare.push(index),
        }
    }
    spare
}

impl Pool {
    fn change(&self, added: Vec<Backend>, retired: &[usize]) -> Result<Vec<usize>> {
        let gone = || Error::internal("the model is served no longer");
        let numbers = match self {
            Self::Inline => return Ok(Vec::new()),
            Self::Batch(stage) => stage.upgrade().ok_or_else(gone)?.change(batch(added)?, retired),
            Self::Sequence(stage) => {
                stage.upgrade().ok_or_else(gone)?.change(batch(added)?, retired)
            }
            Self::Streaming(stage) => {
                stage.upgrade().ok_or_else(gone)?.change(streaming(added)?, retired)
            }
        };
        numbers.map_err(no_thread)
    }
}

/// The error of an instance that gets no thread.
pub(crate) fn no_thread(error: io::Error) -> Error {
    Error::internal("cannot start a thread").with_source(error)
}

fn batch(backends: Vec<Backend>) -> Result<Vec<Box<dyn BatchBackend>>> {
    let each = |backend| match backend {
        Backend::Batch(backend) => Ok(backend),
        Backend::Inline(_) | Backend::Streaming(_) => Err(another_kind()),
    };
    backends.into_iter().map(each).collect()
}

fn streaming(backends: Vec<Backend>) -> Result<Vec<Box<dyn StreamingBackend>>> {
    let each = |backend| match backend {
        Backend::Streaming(backend) => Ok(backend),
        Backend::Inline(_) | Backend::Batch(_) => Err(another_kind()),
    };
    backends.into_iter().map(each).collect()
}

fn another_kind() -> Error {
    Error::internal("a further instance of the model is of another kind than those before it")
}
