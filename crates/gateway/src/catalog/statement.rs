//! An ensemble as its configuration states it, and whether it is to be served.

use consort_config::{Draft, Model};
use consort_ensemble::Spec;
use consort_repository::{ClassLabels, Entry, Stated, UNLOADED, versions_in};
use consort_stage::Error;

/// An ensemble that is known.
#[derive(Clone)]
pub(super) struct Statement {
    wish: Wish,
    pub(super) version: u64,
    pub(super) is_optional: bool,
    /// Why its files as they are now are not what is served; empty when they are.
    pub(super) note: String,
}

#[derive(Clone)]
enum Wish {
    /// Nobody has asked for it yet.
    Unknown,
    /// Somebody has unloaded it.
    Unloaded,
    /// It is to be served; or what is wrong with its files.
    Served(Box<std::result::Result<Wanted, String>>),
}

/// What is to be served, as the files say.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) model: Model,
    /// What its own label files call the elements of its outputs.
    pub(super) labels: ClassLabels,
}

impl Statement {
    /// What `stated` says of an ensemble that is to be served; reads files.
    pub(super) fn served(stated: &Stated) -> Self {
        let model = stated.draft.clone().and_then(Draft::check);
        let model = model.map_err(|problems| problems.to_string());
        let wanted = model.and_then(|model| {
            let labels = ClassLabels::read(&model.wire, &stated.folder.path);
            let labels = labels.map_err(|error| error.message().to_owned())?;
            Ok(Wanted { model, labels })
        });
        Self::of(Wish::Served(Box::new(wanted)), stated)
    }

    /// An ensemble that nobody has asked for.
    pub(super) fn unknown(stated: &Stated) -> Self {
        Self::of(Wish::Unknown, stated)
    }

    fn of(wish: Wish, stated: &Stated) -> Self {
        // Triton wants a version folder even for an ensemble; without one it counts as 1.
        let version = versions_in(&stated.folder.path).last().copied().unwrap_or(1);
        Self { wish, version, is_optional: stated.is_optional(), note: String::new() }
    }

    /// The same once somebody has unloaded it.
    pub(super) fn unloaded(&self) -> Self {
        let wish = match self.wish {
            Wish::Unknown => Wish::Unknown,
            Wish::Unloaded | Wish::Served(_) => Wish::Unloaded,
        };
        Self { wish, note: String::new(), ..self.clone() }
    }

    /// What is to be served, or what is wrong with it; `None` when it is not to be served.
    pub(super) fn wanted(&self) -> Option<&std::result::Result<Wanted, String>> {
        match &self.wish {
            Wish::Served(wanted) => Some(wanted),
            Wish::Unknown | Wish::Unloaded => None,
        }
    }

    /// The graph to serve, if it can be read.
    pub(super) fn spec(&self) -> Option<&Spec> {
        match &self.wanted()?.as_ref().ok()?.model.scheduling {
            consort_config::Scheduling::Ensemble(spec) => Some(spec),
            _ => None,
        }
    }

    /// How an ensemble that is not to be served is listed.
    pub(super) fn entry(&self) -> Entry {
        match self.wish {
            Wish::Unloaded => {
                Entry::of_versions([(self.version, Err(Error::unavailable(UNLOADED)))])
            }
            Wish::Unknown | Wish::Served(_) => {
                Entry::of_model(consort_repository::State::Unknown, "")
            }
        }
    }
}
