//! Tests of the front over models that answer in the test itself.

mod anything;
mod generate;
mod infer;
mod infer_refusals;
mod openai;
mod round_trip;
mod routes;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request as HttpRequest, StatusCode};
use bytes::Bytes;
use consort_middleware::{Edge, EnforceDeadline, JoinTrace};
use consort_protocol::{InferStatistics, ModelConfig, ModelStatistics};
use consort_repository::{IndexEntry, Models, Served, State};
use consort_stage::{
    DataType, Error, Request, Response, Responses, Result, Signature, Stage, TensorSpec, one,
};
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tower::{ServiceBuilder, ServiceExt};

use super::{Options, router};

/// Models on a shelf: the ones that a test puts there.
struct Shelf {
    models: Vec<Arc<Served>>,
    is_ready: bool,
}

impl Models for Shelf {
    fn get(&self, name: &str, version: Option<u64>) -> Result<Arc<Served>> {
        let model = self.models.iter().find(|model| &*model.name == name);
        let model = model.ok_or_else(|| unknown(name))?;
        if version.is_none_or(|version| version == model.version) {
            Ok(Arc::clone(model))
        } else {
            Err(Error::unavailable(format!("'{name}' is not at ready state")))
        }
    }

    fn index(&self) -> Vec<IndexEntry> {
        let ready = self.models.iter().map(|model| IndexEntry {
            name: model.name.clone(),
            version: Some(model.version),
            state: State::Ready,
            reason: String::new(),
        });
        let broken = IndexEntry {
            name: "broken".into(),
            version: Some(2),
            state: State::Unavailable,
            reason: "it has <no> file".into(),
        };
        let never = IndexEntry {
            name: "never".into(),
            version: None,
            state: State::Unknown,
            reason: String::new(),
        };
        ready.chain([broken, never]).collect()
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn statistics(
        &self,
        name: &str,
        _version: Option<u64>,
    ) -> BoxFuture<'_, Result<Vec<ModelStatistics>>> {
        let wanted = |model: &&Arc<Served>| name.is_empty() || &*model.name == name;
        let models = self.models.iter().filter(wanted);
        let statistics = models.map(|model| ModelStatistics {
            name: model.name.to_string(),
            inference_count: u64::MAX,
            inference_stats: Some(InferStatistics::default()),
            ..ModelStatistics::default()
        });
        let statistics: Vec<_> = statistics.collect();
        async { Ok(statistics) }.boxed()
    }

    fn generation(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("Request for unknown model: '{name}' is not found"))
}

/// A stage that is a function.
struct Answer<F>(F);

impl<F: Fn(Request) -> Responses + Send + Sync + 'static> Stage for Answer<F> {
    fn call(&self, request: Request) -> Responses {
        self.0(request)
    }
}

/// A model called `name`, in version 3, that `answer` answers for.
fn model<F>(name: &str, signature: Signature, answer: F) -> Arc<Served>
where
    F: Fn(Request) -> Responses + Send + Sync + 'static,
{
    let config = ModelConfig {
        name: name.into(),
        max_batch_size: signature.max_batch_size as i32,
        ..ModelConfig::default()
    };
    Arc::new(Served {
        name: name.into(),
        version: 3,
        versions: vec![1, 3],
        platform: "identity".into(),
        config: config.into(),
        signature: signature.into(),
        labels: Arc::default(),
        stage: Arc::new(Answer(answer)),
        revealed: None,
    })
}

/// A model that gives its inputs back, with an input and an output named for each datatype.
fn echo() -> Arc<Served> {
    let specs = DataType::ALL.map(|datatype| TensorSpec::new(datatype.name(), datatype, &[-1]));
    let signature =
        Signature { inputs: specs.to_vec(), outputs: specs.to_vec(), ..Signature::default() };
    model("echo", signature, echo_back)
}

/// A model with one input `x` of this type and shape, which it gives back.
fn one_input(name: &str, datatype: DataType, dims: &[i64], max_batch_size: i64) -> Arc<Served> {
    let signature = Signature {
        max_batch_size,
        inputs: vec![TensorSpec::new("x", datatype, dims)],
        outputs: vec![TensorSpec::new("x", datatype, dims)],
        is_decoupled: false,
    };
    model(name, signature, echo_back)
}

fn echo_back(request: Request) -> Responses {
    let response = Response { parameters: request.parameters, ..Response::only(request.inputs) };
    one(async { Ok(response) })
}

/// The inputs of a language model that may stream.
fn language(is_decoupled: bool) -> Signature {
    let optional =
        |name, datatype| TensorSpec { is_optional: true, ..TensorSpec::new(name, datatype, &[1]) };
    Signature {
        max_batch_size: 4,
        inputs: vec![
            TensorSpec::new("text_input", DataType::Bytes, &[1]),
            optional("max_tokens", DataType::Int32),
            optional("stream", DataType::Bool),
        ],
        outputs: vec![TensorSpec::new("text_output", DataType::Bytes, &[1])],
        is_decoupled,
    }
}

/// Answers with these, one after another.
fn all(responses: Vec<Result<Response>>) -> Responses {
    Box::pin(stream::iter(responses))
}

/// The front over these models, with a small limit on bodies.
fn front(models: Vec<Arc<Served>>) -> Router {
    let shelf = Shelf { models, is_ready: true };
    let options = Options { max_input_size: 10_000, ..Options::default() };
    router(Arc::new(shelf), options)
}

/// The front behind the layers that a server puts around it.
fn layered(router: Router) -> Router {
    router.layer(ServiceBuilder::new().layer(JoinTrace).layer(EnforceDeadline::new(Edge::Http)))
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> serde_json::Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self) -> String {
        let json = self.json();
        assert_eq!(json.as_object().unwrap().len(), 1);
        json["error"].as_str().unwrap().to_owned()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Runs a future in a test that is not asynchronous itself.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    RUNTIME.block_on(future)
}

async fn send(router: Router, request: HttpRequest<Body>) -> Reply {
    let response = router.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    Reply {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

async fn get(router: Router, path: &str) -> Reply {
    send(router, HttpRequest::get(path).body(Body::empty()).unwrap()).await
}

async fn post(router: Router, path: &str, body: impl Into<Body>) -> Reply {
    post_with(router, path, &[], body).await
}

async fn post_with(
    router: Router,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Reply {
    let mut request = HttpRequest::builder().method(Method::POST).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(body.into()).unwrap()).await
}

/// Posts JSON and then tensors in binary.
async fn post_binary(router: Router, path: &str, json: &str, blobs: &[u8]) -> Reply {
    let length = json.len().to_string();
    let body = [json.as_bytes(), blobs].concat();
    let headers = [("Inference-Header-Content-Length", &*length)];
    post_with(router, path, &headers, body).await
}
