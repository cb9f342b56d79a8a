//! The gRPC front over any set of models: the standard service with Triton's extensions.

mod at_once;
mod connection;
mod control;
mod health;
mod infer;
mod looks;
mod methods;
mod pace;
mod repository;
mod stream;
mod unary;

use std::sync::Arc;

use consort_protocol::grpc_inference_service_server::GrpcInferenceServiceServer;
use consort_protocol::{FILE_DESCRIPTOR_SET, MESSAGE_LIMIT};
use consort_repository::Models;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

pub(crate) use connection::serve_connection;
pub(crate) use methods::Methods;
use methods::Offered;
pub(crate) use pace::keep_pace;

/// The service over a set of models.
pub struct Grpc {
    models: Arc<dyn Models>,
}

impl Grpc {
    /// The service over `models`.
    pub fn new(models: Arc<dyn Models>) -> Self {
        Self { models }
    }
}

/// Inference, health and reflection; no message may have more than `max_input_size` bytes.
pub(crate) fn methods(models: Arc<dyn Models>, max_input_size: usize) -> Methods {
    let inference = GrpcInferenceServiceServer::new(Grpc::new(models.clone()))
        .max_decoding_message_size(max_input_size)
        .max_encoding_message_size(MESSAGE_LIMIT)
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
        .accept_compressed(tonic::codec::CompressionEncoding::Deflate);
    let mut routes = Routes::builder();
    routes.add_service(HealthServer::new(health::Health::new(models.clone())));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes.add_service(v1);
            routes.add_service(v1alpha);
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!("reflection is not offered: {error}");
        }
    }
    let others = routes.routes().prepare();
    Methods(Arc::new(Offered { models, limit: max_input_size, inference, others }))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::{Ipv4Addr, SocketAddr};

    use consort_protocol::ModelInferRequest;
    use consort_protocol::grpc_inference_service_client::GrpcInferenceServiceClient;
    use tokio::net::TcpListener;
    use tonic::Code;
    use tonic::codec::CompressionEncoding;

    use super::*;
    use crate::http::tests::hang;
    use crate::http::{PING_EVERY, PING_LIMIT};
    use crate::incoming::accept;
    use crate::nothing::Nothing;

    /// A front with these methods on a free port.
    async fn front(methods: Methods) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, pending(), move |stream, stopping| {
            serve_connection(stream, methods.clone(), stopping)
        }));
        address
    }

    #[tokio::test]
    async fn a_message_that_is_larger_than_allowed_is_refused() {
        let address = front(methods(Arc::<Nothing>::default(), 1_000)).await;
        let client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await;
        let mut client = client.unwrap();
        for (size, is_refused) in [(900, false), (1_000, true)] {
            let raw_input_contents = vec![vec![0; size].into()];
            let request = ModelInferRequest { raw_input_contents, ..Default::default() };
            // No model is there that would take the other.
            let code = client.model_infer(request).await.unwrap_err().code();
            assert_eq!(code == Code::OutOfRange, is_refused, "{size}: {code:?}");
        }
    }

    #[tokio::test]
    async fn compressed_or_not_a_call_reaches_its_model() {
        let address = front(methods(Arc::<Nothing>::default(), 1_000)).await;
        let client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await;
        let client = client.unwrap();
        let compressed = |encoding| client.clone().send_compressed(encoding);
        let gzip = compressed(CompressionEncoding::Gzip);
        let deflate = compressed(CompressionEncoding::Deflate);
        for mut client in [client, gzip, deflate] {
            let refused = client.model_infer(ModelInferRequest::default()).await.unwrap_err();
            assert_eq!((refused.code(), refused.message()), (Code::NotFound, "nothing is there"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_say_that_it_is_there_is_left() {
        let front = front(methods(Arc::<Nothing>::default(), 1_000));
        let after = hang(front.await).await;
        assert!((PING_EVERY + PING_LIMIT..2 * PING_EVERY).contains(&after), "{after:?}");
    }
}
