//! A caller over gRPC that costs little itself: bare HTTP/2, its request encoded once.

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use consort_protocol::{ModelInferRequest, ModelInferResponse};
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{Method, Request, request};
use prost::Message;
use tokio::net::TcpStream;

use super::Caller;

/// Callers that share a connection; `perf_analyzer` lets six share one.
const SHARE: usize = 6;

/// What the server may send before it hears from us, as large as HTTP/2 allows.
const WINDOW: u32 = (1 << 31) - 1;

/// Compression flag and length stand before every message.
const PREFIX: usize = 5;

/// Opens the connections for `count` callers that all send `message` to the server at `port`.
///
/// The answer to the first call is checked by `is_right`; later ones must be the same.
pub(crate) async fn callers(
    port: u16,
    count: usize,
    message: &ModelInferRequest,
    is_right: impl Fn(&ModelInferResponse) -> bool,
) -> Result<Vec<GrpcCaller>> {
    let mut callers = Vec::with_capacity(count);
    let mut connection = connect(port).await?;
    for index in 0..count {
        if index > 0 && index % SHARE == 0 {
            connection = connect(port).await?;
        }
        let mut caller = GrpcCaller {
            connection: connection.clone(),
            head: head(port)?,
            message: frame(message),
            answer: BytesMut::new(),
            expected: Bytes::new(),
        };
        caller.exchange().await?;
        let answer = caller.answer.get(PREFIX..).context("the answer is empty")?;
        let answer = ModelInferResponse::decode(answer)?;
        ensure!(is_right(&answer), "the server's first answer is wrong: {answer:?}");
        caller.expected = caller.answer.clone().freeze();
        callers.push(caller);
    }
    Ok(callers)
}

async fn connect(port: u16) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (connection, driver) = builder.handshake(stream).await?;
    tokio::spawn(driver);
    Ok(connection)
}

fn head(port: u16) -> Result<request::Parts> {
    let uri = format!("http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer");
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(TE, HeaderValue::from_static("trailers"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .body(())?;
    Ok(request.into_parts().0)
}

fn frame(message: &ModelInferRequest) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

/// One caller, which shares its connection with others.
pub(crate) struct GrpcCaller {
    connection: SendRequest<Bytes>,
    head: request::Parts,
    message: Bytes,
    answer: BytesMut,
    expected: Bytes,
}

impl GrpcCaller {
    /// Leaves the answer's frame in `answer`.
    async fn exchange(&mut self) -> Result<()> {
        let mut connection = self.connection.clone().ready().await?;
        let request = Request::from_parts(self.head.clone(), ());
        let (response, mut body) = connection.send_request(request, false)?;
        body.send_data(self.message.clone(), true)?;
        let (head, mut body) = response.await?.into_parts();
        ensure!(head.status == 200, "the server answered with HTTP {}", head.status);
        self.answer.clear();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            self.answer.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await?;
        let status = trailers.as_ref().unwrap_or(&head.headers);
        let (code, text) = (status.get("grpc-status"), status.get("grpc-message"));
        ensure!(code.is_some_and(|code| code == "0"), "the call failed: {code:?} {text:?}");
        Ok(())
    }
}

impl Caller for GrpcCaller {
    async fn call(&mut self) -> Result<()> {
        self.exchange().await?;
        ensure!(self.answer.len() == self.expected.len(), "an answer of another length came");
        Ok(())
    }
}
