//! A collector of spans in the test itself, which reads what it gets as far as a trace needs it.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::PATIENCE;

/// A span and the service that it comes from.
#[derive(Clone)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) trace: Vec<u8>,
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    pub(crate) name: String,
    /// What its error status says, where it has one.
    pub(crate) failure: Option<String>,
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, trace, id, parent, name, failure } = self;
        write!(
            formatter,
            "{service}: {name} {id:02x?} under {parent:02x?} in {trace:02x?} {failure:?}"
        )
    }
}

/// A collector of OTLP over HTTP.
pub(crate) struct Collector {
    address: String,
    bodies: Receiver<Vec<u8>>,
    received: Vec<u8>,
    spans: Vec<Span>,
}

impl Collector {
    /// Listens on a free port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = format!("http://{}", listener.local_addr().expect("it has one"));
        let (sender, bodies) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || collect(stream, &sender));
            }
        });
        Self { address, bodies, received: Vec::new(), spans: Vec::new() }
    }

    /// The environment of a program that exports to it.
    pub(crate) fn variables(&self) -> [(&str, &str); 3] {
        variables(&self.address, "http/protobuf")
    }

    /// The spans that have come, once they are as is wanted.
    pub(crate) fn spans_when(&mut self, are_so: impl Fn(&[Span]) -> bool) -> &[Span] {
        self.receive_until(|collector| are_so(&collector.spans));
        &self.spans
    }

    /// Every byte that has come, once it is as is wanted.
    pub(crate) fn bytes_when(&mut self, are_so: impl Fn(&[u8]) -> bool) -> &[u8] {
        self.receive_until(|collector| are_so(&collector.received));
        &self.received
    }

    fn receive_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "a span is missing among {:?}", self.names());
            self.receive();
        }
    }

    fn names(&self) -> Vec<String> {
        self.spans.iter().map(|span| format!("\n{span:?}")).collect()
    }

    fn receive(&mut self) {
        if let Ok(body) = self.bodies.recv_timeout(Duration::from_secs(1)) {
            self.spans.extend(spans(&body).expect("it is a request of OTLP"));
            self.received.extend(body);
        }
    }
}

/// The environment of a program that exports to `endpoint` soon after a span has ended.
pub(crate) fn variables<'a>(endpoint: &'a str, protocol: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ]
}

/// Answers every request on a connection with an empty 200.
fn collect(stream: TcpStream, bodies: &Sender<Vec<u8>>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
        bodies.send(body).ok()?;
    }
}

/// The spans in an `ExportTraceServiceRequest`; `None` where it is none.
fn spans(body: &[u8]) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    for (_, resource_spans) in fields(body)?.into_iter().filter(|(number, _)| *number == 1) {
        let resource_spans = fields(resource_spans)?;
        let service = service(&resource_spans)?;
        for (_, scope_spans) in resource_spans.iter().filter(|(number, _)| *number == 2) {
            for (_, span) in fields(scope_spans)?.into_iter().filter(|(number, _)| *number == 2) {
                let fields = fields(span)?;
                spans.push(Span {
                    service: service.clone(),
                    trace: field(&fields, 1)?.to_vec(),
                    id: field(&fields, 2)?.to_vec(),
                    parent: field(&fields, 4).unwrap_or_default().to_vec(),
                    name: text(field(&fields, 5)?)?,
                    failure: field(&fields, 15).and_then(failure),
                });
            }
        }
    }
    Some(spans)
}

/// The attribute `service.name` of the resource.
fn service(resource_spans: &[(u64, &[u8])]) -> Option<String> {
    for (_, attribute) in fields(field(resource_spans, 1)?)? {
        let attribute = fields(attribute)?;
        if field(&attribute, 1)? == b"service.name" {
            return text(field(&fields(field(&attribute, 2)?)?, 1)?);
        }
    }
    None
}

/// The message of a span's status; only errors have one.
fn failure(status: &[u8]) -> Option<String> {
    text(field(&fields(status)?, 2)?)
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn field<'a>(fields: &[(u64, &'a [u8])], wanted: u64) -> Option<&'a [u8]> {
    fields.iter().find(|(number, _)| *number == wanted).map(|(_, bytes)| *bytes)
}

/// The fields of a message of Protocol Buffers that are messages, texts or bytes.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (bytes, rest) = message.split_at_checked(length)?;
        message = rest;
        if key & 7 == 2 {
            fields.push((key >> 3, bytes));
        }
    }
    Some(fields)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
