//! Who may run next, among instances that need some of what there is not enough of.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use consort_stage::{Error, Result};

use super::{Needs, Supply};

/// One instance among those that share resources.
pub(super) type Id = u64;

/// A resource: of one device, or of all together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Resource {
    name: Arc<str>,
    device: Option<u32>,
}

/// The instances, what they need and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    supplies: Vec<Supply>,
    members: BTreeMap<Id, Member>,
    /// Those that wait, in the order of their coming.
    waiting: Vec<Id>,
    running: BTreeSet<Id>,
    used: HashMap<Resource, u64>,
    last_id: Id,
}

#[derive(Debug)]
struct Member {
    needs: HashMap<Resource, u64>,
    weight: u64,
    /// How often it ran, each time counting as its weight.
    ran: u64,
}

impl Turns {
    pub(super) fn new(supplies: Vec<Supply>) -> Self {
        Self { supplies, ..Self::default() }
    }

    /// Adds an instance; refused when it could never run, with Triton's text.
    pub(super) fn join(&mut self, needs: &Needs) -> Result<Id> {
        let resources: HashMap<Resource, u64> = needs
            .resources
            .iter()
            .map(|need| {
                let device = (!need.is_global).then_some(needs.device);
                (Resource { name: need.name.clone(), device }, u64::from(need.count))
            })
            .collect();
        for (resource, count) in &resources {
            self.check(resource, *count)?;
        }
        // As often as the one that ran least, so that it does not keep all others waiting until
        // it has caught up.
        let ran = self.members.values().map(|member| member.ran).min().unwrap_or(0);
        let weight = u64::from(needs.priority.max(1));
        self.last_id += 1;
        self.members.insert(self.last_id, Member { needs: resources, weight, ran });
        Ok(self.last_id)
    }

    fn check(&self, resource: &Resource, count: u64) -> Result<()> {
        let Resource { name, device } = resource;
        let mut taken = self.members.values().flat_map(|member| member.needs.keys());
        if taken.any(|other| other.name == *name && other.device.is_some() != device.is_some()) {
            return Err(Error::invalid(format!(
                "Resource \"{name}\" is present as both global and device-specific resource in \
                 the model configuration."
            )));
        }
        match self.stated(resource) {
            Some(limit) if limit < count => Err(Error::invalid(format!(
                "Resource count for \"{name}\" is limited to {limit} which will prevent \
                 scheduling of one or more model instances, the minimum required count is {count}"
            ))),
            _ => Ok(()),
        }
    }

    /// How much there is by what was stated; nothing of what was not, once anything was.
    fn stated(&self, resource: &Resource) -> Option<u64> {
        if self.supplies.is_empty() {
            return None;
        }
        let is_for = |supply: &&Supply| {
            let anywhere = resource.device.is_none() || supply.device.is_none();
            supply.name == resource.name && (anywhere || supply.device == resource.device)
        };
        let counts = self.supplies.iter().filter(is_for).map(|supply| u64::from(supply.count));
        Some(counts.max().unwrap_or(0))
    }

    /// How much there is: what was stated, or else as much as the most needy instance needs.
    fn total(&self, resource: &Resource) -> u64 {
        self.stated(resource).unwrap_or_else(|| {
            let needs = self.members.values().filter_map(|member| member.needs.get(resource));
            needs.copied().max().unwrap_or(0)
        })
    }

    /// Removes an instance, which neither waits nor runs.
    pub(super) fn leave(&mut self, id: Id) {
        self.members.remove(&id);
    }

    /// Waits for a turn from now on.
    pub(super) fn ask(&mut self, id: Id) {
        self.waiting.push(id);
        self.advance();
    }

