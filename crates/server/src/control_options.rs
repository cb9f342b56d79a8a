//! The options that say which models are loaded, when, and by whose word.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use consort_repository::{AtStart, ControlMode, LOAD_THREADS};

/// Which models are loaded.
#[derive(Args, Clone, Debug)]
pub struct ControlOptions {
    /// What decides which models are loaded
    #[arg(long, env = "CONSORT_MODEL_CONTROL_MODE", value_enum, default_value_t = Mode::None)]
    pub model_control_mode: Mode,

    /// Model to load at the start in mode `explicit`, with the models it calls; `*` for all; repeatable, in the variable separated by commas
    #[arg(long, env = "CONSORT_LOAD_MODEL", value_delimiter = ',', value_name = "NAME")]
    pub load_model: Vec<String>,

    /// Seconds from one look at the repositories to the next in mode `poll`
    #[arg(
        long,
        env = "CONSORT_REPOSITORY_POLL_SECS",
        default_value = "15",
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "SECONDS"
    )]
    pub repository_poll_secs: u64,

    /// Whether the program ends when a model cannot be loaded at the start
    #[arg(long, env = "CONSORT_EXIT_ON_ERROR", default_value_t = false, value_name = "BOOL",
          action = clap::ArgAction::Set)]
    pub exit_on_error: bool,

    /// How many models are loaded at the same time
    #[arg(
        long,
        env = "CONSORT_MODEL_LOAD_THREAD_COUNT",
        default_value_t = LOAD_THREADS,
        value_name = "COUNT"
    )]
    pub model_load_thread_count: NonZeroUsize,
}

/// What decides which models are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// All of them are, once, at the start
    None,
    /// The repositories, which are looked at again and again
    Poll,
    /// The callers of `load` and `unload`
    Explicit,
}

impl ControlOptions {
    /// The same in the words of the repository; errors for options that contradict one another.
    pub fn mode(&self) -> Result<ControlMode> {
        // A variable that is set to nothing names nothing.
        let names: BTreeSet<String> =
            self.load_model.iter().filter(|name| !name.is_empty()).cloned().collect();
        if self.model_control_mode != Mode::Explicit && !names.is_empty() {
            bail!("`--load-model` is for `--model-control-mode=explicit` alone");
        }
        let has_all = names.contains("*");
        if has_all && names.len() > 1 {
            bail!("`--load-model=*` loads every model, so no other may be named beside it");
        }
        Ok(match self.model_control_mode {
            Mode::None => ControlMode::None,
            Mode::Poll => {
                ControlMode::Poll { every: Duration::from_secs(self.repository_poll_secs) }
            }
            Mode::Explicit if has_all => ControlMode::Explicit { at_start: AtStart::All },
            Mode::Explicit => ControlMode::Explicit { at_start: AtStart::Named(names) },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        control: ControlOptions,
    }

    fn mode(arguments: &[&str]) -> Result<ControlMode> {
        Program::parse_from([&["program"], arguments].concat()).control.mode()
    }

    #[test]
    fn options_that_contradict_one_another_are_refused() {
        assert_eq!(mode(&[]).unwrap(), ControlMode::None);
        assert_eq!(mode(&["--load-model="]).unwrap(), ControlMode::None);
        assert!(mode(&["--load-model=a"]).is_err());
        let explicit = "--model-control-mode=explicit";
        assert!(mode(&[explicit, "--load-model=*", "--load-model=a"]).is_err());
        assert_eq!(
            mode(&[explicit, "--load-model=*"]).unwrap(),
            ControlMode::Explicit { at_start: AtStart::All }
        );
        assert_eq!(
            mode(&[explicit, "--load-model=a", "--load-model=b"]).unwrap(),
            ControlMode::Explicit { at_start: AtStart::Named(["a".into(), "b".into()].into()) }
        );
        let every = Duration::from_secs(3);
        let poll = ["--model-control-mode=poll", "--repository-poll-secs=3"];
        assert_eq!(mode(&poll).unwrap(), ControlMode::Poll { every });
    }
}
