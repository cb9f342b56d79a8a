//! Everything that is not inference.

use futures::StreamExt;
use serde_json::json;

use super::*;

fn shelf() -> Router {
    front(vec![
        echo(),
        one_input("batched", DataType::Fp32, &[16], 8),
        one_input("a model/ü", DataType::Fp32, &[16], 8),
    ])
}

#[tokio::test]
async fn health_has_no_body() {
    let reply = get(shelf(), "/v2/health/live").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    let reply = get(shelf(), "/v2/health/ready").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    let starting = Shelf { models: Vec::new(), is_ready: false };
    let starting = router(Arc::new(starting), Options::default());
    let reply = get(starting, "/v2/health/ready").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (400, ""));
}

#[tokio::test]
async fn a_model_is_ready_or_the_answer_says_that_it_is_not() {
    for path in ["/v2/models/echo/ready", "/v2/models/echo/versions/3/ready"] {
        let reply = get(shelf(), path).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    }
    for path in ["/v2/models/echo/versions/2/ready", "/v2/models/no/ready"] {
        let reply = get(shelf(), path).await;
        assert_eq!(reply.status, 400);
        assert_eq!(reply.error(), "Model version not ready");
    }
}

#[tokio::test]
async fn the_server_names_itself_and_its_extensions() {
    let metadata = get(shelf(), "/v2?what=ever").await.json();
    assert_eq!(metadata["name"], consort_server::NAME);
    let extensions = metadata["extensions"].as_array().unwrap();
    assert!(extensions.contains(&json!("statistics")));
    assert!(extensions.contains(&json!("binary_tensor_data")));
}

#[tokio::test]
async fn a_model_shows_its_tensors_with_the_batch_dimension() {
    let expected = json!({
        "name": "batched",
        "versions": ["1", "3"],
        "platform": "identity",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
    });
    assert_eq!(get(shelf(), "/v2/models/batched").await.json(), expected);
    let path = "/v2/models/batched/versions/3";
    assert_eq!(get(shelf(), path).await.json(), expected);
}

#[tokio::test]
async fn a_configuration_shows_its_defaults() {
    let config = get(shelf(), "/v2/models/batched/config").await.json();
    assert_eq!(config["max_batch_size"], 8);
    assert_eq!(config["platform"], "");
}

#[tokio::test]
async fn names_in_paths_are_unquoted() {
    let reply = get(shelf(), "/v2/models/a%20model%2F%C3%BC").await;
    assert_eq!(reply.json()["name"], "a model/ü");
    let reply = get(shelf(), "/v2/models/%FF").await;
    assert_eq!(reply.status, 400);
    reply.error();
}

#[tokio::test]
async fn statistics_are_numbers_for_all_models_or_for_one() {
    let stats = get(shelf(), "/v2/models/stats").await.json();
    assert_eq!(stats["model_stats"].as_array().unwrap().len(), 3);
    for path in ["/v2/models/echo/stats", "/v2/models/echo/versions/3/stats"] {
        let stats = get(shelf(), path).await.json();
        assert_eq!(stats["model_stats"][0]["inference_count"], u64::MAX);
    }
}

