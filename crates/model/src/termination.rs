//! Stops the run that a session is doing, from any thread.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::{HasSelectedOutputs, RunOptions};

/// Whatever an instance is running right now.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<Option<Arc<Shared>>>>);

/// The options of one run, through which another thread may end it.
struct Shared(RunOptions<HasSelectedOutputs>);

// SAFETY: `ort` withholds `Sync` because options may carry preallocated outputs that two threads
// could then write at once. The options here carry names of outputs alone, and what is done
// through a shared reference is reading those and `RunOptionsSetTerminate`, which ONNX Runtime
// documents for use from another thread than the running one.
#[expect(
    unsafe_code,
    reason = "a run can only be stopped through its options, from another thread"
)]
unsafe impl Sync for Shared {}

/// One run; when it is dropped the run is over and cannot be stopped any more.
pub(crate) struct Run {
    options: Arc<Shared>,
    running: Running,
}

impl Running {
    /// Begins a run with these options, whose outputs must not be preallocated.
    pub(crate) fn begin(&self, options: RunOptions<HasSelectedOutputs>) -> Run {
        let options = Arc::new(Shared(options));
        self.set(Some(Arc::clone(&options)));
        Run { options, running: self.clone() }
    }

    /// Ends the run there is, if there is one; it gives an error within one operator.
    pub(crate) fn terminate(&self) {
        let run = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(run) = run
            && let Err(error) = run.0.terminate()
        {
            tracing::error!("a run cannot be stopped: {error}");
        }
    }

    fn set(&self, run: Option<Arc<Shared>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = run;
    }
}

impl Deref for Run {
    type Target = RunOptions<HasSelectedOutputs>;

    fn deref(&self) -> &Self::Target {
        &self.options.0
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.running.set(None);
    }
}
