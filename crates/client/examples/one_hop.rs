//! Measures what a call to a far stage costs, beside the same call made with the bare gRPC client.
//!
//! `cargo run --release -p consort-client --example one_hop`

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_client::{Fleet, FleetOptions};
use consort_protocol::ModelInferRequest;
use consort_protocol::grpc_inference_service_client::GrpcInferenceServiceClient;
use consort_repository::Models;
use consort_stage::{Request, Stage, Tensor, collect_one};
use consort_telemetry::Metrics;
use tonic::transport::Channel;

#[path = "../tests/fleet/fake.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "written for the tests")]
mod fake;

const ROUNDS: usize = 10;
const CALLS: usize = 2_000;

fn request() -> Request {
    Request { inputs: vec![Tensor::from_vec("x", &[16], vec![1_i32; 16])], ..Request::default() }
}

async fn far(stage: &dyn Stage) -> Duration {
    let start = Instant::now();
    collect_one(stage.call(request())).await.expect("the stage answers");
    start.elapsed()
}

async fn bare(client: &mut GrpcInferenceServiceClient<Channel>) -> Duration {
    let start = Instant::now();
    let message = ModelInferRequest::of("echo", Some(1), request());
    let request = futures::stream::iter([message]);
    let response = client.model_stream_infer(request).await.expect("it answers");
    let mut messages = response.into_inner();
    while let Some(message) = messages.message().await.expect("it answers") {
        let response = message.infer_response.unwrap_or_default();
        response.into_response().expect("a response");
    }
    start.elapsed()
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let fake = fake::Fake::start(&["echo"]);
    let stages = vec![format!("model={}", fake.address).parse().expect("an address")];
    let fleet = Fleet::start(stages, FleetOptions::new(Metrics::new()));
    let mut generation = fleet.generation();
    generation.wait_for(|_| fleet.is_ready()).await.expect("the fleet lives");
    let stage = Arc::clone(&fleet.get("echo", None).expect("it is ready").stage);
    let channel = Channel::from_shared(format!("http://{}", fake.address)).expect("an address");
    let channel = channel.tcp_nodelay(true).connect().await.expect("it listens");
    let mut client = GrpcInferenceServiceClient::new(channel);
    let (mut through_stage, mut through_client) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..CALLS {
            through_stage.push(far(&*stage).await);
        }
        for _ in 0..CALLS {
            through_client.push(bare(&mut client).await);
        }
    }
    writeln!(
        std::io::stdout(),
        "p50 of one call: far stage {:?}, bare gRPC client {:?}",
        median(&mut through_stage),
        median(&mut through_client)
    )
    .expect("stdout is open");
}
