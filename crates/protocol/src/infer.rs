//! `ModelInfer` for a caller that gives the message away only when it is sent.

use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::{Body as HttpBody, StdError, http};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::{ModelInferRequest, ModelInferResponse};

const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Calls `ModelInfer` with the one message of a stream, which is taken when the connection is
/// there; the generated method wants the message itself, and it is gone when nothing was sent.
pub async fn infer<T>(
    grpc: &mut Grpc<T>,
    message: Request<impl Stream<Item = ModelInferRequest> + Send + 'static>,
) -> Result<Response<ModelInferResponse>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: HttpBody + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError>,
{
    grpc.client_streaming(message, PathAndQuery::from_static(PATH), ProstCodec::default()).await
}
