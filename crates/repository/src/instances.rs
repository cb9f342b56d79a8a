//! Loads the instances that a model's groups ask for, each on its device with its share of the cores.

mod living;
mod running;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use consort_config::{Device, InstanceGroup, Model, RateLimiter, WIDE_INSTANCE};
use consort_scheduler::{Limiter, Need, Needs};
use consort_stage::{BatchBackend, Result};

use crate::kind::{Backend, Instance, Kind};
use crate::load::Loader;
use crate::warmup::WarmUp;

pub(crate) use living::{Life, Pulse};
pub(crate) use running::{Pool, Regroup, Running, no_thread};

/// The loaded instances of one version of a model.
#[derive(Default)]
pub(crate) struct Instances {
    /// Those that are given requests; an inline backend is one for all.
    pub(crate) active: Vec<Backend>,
    /// What each of them is for, and with what.
    profiles: Vec<Profile>,
    /// Those of `passive` groups.
    passive: Vec<(Post, Backend)>,
}

/// What an instance that is given requests was opened for, and with what.
#[derive(Clone, Debug)]
struct Profile {
    post: Post,
    /// Its share of the cores; `None` where that makes no difference to it.
    threads: Option<NonZeroUsize>,
}

/// What makes an instance another one than its neighbour in a group of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Post {
    device: Device,
    rate_limiter: RateLimiter,
    is_passive: bool,
}

/// One instance before it is loaded.
struct Placement<'a> {
    group: &'a InstanceGroup,
    /// Named as Triton names it: the group's name and a number.
    name: String,
    device: Device,
}

/// What every instance of a version of a model is loaded from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) loader: &'a Loader,
    pub(crate) kind: &'a Kind,
    /// The model's folder.
    pub(crate) folder: &'a Path,
    pub(crate) model: &'a Model,
    pub(crate) version: u64,
}

impl Source<'_> {
    /// Whether an instance beside the active ones, whose profiles these are, that has the threads
    /// of all of them is wanted: it would run a request that comes alone, and is run at once, sooner
    /// than any of them, and at times several sooner than all of them.
    fn wants_wide<'a>(
        self,
        mut active: impl Iterator<Item = &'a Profile>,
        runs_at_once: bool,
    ) -> Result<bool> {
        let Self { loader, model, .. } = self;
        let gain = active.all(|profile| profile.threads.is_some());
        let is_wanted = model.settings.switch_or(WIDE_INSTANCE, true)?;
        // Whoever limits what runs at a time has not counted on one more.
        let is_limited = loader.limiter.is_some();
        let shares = active_count(&model.instances) > 1 && self.share() < loader.cores;
        Ok(gain && runs_at_once && is_wanted && shares && !is_limited)
    }

    /// Loads that instance.
    pub(crate) fn open_wide(self) -> Result<Backend> {
        let groups = self.model.instances.iter().filter(|group| !group.is_passive);
        let device = groups.flat_map(|group| &group.devices).next().copied();
        let warm_up = WarmUp::prepare(self.model, self.folder)?;
        self.open(device.unwrap_or(Device::Cpu), self.loader.cores, &warm_up)
    }

    /// The threads of each instance that is given requests.
    fn share(self) -> NonZeroUsize {
        let active = active_count(&self.model.instances).max(1);
        NonZeroUsize::new(self.loader.cores.get() / active).unwrap_or(NonZeroUsize::MIN)
    }

    /// Loads an instance and warms it up.
    fn open(self, device: Device, threads: NonZeroUsize, warm_up: &WarmUp) -> Result<Backend> {
        let Self { kind, folder, model, version, .. } = self;
        let mut backend = (kind.load)(&Instance {
            model,
            version,
            model_folder: folder,
            version_folder: &folder.join(version.to_string()),
            device,
            threads,
        })?;
        warm_up.run(&mut backend)?;
        Ok(backend)
    }
}

impl Placement<'_> {
    fn post(&self) -> Post {
        let rate_limiter = self.group.rate_limiter.clone();
        Post { device: self.device, rate_limiter, is_passive: self.group.is_passive }
    }
}

