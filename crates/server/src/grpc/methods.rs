//! Finds the service of a call: inference by its name alone, the others by their routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use consort_protocol::grpc_inference_service_server::GrpcInferenceServiceServer;
use consort_repository::Models;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{BoxError, Service};

use super::Grpc;
use super::unary::{self, Answer};

const INFERENCE: &str = "/inference.GRPCInferenceService/";
const MODEL_INFER: &str = "ModelInfer";

/// Every method that the gRPC front offers.
///
/// A router takes the parameters out of a path, and puts the call into boxes that fit all routes.
/// Nearly every call is for the same service, and a short one would wait for that as long as for a
/// hop of the network.
#[derive(Clone)]
pub(crate) struct Methods(pub(super) Arc<Offered>);

/// What is shared by the clones, of which every call gets one.
pub(super) struct Offered {
    pub(super) models: Arc<dyn Models>,
    /// The most bytes that a message may have.
    pub(super) limit: usize,
    pub(super) inference: GrpcInferenceServiceServer<Grpc>,
    pub(super) others: Routes,
}

impl<B> Service<Request<B>> for Methods
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send + 'static,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<B>) -> Self::Future {
        let offered = &self.0;
        let routed = match call.uri().path().strip_prefix(INFERENCE) {
            Some(MODEL_INFER) if unary::is_plain(call.headers()) => {
                let offered = offered.clone();
                return Box::pin(async move {
                    Ok(unary::answer(&*offered.models, offered.limit, call).await)
                });
            }
            Some(_) => offered.inference.clone().call(call),
            None => offered.others.clone().call(call.map(Body::new)).boxed(),
        };
        routed.map_ok(|answer| answer.map(Answer::Routed)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tower::ServiceExt;

    use crate::grpc::methods;
    use crate::nothing::Nothing;

    use super::*;

    #[tokio::test]
    async fn what_is_no_method_is_unimplemented_whichever_service_it_names() {
        for (method, status) in [
            ("inference.GRPCInferenceService/Nothing", "12"),
            ("inference.Nothing/ModelInfer", "12"),
            ("nothing", "12"),
            // This one is there, and was given no message.
            ("inference.GRPCInferenceService/ModelInfer", "13"),
            ("inference.GRPCInferenceService/ModelInfer/", "12"),
        ] {
            let call = Request::post(format!("/{method}"));
            let call = call.header("content-type", "application/grpc").body(Body::empty());
            let answer = methods(Arc::<Nothing>::default(), 1_000).oneshot(call.unwrap()).await;
            assert_eq!(answer.unwrap().headers()["grpc-status"], status, "{method}");
        }
    }
}
