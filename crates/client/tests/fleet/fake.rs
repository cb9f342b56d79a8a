//! A service that behaves as its models' names say, on a port and a runtime of its own.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use consort_protocol::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use consort_protocol::repository_index_response::ModelIndex;
use consort_protocol::{
    DataType as WireType, InferStatistics, ModelConfig, ModelInferRequest, ModelInferResponse,
    ModelInput, ModelOutput, ModelStatistics, ModelStreamInferResponse, ModelTransactionPolicy,
    StatisticDuration, to_status,
};
use consort_protocol::{
    ModelConfigRequest, ModelConfigResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
    ServerReadyRequest, ServerReadyResponse,
};
use consort_stage::{Code, Error, Request as Asked, Response as Answer, Tensor};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// A running service; dropping it kills it, open connections and all.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<FakeState>,
    runtime: Option<Runtime>,
}

/// What a test sets and reads.
pub(crate) struct FakeState {
    pub(crate) is_ready: AtomicBool,
    pub(crate) index: Mutex<Vec<ModelIndex>>,
    pub(crate) configs: Mutex<BTreeMap<String, ModelConfig>>,
    /// Calls that have arrived.
    pub(crate) calls: AtomicUsize,
    /// Calls that have ended without having been answered to the end.
    pub(crate) cancelled: watch::Sender<usize>,
    /// Responses that were given to the transport.
    pub(crate) sent: AtomicUsize,
    pub(crate) metadata: Mutex<MetadataMap>,
    pub(crate) request: Mutex<ModelInferRequest>,
    /// What the model `gated` waits for.
    pub(crate) gate: Semaphore,
    /// The loads and unloads that were asked for, each with its number of parameters.
    pub(crate) changes: Mutex<Vec<String>>,
    pub(crate) asked_for_statistics: AtomicUsize,
    /// Whether it refuses to load and unload.
    pub(crate) is_fixed: AtomicBool,
    /// How many more changes of a model it refuses.
    pub(crate) refusals: Mutex<BTreeMap<String, usize>>,
}

impl Fake {
    /// A ready service with these models, each in version 1, on a free port.
    pub(crate) fn start(models: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), models)
    }

    pub(crate) fn start_at(address: SocketAddr, models: &[&str]) -> Self {
        let rows = models.iter().map(|name| row(name, "1", "READY", ""));
        let configs = models.iter().map(|name| ((*name).into(), config(name)));
        let state = Arc::new(FakeState {
            is_ready: AtomicBool::new(true),
            index: Mutex::new(rows.collect()),
            configs: Mutex::new(configs.collect()),
            calls: AtomicUsize::default(),
            cancelled: watch::Sender::default(),
            sent: AtomicUsize::default(),
            metadata: Mutex::default(),
            request: Mutex::default(),
            gate: Semaphore::new(0),
            changes: Mutex::default(),
            asked_for_statistics: AtomicUsize::default(),
            is_fixed: AtomicBool::new(false),
            refusals: Mutex::default(),
        });
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // `SO_REUSEADDR` is what lets a service come back on its old port.
        let listener = std::thread::scope(|scope| {
            let listen = || runtime.block_on(TcpListener::bind(address)).unwrap();
            scope.spawn(listen).join().unwrap()
        });
        let address = listener.local_addr().unwrap();
        let service = GrpcInferenceServiceServer::new(Service(state.clone()))
            .max_decoding_message_size(usize::MAX);
        runtime.spawn(
            tonic::transport::Server::builder()
                .tcp_nodelay(true)
                .initial_stream_window_size(4 << 20)
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { address, state, runtime: Some(runtime) }
    }

    /// A service that answers while its models do, from the outside as a draining one looks.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.state.is_ready.store(is_ready, SeqCst);
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(SeqCst)
    }
}

impl FakeState {
    /// Forgets that a model was ever loaded, as a service does that has just been started.
    pub(crate) fn forget(&self, model: &str) {
        let mut index = self.index.lock();
        index.retain(|row| row.name != model);
        index.push(row(model, "", "", ""));
    }