impl Instances {
    /// Loads and warms up every instance of `model` whose folder is `folder`.
    ///
    /// The instances that are given requests share the cores: each has as many threads as there
    /// are cores for each, and at least one. Other models share the same cores and are not
    /// counted, since who is busy when is not known here.
    pub(crate) fn load(source: Source<'_>) -> Result<Self> {
        Self::load_these(source, placements(&source.model.instances))
    }

    /// Loads and warms up some of the instances of a model.
    fn load_these(source: Source<'_>, placements: Vec<Placement<'_>>) -> Result<Self> {
        let Source { loader, model, version, .. } = source;
        let mut instances = Self::default();
        if placements.is_empty() {
            return Ok(instances);
        }
        let (warm_up, share) = (WarmUp::prepare(model, source.folder)?, source.share());
        for placement in placements {
            let backend = source.open(placement.device, share, &warm_up)?;
            tracing::debug!(model = &*model.name, version, "loaded instance {}", placement.name);
            if instances.add(&placement, share, backend, loader.limiter.as_ref())? {
                break;
            }
        }
        Ok(instances)
    }

    /// Takes those that are given requests to where they are, as parts of `life`.
    pub(crate) fn take_active(&mut self, life: &Life) -> Vec<Backend> {
        let active = std::mem::take(&mut self.active).into_iter();
        active.map(|backend| life.with(backend)).collect()
    }

    /// Whether an instance beside them that has the threads of all of them is wanted.
    pub(crate) fn want_wide(&self, source: Source<'_>, runs_at_once: bool) -> Result<bool> {
        source.wants_wide(self.profiles.iter(), runs_at_once)
    }

    /// Whether those that are given requests share the cores and run the faster the more they have.
    pub(crate) fn share_cores(&self) -> bool {
        self.profiles.iter().all(|profile| profile.threads.is_some())
    }

    /// Adds a loaded instance; whether it serves everybody, so that there need be no other.
    fn add(
        &mut self,
        placement: &Placement<'_>,
        share: NonZeroUsize,
        backend: Backend,
        limiter: Option<&Arc<Limiter>>,
    ) -> Result<bool> {
        if placement.group.is_passive {
            self.passive.push((placement.post(), backend));
            return Ok(false);
        }
        let threads = backend.gains_from_threads().then_some(share);
        self.profiles.push(Profile { post: placement.post(), threads });
        let serves_everybody = matches!(backend, Backend::Inline(_));
        self.active.push(match (limiter, backend) {
            (Some(limiter), Backend::Batch(backend)) => {
                Backend::Batch(limit(limiter, placement, backend)?)
            }
            (_, backend) => {
                warn_of_no_limit(placement, &backend, limiter.is_some());
                backend
            }
        });
        Ok(serves_everybody)
    }
}

/// Every instance, in the order of the groups, their devices and their numbers.
fn placements(groups: &[InstanceGroup]) -> Vec<Placement<'_>> {
    groups.iter().flat_map(placements_of).collect()
}

/// How many instances are given requests.
fn active_count(groups: &[InstanceGroup]) -> usize {
    let active = groups.iter().filter(|group| !group.is_passive);
    active.map(|group| group.count.get() * group.devices.len()).sum()
}

fn placements_of(group: &InstanceGroup) -> Vec<Placement<'_>> {
    let on_device = |device: &Device| {
        let device = *device;
        (0..group.count.get()).map(move |number| Placement {
            group,
            name: format!("{}_{number}", group.name),
            device,
        })
    };
    group.devices.iter().flat_map(on_device).collect()
}

fn limit(
    limiter: &Arc<Limiter>,
    placement: &Placement<'_>,
    backend: Box<dyn BatchBackend>,
) -> Result<Box<dyn BatchBackend>> {
    let RateLimiter { resources, priority } = &placement.group.rate_limiter;
    let resources = resources.iter().map(|resource| Need {
        name: resource.name.clone(),
        count: resource.count,
        is_global: resource.is_global,
    });
    let device = match placement.device {
        Device::Gpu(index) => index,
        // As in Triton, a processor is device 0.
        Device::Auto | Device::Cpu => 0,
    };
    let needs = Needs { device, resources: resources.collect(), priority: *priority };
    limiter.limit(&needs, backend)
}

