//! The calls beside inference: metadata, configuration, statistics, the repository.

use std::pin::Pin;
use std::sync::Arc;

use consort_middleware::context_among;
use consort_protocol::grpc_inference_service_server::GrpcInferenceService;
use consort_protocol::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse,
    CudaSharedMemoryStatusRequest, CudaSharedMemoryStatusResponse,
    CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse, LogSettingsRequest,
    LogSettingsResponse, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse, TraceSettingRequest, TraceSettingResponse, parse_version,
    repository_index_response, to_status,
};
use consort_repository::{Change, IndexEntry, Labels, Served, State, log_failure};
use consort_stage::{Code, Context, Enough, Error, Spent};
use consort_telemetry::{Protocol, request_span};
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::Grpc;
use super::infer::{infer, refused, says_true};
use super::repository;
use super::stream::InferStream;
use crate::identity::{EXTENSIONS, NAME, VERSION};
use crate::not_offered;

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Grpc {
    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Reply<ModelInferResponse> {
        // Those alone come here that name a compression.
        let (metadata, extensions, message) = request.into_parts();
        let answer = infer(&*self.models, metadata.as_ref(), &extensions, message).await?;
        Ok(Response::new(answer))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Reply<Self::ModelStreamInferStream> {
        let metadata = request.metadata().as_ref();
        let ends_with_error = says_true(metadata, "triton_grpc_error");
        let wants_durations = says_true(metadata, Spent::METADATA);
        let may_have_enough = says_true(metadata, Enough::METADATA);
        let (_, extensions, incoming) = request.into_parts();
        let make_context = Box::new(move |message: &ModelInferRequest| {
            let (model, version) = (&message.model_name, &message.model_version);
            let span = request_span(Protocol::Grpc, model, version, &message.id);
            let spent = wants_durations.then(Arc::default);
            Context { spent, ..context_among(&extensions, span) }
        });
        let models = self.models.clone();
        let mut answers = InferStream::new(models, incoming, make_context, ends_with_error);
        if may_have_enough {
            answers.enough = Some(Enough::default());
        }
        Ok(Response::new(Box::pin(answers)))
    }

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Reply<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Reply<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.models.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Reply<ModelReadyResponse> {
        let asked = request.into_inner();
        let about = Labels::of_model(&asked.name);
        let version = parse_version(&asked.version).map_err(|error| refused(&error, &about))?;
        let ready = match self.models.get(&asked.name, version) {
            Ok(_) => true,
            Err(error) if error.code() == Code::Unavailable => false,
            Err(error) if !self.is_listed(&asked.name).await => {
                return Err(refused(&error, &about));
            }
            Err(error) => {
                tracing::debug!("{error}");
                false
            }
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Reply<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: NAME.into(),
            version: VERSION.into(),
            extensions: EXTENSIONS.map(String::from).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Reply<ModelMetadataResponse> {
        let asked = request.into_inner();
        let served = self.find(&asked.name, &asked.version)?;
        Ok(Response::new(ModelMetadataResponse::of(
            &served.name,
            &served.versions,
            &served.platform,
            &served.signature,
        )))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Reply<ModelConfigResponse> {
        let asked = request.into_inner();
        let served = self.find(&asked.name, &asked.version)?;
        let config = Some((*served.config).clone());
        Ok(Response::new(ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Reply<ModelStatisticsResponse> {
        let asked = request.into_inner();
        let about = Labels::of_model(&asked.name);
        let version = parse_version(&asked.version).map_err(|error| refused(&error, &about))?;
        let model_stats = self.models.statistics(&asked.name, version).await;
        let model_stats = model_stats.map_err(|error| refused(&error, &about))?;
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Reply<RepositoryIndexResponse> {
        let asked = request.into_inner();
        refuse_repository_name(&asked.repository_name)?;
        self.models.discover().await;
        let rows = self.models.index().into_iter();
        let rows = rows.filter(|row| !asked.ready || row.state == State::Ready);
        Ok(Response::new(RepositoryIndexResponse { models: rows.map(index_row).collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Reply<RepositoryModelLoadResponse> {
        refuse_repository_name(&request.get_ref().repository_name)?;
        self.control(repository::load(request.into_inner())).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Reply<RepositoryModelUnloadResponse> {
        refuse_repository_name(&request.get_ref().repository_name)?;
        self.control(repository::unload(request.get_ref())).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<SystemSharedMemoryStatusRequest>,
    ) -> Reply<SystemSharedMemoryStatusResponse> {
        Err(refuse(not_offered::SHARED_MEMORY))
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Reply<SystemSharedMemoryRegisterResponse> {
        Err(refuse(not_offered::SHARED_MEMORY))
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Reply<SystemSharedMemoryUnregisterResponse> {
        Err(refuse(not_offered::SHARED_MEMORY))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Reply<CudaSharedMemoryStatusResponse> {
        Err(refuse(not_offered::SHARED_MEMORY))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Reply<CudaSharedMemoryRegisterResponse> {
        Err(refuse(not_offered::SHARED_MEMORY))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Reply<CudaSharedMemoryUnregisterResponse> {
        Err(refuse(not_offered::SHARED_MEMORY))
    }

    async fn trace_setting(&self, _: Request<TraceSettingRequest>) -> Reply<TraceSettingResponse> {
        Err(refuse(not_offered::TRACE_SETTINGS))
    }

    async fn log_settings(&self, _: Request<LogSettingsRequest>) -> Reply<LogSettingsResponse> {
        Err(refuse(not_offered::LOG_SETTINGS))
    }
}

fn refuse(message: &str) -> Status {
    refused(&Error::unsupported(message), &Labels::default())
}

fn refuse_repository_name(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Ok(());
    }
    Err(refuse("'repository_name' specification is not supported"))
}

fn index_row(entry: IndexEntry) -> repository_index_response::ModelIndex {
    repository_index_response::ModelIndex {
        name: entry.name.to_string(),
        version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
        state: entry.state.name().into(),
        reason: entry.reason,
    }
}

impl Grpc {
    async fn control(&self, change: consort_stage::Result<Change>) -> Result<(), Status> {
        let change = change.map_err(|error| refused(&error, &Labels::default()))?;
        let change = self.models.control(change).await;
        change.map_err(|error| refused(&error, &Labels::default()))
    }

    /// Whether the index has a model of this name, in whatever state.
    async fn is_listed(&self, name: &str) -> bool {
        self.models.discover().await;
        self.models.index().iter().any(|row| *row.name == *name)
    }

    fn find(&self, name: &str, version: &str) -> Result<Arc<Served>, Status> {
        let version = parse_version(version);
        let found = version.and_then(|version| self.models.get(name, version));
        // The state of a model is said where it changes, not wherever somebody asks.
        found.map_err(|error| {
            log_failure(&error, true, &Labels::of_model(name));
            to_status(&error)
        })
    }
}
