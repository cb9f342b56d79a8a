//! The instances of a stage by their numbers, as they come and go.

use std::collections::BTreeMap;
use std::io;

/// The instances that are there, each under a number of its own.
#[derive(Debug)]
pub(crate) struct Roster<M>(BTreeMap<usize, M>);

impl<M> Default for Roster<M> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<M> Roster<M> {
    /// Adds what `start` makes of each of `added`, under the lowest number that nobody has, and
    /// then takes out those that are `retired`.
    ///
    /// Gives the numbers of the added ones, and whoever is to go now. When one cannot be started,
    /// these are the ones that were added before it, and all is as it was.
    pub(crate) fn change<B>(
        &mut self,
        added: Vec<B>,
        retired: &[usize],
        start: impl Fn(usize, B) -> io::Result<M>,
    ) -> (io::Result<Vec<usize>>, Vec<M>) {
        let mut numbers = Vec::with_capacity(added.len());
        for backend in added {
            let number = self.vacant();
            match start(number, backend) {
                Ok(member) => drop(self.0.insert(number, member)),
                Err(error) => return (Err(error), self.take(&numbers)),
            }
            numbers.push(number);
        }
        (Ok(numbers), self.take(retired))
    }

    /// Everybody, in the order of their numbers.
    pub(crate) fn members(&self) -> impl Iterator<Item = &M> {
        self.0.values()
    }

    fn take(&mut self, numbers: &[usize]) -> Vec<M> {
        numbers.iter().filter_map(|number| self.0.remove(number)).collect()
    }

    /// The lowest number that nobody has.
    fn vacant(&self) -> usize {
        let mut taken = self.0.keys().zip(0..);
        taken.find(|(number, place)| *number != place).map_or(self.0.len(), |(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_has_the_lowest_free_number_and_a_failure_changes_nothing() {
        let mut roster = Roster::default();
        let start = |number: usize, name: &'static str| match name {
            "broken" => Err(io::Error::other("no thread")),
            name => Ok((number, name)),
        };
        let (numbers, gone) = roster.change(vec!["a", "b", "c"], &[], start);
        assert_eq!((numbers.unwrap(), gone), (vec![0, 1, 2], vec![]));
        let (numbers, gone) = roster.change(vec!["d"], &[1, 7], start);
        assert_eq!((numbers.unwrap(), gone), (vec![3], vec![(1, "b")]));
        let (numbers, gone) = roster.change(vec!["e", "broken", "f"], &[0], start);
        assert!(numbers.is_err());
        assert_eq!(gone, [(1, "e")]);
        let members: Vec<_> = roster.members().copied().collect();
        assert_eq!(members, [(0, "a"), (2, "c"), (3, "d")]);
    }
}
