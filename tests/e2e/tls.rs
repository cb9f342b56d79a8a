//! Spans leave over TLS, to a collector in another library's TLS, or the start says what is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::otlp;
use crate::program::{PATIENCE, Program};
use crate::python::Server;
use crate::repository::{INFER, Repository};
use crate::system::{Layout, System};
use crate::telemetry::TRACEPARENT;

/// The files of an authority, a collector at 127.0.0.1 and a client.
struct Files(TempDir);

impl Files {
    fn make() -> Self {
        let files = Self(TempDir::new().expect("a folder can be made"));
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("it signs itself");
        files.write("authority.pem", &authority.pem());
        for name in ["collector", "client"] {
            let key = KeyPair::generate().expect("a key can be made");
            let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
            let mut params = CertificateParams::new(names).expect("these are names");
            // Called as its authority is, it would be taken for signed by itself.
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, &authority).expect("the authority signs");
            files.write(&format!("{name}.pem"), &certificate.pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("it can be written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A collector of `protocol`, which asks for a client's certificate or not.
    fn collector(&self, protocol: &str, asks_for_client: bool) -> Server {
        let files = ["collector.pem", "collector.key", "authority.pem"].map(|name| self.text(name));
        let mut arguments = vec![protocol];
        let count = if asks_for_client { 3 } else { 2 };
        arguments.extend(files[..count].iter().map(String::as_str));
        Server::start("collector.py", &arguments)
    }
}

/// One request under [`TRACEPARENT`] by a program that exports to `endpoint` with these variables.
fn system(endpoint: &str, protocol: &str, variables: &[(&str, &str)], repository: &Path) -> System {
    let mut all = otlp::variables(endpoint, protocol).to_vec();
    all.extend(variables);
    let system = System::launch(Layout::OneProcess, repository, &all);
    system.wait_until_ready();
    let headers = [("traceparent", TRACEPARENT)];
    assert_eq!(system.post_with("/v2/models/quick/infer", INFER, &headers).status, 200);
    system
}

#[test]
fn spans_reach_a_collector_over_tls_with_and_without_a_clients_certificate() {
    let files = Files::make();
    let repository = Repository::new().with_identity("quick");
    let trace = &TRACEPARENT[3..35];
    let (authority, certificate, key) =
        (files.text("authority.pem"), files.text("client.pem"), files.text("client.key"));
    let authority = ("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str());
    let client = [
        authority,
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", certificate.as_str()),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.as_str()),
    ];
    for protocol in ["grpc", "http/protobuf"] {
        for (asks_for_client, variables) in [(false, &client[..1]), (true, &client[..])] {
            let collector = files.collector(protocol, asks_for_client);
            let endpoint = format!("https://{}", collector.address);
            let _system = system(&endpoint, protocol, variables, repository.path());
            let deadline = Instant::now() + PATIENCE;
            while !collector.next_line().is_some_and(|line| line.contains(trace)) {
                let case = format!("{protocol}, client's certificate: {asks_for_client}");
                assert!(Instant::now() < deadline, "no span over {case}");
            }
        }
    }
}

#[test]
fn a_collector_of_another_authority_gets_nothing_and_the_log_says_so() {
    let (files, others) = (Files::make(), Files::make());
    let repository = Repository::new().with_identity("quick");
    let authority = others.text("authority.pem");
    let variables = [("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str())];
    for protocol in ["grpc", "http/protobuf"] {
        let collector = files.collector(protocol, false);
        let endpoint = format!("https://{}", collector.address);
        let mut system = system(&endpoint, protocol, &variables, repository.path());
        system.front.line_with("spans could not be exported");
        assert_eq!(system.post("/v2/models/quick/infer", INFER).status, 200);
        assert_eq!(collector.line_within(Duration::from_millis(200)), None);
    }
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start_and_names_its_variable() {
    let files = Files::make();
    files.write("nonsense.pem", "no certificate");
    let (authority, nonsense) = (files.text("authority.pem"), files.text("nonsense.pem"));
    let (certificate, key) = (files.text("client.pem"), files.text("collector.key"));
    let repository = Repository::new().with_identity("quick");
    let argument = format!("--model-repository={}", repository.path().display());
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")], "CERTIFICATE=/nowhere.pem` cannot"),
        (&[("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", &nonsense)], "OTLP_TRACES_CERTIFICATE="),
        (&[("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key)], "OTEL_EXPORTER_OTLP_CLIENT_KEY="),
        (
            &[
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", &authority),
                ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
            ],
            "does not go with the certificate",
        ),
    ];
    for (variables, text) in cases {
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:4317")];
        all.extend(variables);
        let (status, log) = Program::start_with("consort", &["serve", &argument], &all).wait();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(text), "no `{text}` in: {log}");
    }
}
