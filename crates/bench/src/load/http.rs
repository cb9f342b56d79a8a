//! A caller over HTTP that costs little itself: one kept-alive connection, its request encoded once.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Caller;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// What is posted, and how the body is described beside its length.
pub(crate) struct Post<'a> {
    /// Where to.
    pub(crate) path: &'a str,
    /// Whole lines, each with its line end.
    pub(crate) headers: String,
    /// What is sent.
    pub(crate) body: &'a [u8],
}

/// Opens a connection to `port` for each of `count` callers that all send the same.
///
/// The body of the first answer is checked by `is_right`; later ones must be as long.
pub(crate) async fn callers(
    port: u16,
    count: usize,
    post: &Post<'_>,
    is_right: impl Fn(&[u8]) -> bool,
) -> Result<Vec<HttpCaller>> {
    let Post { path, headers, body } = post;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    let request = [head.as_bytes(), body].concat();
    let mut callers = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let answer = Vec::with_capacity(4096);
        let mut caller = HttpCaller { stream, request: request.clone(), answer, expected: 0 };
        let body = caller.first().await?;
        let text = String::from_utf8_lossy(&caller.answer);
        ensure!(is_right(&caller.answer[body..]), "the server's first answer is wrong: {text}");
        callers.push(caller);
    }
    Ok(callers)
}

/// One caller on a connection of its own.
pub(crate) struct HttpCaller {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// How long every answer is, from its status line to the end of its body.
    expected: usize,
}

impl HttpCaller {
    /// Learns how long an answer is; returns where its body begins.
    async fn first(&mut self) -> Result<usize> {
        self.stream.write_all(&self.request).await?;
        loop {
            self.read().await?;
            let end = self.answer.windows(END_OF_HEAD.len()).position(|part| part == END_OF_HEAD);
            let Some(end) = end else { continue };
            let body = end + END_OF_HEAD.len();
            let head = String::from_utf8_lossy(&self.answer[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.context("the answer does not say its length")?.parse()?;
            self.expected = body + length;
            while self.answer.len() < self.expected {
                self.read().await?;
            }
            return Ok(body);
        }
    }

    async fn read(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.answer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

impl Caller for HttpCaller {
    async fn call(&mut self) -> Result<()> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        while self.answer.len() < self.expected {
            self.read().await?;
        }
        ensure!(self.answer.starts_with(OK), "{}", String::from_utf8_lossy(&self.answer));
        ensure!(self.answer.len() == self.expected, "an answer of another length came");
        Ok(())
    }
}
