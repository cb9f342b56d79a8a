//! A gate that holds calls back until a test lets them through.

use std::sync::Arc;

use consort_stage::{Request, Responses, Stage};
use futures::FutureExt;
use tokio::sync::Semaphore;

/// Holds calls back; clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A gate that lets nobody through.
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets the next `calls` calls through.
    pub fn pass(&self, calls: usize) {
        self.0.add_permits(calls);
    }

    /// Lets every call through.
    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Waits until it is let through.
    pub async fn wait(&self) {
        self.0.acquire().await.expect("the gate is never taken down").forget();
    }

    /// `inner` behind this gate.
    pub fn before(&self, inner: Arc<dyn Stage>) -> Arc<dyn Stage> {
        Arc::new(Gated { gate: self.clone(), inner })
    }
}

struct Gated {
    gate: Gate,
    inner: Arc<dyn Stage>,
}

impl Stage for Gated {
    fn call(&self, request: Request) -> Responses {
        let (gate, inner) = (self.gate.clone(), self.inner.clone());
        let opened = async move {
            gate.wait().await;
            inner.call(request)
        };
        Box::pin(opened.flatten_stream())
    }
}