    /// Waits no longer; whether it did wait.
    pub(super) fn withdraw(&mut self, id: Id) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != id);
        self.advance();
        self.waiting.len() < before
    }

    pub(super) fn is_waiting(&self, id: Id) -> bool {
        self.waiting.contains(&id)
    }

    /// Whether its turn has come.
    pub(super) fn is_running(&self, id: Id) -> bool {
        self.running.contains(&id)
    }

    /// Gives back what an instance took for its turn.
    pub(super) fn end(&mut self, id: Id) {
        if !self.running.remove(&id) {
            return;
        }
        for (resource, count) in &self.members[&id].needs {
            if let Some(used) = self.used.get_mut(resource) {
                *used -= count;
            }
        }
        self.advance();
    }

    /// Gives a turn to everyone who may have one now.
    ///
    /// Those that ran least come first. What one of them cannot yet have is kept for it, so that
    /// a needy instance is not passed by modest ones forever.
    fn advance(&mut self) {
        let mut order = self.waiting.clone();
        // Stable, so that equals go in the order of their coming.
        order.sort_by_key(|id| self.members[id].ran);
        let mut kept: HashSet<Resource> = HashSet::new();
        for id in order {
            let needs = &self.members[&id].needs;
            let fits = |(resource, count): (&Resource, &u64)| {
                let used = self.used.get(resource).copied().unwrap_or(0);
                !kept.contains(resource) && used + count <= self.total(resource)
            };
            if needs.iter().all(fits) {
                self.begin(id);
            } else {
                kept.extend(needs.keys().cloned());
            }
        }
    }

    fn begin(&mut self, id: Id) {
        self.waiting.retain(|waiting| *waiting != id);
        self.running.insert(id);
        let Some(member) = self.members.get_mut(&id) else { return };
        member.ran += member.weight;
        for (resource, count) in &member.needs {
            *self.used.entry(resource.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Need;
    use super::*;

    fn needs(priority: u32, resources: &[(&str, u32)]) -> Needs {
        let need = |(name, count): &(&str, u32)| Need {
            name: (*name).into(),
            count: *count,
            is_global: name.starts_with("global"),
        };
        Needs { device: 0, priority, resources: resources.iter().map(need).collect() }
    }

    fn supply(name: &str, count: u32, device: Option<u32>) -> Supply {
        Supply { name: name.into(), count, device }
    }

    fn running(turns: &Turns) -> Vec<Id> {
        turns.running.iter().copied().collect()
    }

    #[test]
    fn there_is_as_much_as_the_most_needy_instance_needs() {
        let mut turns = Turns::default();
        let [one, two, large] =
            [2, 2, 4].map(|count| turns.join(&needs(1, &[("R", count)])).unwrap());
        for id in [one, two, large] {
            turns.ask(id);
        }
        assert_eq!(running(&turns), [one, two]);
        turns.end(one);
        assert_eq!(running(&turns), [two]);
        turns.end(two);
        assert_eq!(running(&turns), [large]);
    }

    #[test]
    fn a_needy_instance_is_not_passed_by_modest_ones() {
        let mut turns = Turns::default();
        let [large, one, two] =
            [2, 1, 1].map(|count| turns.join(&needs(1, &[("R", count)])).unwrap());
        turns.ask(one);
        turns.ask(large);
        turns.ask(two);
        assert_eq!(running(&turns), [one]);
        turns.end(one);
        assert_eq!(running(&turns), [large]);
        turns.end(large);
        assert_eq!(running(&turns), [two]);
    }

    #[test]
    fn who_needs_something_else_does_not_wait() {
        let mut turns = Turns::default();
        let r = turns.join(&needs(1, &[("R", 1)])).unwrap();
        let both = turns.join(&needs(1, &[("R", 1), ("S", 1)])).unwrap();
        let s = turns.join(&needs(1, &[("S", 1)])).unwrap();
        let nothing = turns.join(&needs(1, &[])).unwrap();
        for id in [r, both, s, nothing] {
            turns.ask(id);
        }
        assert_eq!(running(&turns), [r, nothing]);
        turns.withdraw(both);
        assert_eq!(running(&turns), [r, s, nothing]);
    }

    #[test]
    fn priority_two_has_half_the_turns_of_priority_one() {
        let mut turns = Turns::default();
        let [often, seldom] =
            [1, 2].map(|priority| turns.join(&needs(priority, &[("R", 1)])).unwrap());
        let mut ran = BTreeMap::from([(often, 0), (seldom, 0)]);
        turns.ask(often);
        turns.ask(seldom);
        for _ in 0..300 {
            let id = running(&turns)[0];
            *ran.get_mut(&id).unwrap() += 1;
            // It asks again before the others have a turn.
            turns.waiting.push(id);
            turns.end(id);
        }
        assert_eq!((ran[&often], ran[&seldom]), (200, 100));
    }

    #[test]
    fn an_instance_that_comes_late_has_no_arrears_to_claim() {
        let mut turns = Turns::default();
        let old = turns.join(&needs(1, &[("R", 1)])).unwrap();
        for _ in 0..10 {
            turns.ask(old);
            turns.end(old);
        }
        let new = turns.join(&needs(1, &[("R", 1)])).unwrap();
        turns.ask(new);
        turns.ask(old);
        turns.waiting.push(new);
        turns.end(new);
        assert_eq!(running(&turns), [old]);
    }

    #[test]
    fn devices_have_their_own_and_share_what_is_global() {
        let mut turns = Turns::default();
        let on = |device, resource| Needs { device, ..needs(1, &[(resource, 1)]) };
        let ids = [on(0, "R"), on(1, "R"), on(0, "global"), on(1, "global")];
        let ids = ids.map(|needs| turns.join(&needs).unwrap());
        for id in ids {
            turns.ask(id);
        }
        assert_eq!(running(&turns), ids[..3]);
    }

    #[test]
    fn what_is_stated_counts_and_what_can_never_run_is_refused() {
        let mut turns = Turns::new(vec![supply("R", 4, None), supply("R", 8, Some(1))]);
        let text = |count: u32, name: &str, limit: u32| {
            format!(
                "Resource count for \"{name}\" is limited to {limit} which will prevent \
                 scheduling of one or more model instances, the minimum required count is {count}"
            )
        };
        let refused =
            |turns: &mut Turns, needs: &Needs| turns.join(needs).unwrap_err().message().to_owned();
        assert_eq!(refused(&mut turns, &needs(1, &[("R", 5)])), text(5, "R", 4));
        assert!(turns.join(&Needs { device: 1, ..needs(1, &[("R", 8)]) }).is_ok());
        // Once anything is stated, there is nothing of what is not.
        assert_eq!(refused(&mut turns, &needs(1, &[("S", 1)])), text(1, "S", 0));
        let [one, two] = [4, 1].map(|count| turns.join(&needs(1, &[("R", count)])).unwrap());
        turns.ask(one);
        turns.ask(two);
        assert_eq!(running(&turns), [one]);
    }

    #[test]
    fn a_resource_is_global_for_all_or_for_none() {
        let mut turns = Turns::default();
        turns.join(&needs(1, &[("global", 1)])).unwrap();
        let mut local = needs(1, &[("global", 1)]);
        local.resources[0].is_global = false;
        let error = turns.join(&local).unwrap_err();
        assert!(error.message().contains("both global and device-specific"), "{error}");
    }
}