fn warn_of_no_limit(placement: &Placement<'_>, backend: &Backend, is_limiting: bool) {
    let why = match backend {
        Backend::Inline(_) => "runs where it is called",
        Backend::Streaming(_) => "owns its loop",
        Backend::Batch(_) => return,
    };
    if is_limiting && !placement.group.rate_limiter.resources.is_empty() {
        let group = &placement.group.name;
        tracing::warn!("`rate_limiter` of instance group {group} has no effect: its backend {why}");
    }
}

#[cfg(test)]
mod tests {
    use consort_config::Resource;
    use consort_scheduler::{Supply, Threads};
    use consort_stage::{Batch, Signature, Tensor};
    use consort_telemetry::Metrics;

    use super::*;

    /// Gives its inputs back, from a thread of its own.
    struct Echo;

    impl BatchBackend for Echo {
        fn run(&mut self, batch: Batch) -> Result<Vec<Tensor>> {
            Ok(batch.inputs)
        }
    }

    fn kind(load: fn(&Instance<'_>) -> Result<Backend>) -> Kind {
        Kind::new("fake", load)
    }

    fn group(name: &str, count: usize) -> InstanceGroup {
        InstanceGroup {
            name: name.into(),
            count: NonZeroUsize::new(count).unwrap(),
            devices: vec![Device::Cpu],
            rate_limiter: RateLimiter::default(),
            is_passive: false,
        }
    }

    fn load(
        kind: &Kind,
        groups: Vec<InstanceGroup>,
        limiter: Option<Limiter>,
    ) -> Result<Instances> {
        let loader = Loader {
            kinds: [*kind].into(),
            metrics: Metrics::new(),
            cores: NonZeroUsize::new(8).unwrap(),
            cache: None,
            limiter: limiter.map(Arc::new),
            threads: Threads::default(),
        };
        let model = &Model { instances: groups, ..Model::plain("fake", Signature::default()) };
        let (loader, folder) = (&loader, Path::new("nowhere"));
        Instances::load(Source { loader, kind, folder, model, version: 1 })
    }

    #[test]
    fn instances_are_named_by_group_and_number() {
        let two_devices =
            InstanceGroup { devices: vec![Device::Gpu(0), Device::Gpu(2)], ..group("m_1", 2) };
        let groups = [group("m_0", 1), two_devices];
        let placed = placements(&groups);
        let shown: Vec<_> = placed.iter().map(|one| (one.name.as_str(), one.device)).collect();
        assert_eq!(
            shown,
            [
                ("m_0_0", Device::Cpu),
                ("m_1_0", Device::Gpu(0)),
                ("m_1_1", Device::Gpu(0)),
                ("m_1_0", Device::Gpu(2)),
                ("m_1_1", Device::Gpu(2)),
            ]
        );
    }

    #[test]
    fn passive_instances_are_loaded_and_take_no_share_of_the_cores() {
        let kind = kind(|instance| {
            assert_eq!(instance.threads.get(), 4);
            Ok(Backend::Batch(Box::new(Echo)))
        });
        let passive = InstanceGroup { is_passive: true, ..group("m_1", 3) };
        let instances = load(&kind, vec![group("m_0", 2), passive], None).unwrap();
        assert_eq!((instances.active.len(), instances.passive.len()), (2, 3));
    }

    #[test]
    fn more_instances_than_cores_have_a_thread_each() {
        let kind = kind(|instance| {
            assert_eq!(instance.threads.get(), 1);
            Ok(Backend::Batch(Box::new(Echo)))
        });
        assert_eq!(load(&kind, vec![group("m", 9)], None).unwrap().active.len(), 9);
    }

    #[test]
    fn a_model_that_needs_more_than_there_is_is_not_loaded() {
        let resource = Resource { name: "R".into(), is_global: true, count: 6 };
        let rate_limiter = RateLimiter { resources: vec![resource], priority: 1 };
        let needy = InstanceGroup { rate_limiter, ..group("m", 1) };
        let kind = kind(|_| Ok(Backend::Batch(Box::new(Echo))));
        let supplies = vec![Supply { name: "R".into(), count: 5, device: None }];
        let error = load(&kind, vec![needy.clone()], Some(Limiter::new(supplies))).err().unwrap();
        assert!(error.message().contains("\"R\" is limited to 5"), "{error}");
        // Without the option the limits have no effect.
        assert!(load(&kind, vec![needy], None).is_ok());
    }
}
