//! Sees which models of a repository have changed since the last look.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use consort_stage::Result;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::folder::models_in;
use crate::stamp::Stamp;

/// The models at the last look.
#[derive(Clone, Debug, Default)]
pub struct Watching {
    repositories: Vec<PathBuf>,
    seen: BTreeMap<Arc<str>, Vec<Stamp>>,
}

/// What has changed from one look to the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The models that have come or whose files are not the same.
    pub changed: Vec<Arc<str>>,
    /// The models that have gone.
    pub gone: Vec<Arc<str>>,
}

/// Looks again and again, once in each period.
#[derive(Debug)]
pub struct Rounds {
    watching: Watching,
    ticks: Interval,
    is_first: bool,
}

impl Watching {
    /// Begins with the models as they are now.
    pub fn begin(repositories: &[PathBuf]) -> Result<Self> {
        let seen = look(repositories)?;
        Ok(Self { repositories: repositories.to_vec(), seen })
    }

    /// Looks again; each difference is told once.
    pub fn look(&mut self) -> Result<Changes> {
        let now = look(&self.repositories)?;
        let before = std::mem::replace(&mut self.seen, now);
        let differs =
            |(name, stamps): &(&Arc<str>, &Vec<Stamp>)| before.get(*name) != Some(*stamps);
        Ok(Changes {
            changed: self.seen.iter().filter(differs).map(|(name, _)| name.clone()).collect(),
            gone: before.into_keys().filter(|name| !self.seen.contains_key(name)).collect(),
        })
    }
}

impl Watching {
    /// Looks once in `period`, for the first time when one is over. Must be called in a runtime.
    pub fn every(self, period: Duration) -> Rounds {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Rounds { watching: self, ticks, is_first: true }
    }
}

impl Rounds {
    /// Waits until it is time to look.
    pub async fn due(&mut self) {
        if std::mem::take(&mut self.is_first) {
            // The first tick comes at once, and what there was at the start is known.
            self.ticks.tick().await;
        }
        self.ticks.tick().await;
    }

    /// Looks, on a thread where reading files holds up nobody; `None` once the runtime ends.
    pub async fn look(&mut self) -> Option<Result<Changes>> {
        let mut watching = std::mem::take(&mut self.watching);
        let looked = tokio::task::spawn_blocking(move || {
            let changes = watching.look();
            (watching, changes)
        });
        let (watching, changes) = looked.await.ok()?;
        self.watching = watching;
        Some(changes)
    }
}

fn look(repositories: &[PathBuf]) -> Result<BTreeMap<Arc<str>, Vec<Stamp>>> {
    let mut seen: BTreeMap<Arc<str>, Vec<Stamp>> = BTreeMap::new();
    for repository in repositories {
        for folder in models_in(repository)? {
            let stamp = Stamp::of_folder(&folder.path, |_| false);
            seen.entry(folder.name.as_str().into()).or_default().push(stamp);
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_model_that_comes_changes_or_goes_is_told_once() {
        let repository = tempfile::tempdir().unwrap();
        let model = repository.path().join("m");
        let mut watching = Watching::begin(&[repository.path().to_owned()]).unwrap();
        let (changed, nothing) =
            (Changes { changed: vec!["m".into()], gone: Vec::new() }, Changes::default());
        fs::create_dir_all(model.join("1")).unwrap();
        assert_eq!(watching.look().unwrap(), changed);
        assert_eq!(watching.look().unwrap(), nothing);
        fs::write(model.join("config.pbtxt"), "max_batch_size: 1").unwrap();
        assert_eq!(watching.look().unwrap(), changed);
        assert_eq!(watching.look().unwrap(), nothing);
        fs::remove_dir_all(&model).unwrap();
        assert_eq!(watching.look().unwrap(), Changes { gone: vec!["m".into()], ..nothing });
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_no_repository_without_models() {
        let repository = tempfile::tempdir().unwrap();
        fs::create_dir_all(repository.path().join("m/1")).unwrap();
        let mut watching = Watching::begin(&[repository.path().to_owned()]).unwrap();
        let path = repository.path().to_owned();
        drop(repository);
        assert!(watching.look().is_err());
        fs::create_dir_all(path.join("m/1")).unwrap();
        assert_eq!(watching.look().unwrap(), Changes::default());
        fs::remove_dir_all(path).unwrap();
    }
}