    fn change(
        &self,
        what: &str,
        model: &str,
        parameters: usize,
        (state, reason): (&str, &str),
    ) -> Result<(), Status> {
        self.changes.lock().push(format!("{what} {model} {parameters}"));
        let mut refusals = self.refusals.lock();
        let left = refusals.get_mut(model).filter(|left| **left > 0);
        let is_refused = left.map(|left| *left -= 1).is_some();
        if is_refused || self.is_fixed.load(SeqCst) {
            return Err(Status::unavailable("not while polling is enabled"));
        }
        let mut index = self.index.lock();
        index.retain(|row| row.name != model);
        index.push(row(model, "1", state, reason));
        Ok(())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn row(name: &str, version: &str, state: &str, reason: &str) -> ModelIndex {
    ModelIndex {
        name: name.into(),
        version: version.into(),
        state: state.into(),
        reason: reason.into(),
    }
}

/// The configuration of a model that takes `x` and gives `x`, both INT32 of any length.
pub(crate) fn config(name: &str) -> ModelConfig {
    let decoupled =
        matches!(name, "count" | "stall" | "flood" | "inband" | "midway" | "left_stream");
    ModelConfig {
        name: name.into(),
        backend: "identity".into(),
        input: vec![ModelInput {
            name: "x".into(),
            data_type: WireType::TypeInt32.into(),
            dims: vec![-1],
            ..ModelInput::default()
        }],
        output: vec![ModelOutput {
            name: "x".into(),
            data_type: WireType::TypeInt32.into(),
            dims: vec![-1],
            ..ModelOutput::default()
        }],
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled }),
        ..ModelConfig::default()
    }
}

/// Counts a call as cancelled unless it is told that it has been answered.
struct Unanswered<'a>(Option<&'a FakeState>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            state.cancelled.send_modify(|count| *count += 1);
        }
    }
}

struct Service(Arc<FakeState>);

impl Service {
    async fn answer(&self, message: ModelInferRequest) -> Result<Messages, Status> {
        let state = Arc::clone(&self.0);
        *state.request.lock() = message.clone();
        state.calls.fetch_add(1, SeqCst);
        let call = message.into_call().unwrap();
        match call.model.as_str() {
            "hang" => {
                let _unanswered = Unanswered(Some(&state));
                pending().await
            }
            "fail" => Err(Status::resource_exhausted("queue is full")),
            "full" => Err(to_status(&Error::new(Code::Overloaded, "Exceeds maximum queue size"))),
            // Its index still lists version 2.
            "left" | "left_stream" if call.version == Some(2) => {
                Err(Status::not_found("version 2 is not found"))
            }
            _ => Ok(answer(state, call.model, call.request, call.wants_empty_final)),
        }
    }
}

type Messages = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

/// A message of a stream with this tensor, or without any.
fn message(request: &Asked, tensor: Option<Tensor>, is_last: bool) -> ModelStreamInferResponse {
    let answer = Answer { outputs: tensor.into_iter().collect(), ..Answer::default() };
    let response = ModelInferResponse::of("m", 1, request.id.clone(), answer);
    ModelStreamInferResponse::of(response.with_final(is_last))
}

fn number(value: i32) -> Tensor {
    Tensor::from_vec("x", &[1], vec![value])
}

/// The responses of a model, which behaves as its name says.
fn answer(state: Arc<FakeState>, model: String, request: Asked, has_empty_final: bool) -> Messages {
    let first = request.inputs.first().cloned();
    Box::pin(async_stream::try_stream! {
        let mut unanswered = Unanswered(Some(&state));
        match model.as_str() {
            "count" => {
                let count = request.parameters["n"].as_u64().unwrap();
                for value in 0..count {
                    yield message(&request, Some(number(value as i32)), false);
                }
                if has_empty_final {
                    yield message(&request, None, true);
                }
            }
            "stall" => {
                yield message(&request, first, false);
                pending::<()>().await;
            }
            "flood" => loop {
                let block = Tensor::from_vec("x", &[16_384], vec![7_i32; 16_384]);
                yield message(&request, Some(block), false);
                state.sent.fetch_add(1, SeqCst);
            },
            "gated" => {
                state.gate.acquire().await.unwrap().forget();
                yield message(&request, first, true);
            }
            "inband" => {
                yield message(&request, first, false);
                yield ModelStreamInferResponse {
                    error_message: "it went wrong".into(),
                    ..ModelStreamInferResponse::default()
                };
            }
            "midway" => {
                yield message(&request, first, false);
                Err(Status::invalid_argument("unexpected inference input 'y'"))?;
            }
            _ => yield message(&request, first, true),
        }
        unanswered.0 = None;
    })
}