#[tokio::test]
async fn the_index_lists_every_model_or_those_that_are_ready() {
    let path = "/v2/repository/index";
    for body in ["", "{}", r#"{"ready":false}"#] {
        let index = post(shelf(), path, body).await.json();
        assert_eq!(index.as_array().unwrap().len(), 5);
        assert_eq!(index[0], json!({"name": "echo", "version": "3", "state": "READY"}));
        assert_eq!(index[3]["reason"], "it has <no> file");
        assert_eq!(index[4], json!({"name": "never"}));
    }
    let index = post(shelf(), path, r#"{"ready":true}"#).await.json();
    assert_eq!(index.as_array().unwrap().len(), 3);
    let reply = post(shelf(), path, r#"{"ready":1}"#).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.error(), "Invalid value for 'ready': expected a boolean");
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let refused = async |path, status: u16, text| {
        let reply = post(shelf(), path, "{}").await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.error().contains(text), "{path}: {}", reply.error());
    };
    let polling = "explicit model load / unload is not allowed if polling is enabled";
    refused("/v2/repository/models/m/load", 503, polling).await;
    refused("/v2/repository/models/m/unload", 503, polling).await;
    let named = "'repository_name' specification is not supported";
    refused("/v2/repository/r/index", 501, named).await;
    refused("/v2/repository/r/models/m/load", 501, named).await;
    refused("/v2/repository/r/models/m/unload", 501, named).await;
    let memory = "Client shared memory is disabled. Tensors are sent in the request.";
    refused("/v2/systemsharedmemory/region/r/register", 501, memory).await;
    refused("/v2/cudasharedmemory/unregister", 501, memory).await;
    refused("/v2/trace/setting", 501, "OTEL_").await;
    refused("/v2/models/m/trace/setting", 501, "OTEL_").await;
    refused("/v2/logging", 501, "--log-verbose").await;
}

#[tokio::test]
async fn a_wrong_verb_or_path_gets_a_json_error() {
    let reply = get(shelf(), "/v2/models/echo/infer").await;
    assert_eq!((reply.status.as_u16(), &*reply.error()), (405, "Method Not Allowed"));
    let reply = post(shelf(), "/v2/health/live", "").await;
    assert_eq!((reply.status.as_u16(), &*reply.error()), (405, "Method Not Allowed"));
    for path in [
        "/v3",
        "/v2/",
        "/v2/models/echo/",
        "/v2/models/echo/versions/one",
        "/v2/models/echo/versions/3/trace/setting",
    ] {
        let reply = get(shelf(), path).await;
        assert_eq!((reply.status.as_u16(), &*reply.error()), (404, "Not Found"), "{path}");
    }
}

#[tokio::test]
async fn a_version_that_is_no_version_is_refused() {
    for version in ["0", "99999999999999999999"] {
        let reply = get(shelf(), &format!("/v2/models/echo/versions/{version}")).await;
        assert_eq!(reply.status, 400);
        assert!(reply.error().starts_with("failed to get model version from"));
        assert!(reply.error().contains("version should be an integral value > 0"));
    }
}

#[tokio::test]
async fn the_first_page_is_text_or_html_as_asked() {
    let reply = get(shelf(), "/").await;
    assert!(reply.text().contains("  echo version 3  READY\n"));
    assert!(reply.text().contains("broken version 2  UNAVAILABLE: it has <no> file\n"));
    assert!(reply.text().contains("curl localhost:8000/v2/models/echo"));
    let request = HttpRequest::get("/")
        .header("accept", "text/html,*/*")
        .header("host", "<script>")
        .body(Body::empty());
    let reply = send(shelf(), request.unwrap()).await;
    assert_eq!(reply.headers["content-type"], "text/html; charset=utf-8");
    assert!(reply.text().contains("it has &lt;no&gt; file"));
    assert!(reply.text().contains("curl &lt;script&gt;/v2"));
}

#[tokio::test]
async fn the_first_page_suggests_the_language_model_when_there_is_one() {
    let generate = model("generate", language(true), echo_back);
    let reply = get(front(vec![generate]), "/").await;
    assert!(reply.text().contains("curl localhost:8000/generate -d '{"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_waited_for_no_longer() {
    for path in ["/v2/models/echo/infer", "/v2/models/echo/generate", "/v1/completions"] {
        let half = stream::iter([Ok::<_, std::io::Error>("{")]).chain(stream::pending());
        let reply = post(front(vec![echo()]), path, Body::from_stream(half)).await;
        assert_eq!(reply.status, StatusCode::REQUEST_TIMEOUT, "{path}");
        assert_eq!(reply.headers["connection"], "close", "{path}");
        let error = &reply.json()["error"];
        let text = error.as_str().or(error["message"].as_str()).unwrap();
        assert_eq!(
            text,
            "the request body came too slowly: it must not pause for 30 s, and come at 1024 bytes \
             a second at least"
        );
        assert!(error.is_string() || error["type"] == "invalid_request_error", "{error}");
    }
}
