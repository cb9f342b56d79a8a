//! Finds the service of a call: inference by its name alone, the others by their routes.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use consort_protocol::grpc_inference_service_server::GrpcInferenceServiceServer;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{BoxError, Service};

use super::Grpc;

const INFERENCE: &str = "/inference.GRPCInferenceService/";

/// Every method that the gRPC front offers.
///
/// A router takes the parameters out of a path, and puts the call into boxes that fit all routes.
/// Nearly every call is for the same service, and a short one would wait for that as long as for a
/// hop of the network.
#[derive(Clone)]
pub(crate) struct Methods {
    pub(super) inference: GrpcInferenceServiceServer<Grpc>,
    pub(super) others: Routes,
}

impl<B> Service<Request<B>> for Methods
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Request<B>) -> Self::Future {
        if call.uri().path().starts_with(INFERENCE) {
            return self.inference.call(call);
        }
        self.others.call(call.map(Body::new)).boxed()
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
        ] {
            let call = Request::post(format!("/{method}"));
            let call = call.header("content-type", "application/grpc").body(Body::empty());
            let answer = methods(Arc::<Nothing>::default(), 1_000).oneshot(call.unwrap()).await;
            assert_eq!(answer.unwrap().headers()["grpc-status"], status, "{method}");
        }
    }
}
