//! Requests that are run where they are called, as their work is no longer than a change of thread.

use std::sync::{Arc, Weak};

use consort_stage::Request;
use parking_lot::Mutex;

use super::instance::Instance;
use crate::batching::{Manner, Rules};
use crate::queue::Queue;

/// The instances that run brief requests for their callers, while they are free.
pub(super) struct Brief {
    /// Whether each request runs by itself and may overtake others.
    runs_alone: bool,
    instances: Mutex<Vec<(usize, Weak<Mutex<Instance>>)>>,
}

impl Brief {
    pub(super) fn new(rules: &Rules) -> Self {
        let runs_alone = rules.manner == Manner::Alone && !rules.preserves_order;
        Self { runs_alone, instances: Mutex::default() }
    }

    /// Adds an instance to which requests of so many bytes are brief, until its thread has ended.
    pub(super) fn add(&self, bytes: usize, instance: &Arc<Mutex<Instance>>) {
        if self.runs_alone && bytes > 0 {
            let mut instances = self.instances.lock();
            instances.retain(|(_, instance)| instance.strong_count() > 0);
            instances.push((bytes, Arc::downgrade(instance)));
        }
    }

    /// The instance for a request, where it is brief and nobody waits before it.
    pub(super) fn takes(&self, request: &Request, queue: &Queue) -> Option<Arc<Mutex<Instance>>> {
        if !self.runs_alone {
            return None;
        }
        let instances = self.instances.lock();
        if instances.is_empty() || queue.rules().layout.rows(request) > 1 {
            return None;
        }
        let bytes: usize = request.inputs.iter().map(|tensor| tensor.data.len()).sum();
        let mut brief = instances.iter().filter(|(most, _)| bytes <= *most);
        let free = brief.find_map(|(_, one)| one.upgrade().filter(|one| !one.is_locked()))?;
        drop(instances);
        queue.is_empty().then_some(free)
    }
}
