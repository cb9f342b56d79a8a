//! The yardstick: servers that give back what they are sent, with nothing of Consort's in between.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use anyhow::Result;
use axum::Router;
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use consort_protocol::model_infer_response::InferOutputTensor;
use consort_protocol::{ModelInferRequest, ModelInferResponse};
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// Serves both echoes, and prints their ports: gRPC first, then HTTP.
pub(crate) fn serve() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (grpc, http) = (TcpListener::bind(anywhere).await?, TcpListener::bind(anywhere).await?);
        println!("{} {}", grpc.local_addr()?.port(), http.local_addr()?.port());
        let router = Router::new().route("/", post(|body: Bytes| async { body }));
        let http = http.tap_io(|stream| drop(stream.set_nodelay(true)));
        tokio::spawn(async { axum::serve(http, router).await });
        let grpc = TcpIncoming::from(grpc).with_nodelay(Some(true));
        Ok(Server::builder().add_service(Echo).serve_with_incoming(grpc).await?)
    })
}

/// The service's one method that is measured, wired as tonic's generated code wires it.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<ModelInferResponse, ModelInferRequest>::default();
            Ok(Grpc::new(codec).unary(ModelInfer, request).await)
        })
    }
}

struct ModelInfer;

impl UnaryService<ModelInferRequest> for ModelInfer {
    type Response = ModelInferResponse;
    type Future = BoxFuture<'static, Result<Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(echo(request.into_inner()))) })
    }
}

fn echo(request: ModelInferRequest) -> ModelInferResponse {
    let outputs = request.inputs.into_iter().map(|input| InferOutputTensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        ..InferOutputTensor::default()
    });
    ModelInferResponse {
        model_name: request.model_name,
        model_version: request.model_version,
        id: request.id,
        outputs: outputs.collect(),
        raw_output_contents: request.raw_input_contents,
        ..ModelInferResponse::default()
    }
}
