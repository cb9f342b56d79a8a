//! Just enough of an HTTP client to try a server: one request, one connection, the whole answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks `host:port` for a path.
pub(crate) fn get(address: &str, path: &str) -> Result<Answer> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// Sends a JSON body.
pub(crate) fn post(address: &str, path: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    exchange(address, &(head + body))
}

/// HTTP/1.0 asks for an answer that ends with the connection, in one piece.
fn exchange(address: &str, request: &str) -> Result<Answer> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("nothing listens on {address}"))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("{address} did not answer to the end"))?;
    parse(&answer).with_context(|| format!("{address} does not speak HTTP: `{answer}`"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = parse("HTTP/1.0 404 Not Found\r\ncontent-length: 2\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "no"));
        assert!(parse("+OK ready").is_none());
    }
}