/// The calls that no test makes.
macro_rules! unused {
    ($($name:ident($request:ident) -> $response:ident;)*) => {$(
        fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<consort_protocol::$request>,
        ) -> Pin<Box<
            dyn Future<Output = Result<Response<consort_protocol::$response>, Status>>
                + Send
                + 'async_trait,
        >>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented("not here")) })
        }
    )*};
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    type ModelStreamInferStream = Messages;

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.0.is_ready.load(SeqCst);
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn repository_index(
        &self,
        _: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let models = self.0.index.lock().clone();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let name = request.into_inner().name;
        let config = self.0.configs.lock().get(&name).cloned();
        if config.is_none() {
            return Err(Status::not_found(format!("no configuration of '{name}'")));
        }
        Ok(Response::new(ModelConfigResponse { config }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let asked = request.into_inner();
        self.0.change("load", &asked.model_name, asked.parameters.len(), ("READY", ""))?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let asked = request.into_inner();
        let unloaded = ("UNAVAILABLE", "unloaded");
        self.0.change("unload", &asked.model_name, asked.parameters.len(), unloaded)?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        self.0.asked_for_statistics.fetch_add(1, SeqCst);
        let count = self.0.calls.load(SeqCst) as u64;
        let success = StatisticDuration { count, ns: 10 * count };
        let index = self.0.index.lock();
        let rows = index.iter().filter(|row| {
            (name.is_empty() || row.name == name) && (version.is_empty() || row.version == version)
        });
        let statistics = rows.map(|row| ModelStatistics {
            name: row.name.clone(),
            version: row.version.clone(),
            last_inference: count,
            inference_count: count,
            inference_stats: Some(InferStatistics {
                success: Some(success),
                ..InferStatistics::default()
            }),
            ..ModelStatistics::default()
        });
        let model_stats = statistics.collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        *self.0.metadata.lock() = request.metadata().clone();
        let mut messages = self.answer(request.into_inner()).await?;
        let message = messages.next().await.expect("a response")?;
        // Read to its end, by which it counts as answered.
        assert!(messages.next().await.is_none(), "one response to one request");
        let mut response = message.infer_response.expect("a response");
        response.parameters.clear();
        Ok(Response::new(response))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Messages>, Status> {
        *self.0.metadata.lock() = request.metadata().clone();
        let mut messages = request.into_inner();
        let message = messages.message().await?.expect("a request");
        assert!(messages.message().await?.is_none(), "one request a stream");
        self.answer(message).await.map(Response::new)
    }

    unused! {
        server_live(ServerLiveRequest) -> ServerLiveResponse;
        model_ready(ModelReadyRequest) -> ModelReadyResponse;
        server_metadata(ServerMetadataRequest) -> ServerMetadataResponse;
        model_metadata(ModelMetadataRequest) -> ModelMetadataResponse;
        system_shared_memory_status(SystemSharedMemoryStatusRequest)
            -> SystemSharedMemoryStatusResponse;
        system_shared_memory_register(SystemSharedMemoryRegisterRequest)
            -> SystemSharedMemoryRegisterResponse;
        system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest)
            -> SystemSharedMemoryUnregisterResponse;
        cuda_shared_memory_status(CudaSharedMemoryStatusRequest) -> CudaSharedMemoryStatusResponse;
        cuda_shared_memory_register(CudaSharedMemoryRegisterRequest)
            -> CudaSharedMemoryRegisterResponse;
        cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest)
            -> CudaSharedMemoryUnregisterResponse;
        trace_setting(TraceSettingRequest) -> TraceSettingResponse;
        log_settings(LogSettingsRequest) -> LogSettingsResponse;
    }
}
