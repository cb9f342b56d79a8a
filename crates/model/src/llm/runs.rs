//! What the runs of a decoder are told: which adapter takes part, and that they end when nobody
//! wants what they compute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use consort_stage::{Error, Result};
use ort::session::RunOptions;

use super::adapters::{AdapterId, Adapters};
use super::caller::Caller;

/// The options of the run that is being done, and of those that could be.
pub(crate) struct Runs {
    /// Those without an adapter; `None` in tests, which have no library to make them with.
    plain: Option<Arc<RunOptions>>,
    adapters: Adapters,
    current: Mutex<Current>,
}

/// A run, or none.
#[derive(Default)]
struct Current {
    options: Option<Arc<RunOptions>>,
    /// The adapter in the options.
    adapter: AdapterId,
    /// Whose tokens are computed; nobody's between two runs.
    callers: Vec<Arc<Caller>>,
    is_terminated: bool,
}

impl Runs {
    /// Runs with one of some adapters, or without any.
    pub(crate) fn new(adapters: Adapters) -> Result<Self> {
        let plain = RunOptions::new()
            .map_err(|error| Error::internal(format!("runs cannot be given options: {error}")))?;
        Ok(Self { plain: Some(Arc::new(plain)), adapters, current: Mutex::default() })
    }

    /// Runs without options.
    #[cfg(test)]
    pub(crate) fn bare() -> Self {
        Self { plain: None, adapters: Adapters::default(), current: Mutex::default() }
    }

    /// The adapters that there are.
    pub(crate) fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// Begins a run with an adapter, for some callers.
    pub(crate) fn begin(&self, adapter: AdapterId, callers: impl Iterator<Item = Arc<Caller>>) {
        let mut current = self.current();
        current.adapter = adapter;
        current.options = self.adapters.options(adapter).or(self.plain.as_ref()).cloned();
        current.callers.extend(callers);
        // One that left before it was listed has told nobody that it was among the last.
        current.terminate_if_unwanted();
    }

    /// Ends it, however it ended.
    pub(crate) fn end(&self) {
        let mut current = self.current();
        current.callers.clear();
        current.restore();
    }

    /// Stops the run there is when nobody waits for it any more; it gives an error within one
    /// operator. Called from any thread whenever somebody has left.
    pub(crate) fn interrupt(&self) {
        self.current().terminate_if_unwanted();
    }

    /// Puts other options in the place of those of the run that has begun, which has no adapter.
    pub(crate) fn adopt(&self, options: &Arc<RunOptions>) {
        let mut current = self.current();
        current.restore();
        current.options = Some(Arc::clone(options));
        current.terminate_if_unwanted();
    }

    /// The options of the run that has begun, and whether an adapter is in them.
    pub(crate) fn options(&self) -> Result<(Arc<RunOptions>, bool), ort::Error> {
        let current = self.current();
        let options = current.options.clone();
        let options = options.ok_or_else(|| ort::Error::new("a run was not begun"))?;
        Ok((options, current.adapter.is_some()))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// Makes the options fit for another run.
    fn restore(&mut self) {
        if std::mem::take(&mut self.is_terminated)
            && let Some(options) = &self.options
            && let Err(error) = options.unterminate()
        {
            tracing::error!("a stopped run cannot be followed by another: {error}");
        }
    }

    fn terminate_if_unwanted(&mut self) {
        let is_wanted = self.callers.is_empty() || self.callers.iter().any(|it| !it.is_gone());
        if is_wanted || self.is_terminated {
            return;
        }
        match self.options.as_ref().map(|options| options.terminate()) {
            Some(Ok(())) => self.is_terminated = true,
            Some(Err(error)) => tracing::error!("a run cannot be stopped: {error}"),
            None => {}
        }
    }
}
