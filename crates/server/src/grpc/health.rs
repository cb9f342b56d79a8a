//! The standard gRPC health service: serving means that every model is ready.

use std::pin::Pin;
use std::sync::Arc;

use consort_repository::Models;
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

/// The health of a server; the service's name in a request is not looked at, as with Triton.
pub(super) struct Health {
    models: Arc<dyn Models>,
}

impl Health {
    /// The health of a server over `models`.
    pub(super) fn new(models: Arc<dyn Models>) -> Self {
        Self { models }
    }
}

fn status(models: &dyn Models) -> HealthCheckResponse {
    let status = if models.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(status(&*self.models)))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let models = self.models.clone();
        let changes = WatchStream::new(models.generation());
        Ok(Response::new(Box::pin(changes.map(move |_| Ok(status(&*models))))))
    }
}
