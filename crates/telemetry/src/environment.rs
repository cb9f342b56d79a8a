//! Everything that telemetry takes from the environment, read once at start.
//!
//! What only the OpenTelemetry SDK needs (`OTEL_BSP_*`, endpoints, headers, time-outs) it reads
//! itself; the variables whose mistakes it would pass over in silence are checked here.

use std::str::FromStr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::Error;
use crate::tls::{PemFile, TlsSettings};

const LOG_FILTERS: [&str; 2] = ["CONSORT_LOG", "RUST_LOG"];
const NO_COLOR: &str = "NO_COLOR";
const SDK_DISABLED: &str = "OTEL_SDK_DISABLED";
const TRACES_EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const CERTIFICATES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const CLIENT_CERTIFICATES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
const CLIENT_KEYS: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
/// The time of an export that the specification gives.
const TIMEOUT: Duration = Duration::from_secs(10);
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// How spans travel to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// OTLP over gRPC, usually to port 4317.
    Grpc,
    /// OTLP over HTTP with protobuf bodies, usually to port 4318.
    Http,
}

/// What the environment says about the export of spans.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExportSettings {
    /// The way to the collector.
    pub(crate) protocol: Protocol,
    /// How the connection is protected; `None` over plain HTTP.
    pub(crate) tls: Option<TlsSettings>,
    /// How long one export may take.
    pub(crate) timeout: Duration,
    /// What the service calls itself instead of the program's name.
    pub(crate) service_name: Option<String>,
}

/// What the environment says about telemetry.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Which events are logged; `None` leaves it to the options.
    pub(crate) log_filter: Option<EnvFilter>,
    /// Whether colours are unwanted.
    pub(crate) no_color: bool,
    /// How spans are exported; `None` when they are not.
    pub(crate) export: Option<ExportSettings>,
}

impl Environment {
    /// What this process's environment says.
    pub(crate) fn read() -> Result<Self, Error> {
        Self::parse(&|name| std::env::var(name).ok())
    }

    fn parse(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        // OpenTelemetry: an empty value means the same as none.
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        Ok(Self {
            log_filter: log_filter(&lookup)?,
            no_color: lookup(NO_COLOR).is_some(),
            export: export(&lookup)?,
        })
    }
}

type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

fn first(lookup: &Lookup<'_>, names: [&'static str; 2]) -> Option<(&'static str, String)> {
    let mut names = names.into_iter();
    names.find_map(|name| Some((name, lookup(name)?)))
}

fn log_filter(lookup: &Lookup<'_>) -> Result<Option<EnvFilter>, Error> {
    let Some((variable, value)) = first(lookup, LOG_FILTERS) else {
        return Ok(None);
    };
    match EnvFilter::from_str(&value) {
        Ok(filter) => Ok(Some(filter)),
        Err(source) => Err(Error::Filter { variable, value, source }),
    }
}

fn export(lookup: &Lookup<'_>) -> Result<Option<ExportSettings>, Error> {
    if lookup(SDK_DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match lookup(TRACES_EXPORTER).as_deref() {
        Some("otlp") => (),
        None if first(lookup, ENDPOINTS).is_some() => (),
        Some("none") | None => return Ok(None),
        Some(other) => {
            let remedy = "use `otlp` or `none`";
            return Err(unsupported(TRACES_EXPORTER, other, remedy));
        }
    }
    check_sampler(lookup)?;
    Ok(Some(ExportSettings {
        protocol: protocol(lookup)?,
        tls: if is_encrypted(lookup)? { Some(tls(lookup)?) } else { None },
        timeout: timeout(lookup),
        service_name: lookup(SERVICE_NAME),
    }))
}

fn tls(lookup: &Lookup<'_>) -> Result<TlsSettings, Error> {
    let file = |names| {
        let (variable, path) = first(lookup, names)?;
        Some(PemFile { variable, path })
    };
    let client = match (file(CLIENT_CERTIFICATES), file(CLIENT_KEYS)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(PemFile { variable, path }), None) => {
            return Err(unsupported(variable, &path, "name its key in `…_CLIENT_KEY`, too"));
        }
        (None, Some(PemFile { variable, path })) => {
            let remedy = "name its certificate in `…_CLIENT_CERTIFICATE`, too";
            return Err(unsupported(variable, &path, remedy));
        }
    };
    Ok(TlsSettings { authorities: file(CERTIFICATES), client })
}

/// As the SDK reads it, which passes over what is no number.
fn timeout(lookup: &Lookup<'_>) -> Duration {
    let milliseconds = first(lookup, TIMEOUTS).and_then(|(_, value)| value.parse().ok());
    milliseconds.map_or(TIMEOUT, Duration::from_millis)
}

fn protocol(lookup: &Lookup<'_>) -> Result<Protocol, Error> {
    let Some((variable, value)) = first(lookup, PROTOCOLS) else {
        return Ok(Protocol::Grpc);
    };
    match &*value {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::Http),
        other => Err(unsupported(variable, other, "use `grpc` or `http/protobuf`")),
    }
}

/// Whether the way to the collector is encrypted.
fn is_encrypted(lookup: &Lookup<'_>) -> Result<bool, Error> {
    let Some((variable, value)) = first(lookup, ENDPOINTS) else {
        return Ok(false);
    };
    if value.starts_with("https://") {
        return Ok(true);
    }
    if value.starts_with("http://") {
        return Ok(false);
    }
    Err(unsupported(variable, &value, "give a URL that begins with `http://` or `https://`"))
}

fn check_sampler(lookup: &Lookup<'_>) -> Result<(), Error> {
    let Some(sampler) = lookup(SAMPLER) else {
        return Ok(());
    };
    if !SAMPLERS.contains(&&*sampler) {
        let remedy = "use `always_on`, `always_off`, `traceidratio` or one of these behind \
                      `parentbased_`";
        return Err(unsupported(SAMPLER, &sampler, remedy));
    }
    if !sampler.ends_with("traceidratio") {
        return Ok(());
    }
    // As the specification has it, every trace is kept.
    let Some(argument) = lookup(SAMPLER_ARGUMENT) else {
        return Ok(());
    };
    let ratio = argument.parse::<f64>().ok();
    match ratio {
        Some(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
        _ => Err(unsupported(
            SAMPLER_ARGUMENT,
            &argument,
            "give the share of traces to keep, from 0.0 to 1.0",
        )),
    }
}

fn unsupported(variable: &'static str, value: &str, remedy: &'static str) -> Error {
    Error::Unsupported { variable, value: value.to_owned(), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::parse(&|wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[track_caller]
    fn check_export(variables: &[(&str, &str)], expected: Option<Protocol>) {
        let export = parse(variables).unwrap().export;
        assert_eq!(export.map(|settings| settings.protocol), expected);
    }

    #[test]
    fn nothing_is_exported_unless_the_environment_asks() {
        check_export(&[], None);
        check_export(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None);
        check_export(&[("OTEL_SERVICE_NAME", "x")], None);
        check_export(&[(TRACES_EXPORTER, "none"), (ENDPOINTS[0], "http://c:4317")], None);
    }

    #[test]
    fn an_endpoint_or_an_exporter_asks_for_export_over_grpc() {
        for endpoint in ENDPOINTS {
            check_export(&[(endpoint, "http://c:4317")], Some(Protocol::Grpc));
        }
        check_export(&[(TRACES_EXPORTER, "otlp")], Some(Protocol::Grpc));
    }

    #[test]
    fn the_protocol_of_traces_goes_before_that_of_all_signals() {
        let both =
            [(TRACES_EXPORTER, "otlp"), (PROTOCOLS[0], "http/protobuf"), (PROTOCOLS[1], "grpc")];
        check_export(&both, Some(Protocol::Http));
    }

    #[test]
    fn a_url_with_tls_takes_the_files_of_traces_before_those_of_all_signals() {
        let tls = |variables: &[(&str, &str)]| parse(variables).unwrap().export.unwrap().tls;
        let files = [(CERTIFICATES[1], "all"), (CERTIFICATES[0], "traces")];
        let [all, traces] = files;
        assert_eq!(tls(&[(ENDPOINTS[1], "http://c"), all]), None);
        let given = tls(&[(ENDPOINTS[1], "https://c"), all, traces]).unwrap();
        let authorities = given.authorities.unwrap();
        assert_eq!((authorities.variable, &*authorities.path), traces);
        assert_eq!(given.client, None);
        assert_eq!(tls(&[(ENDPOINTS[1], "https://c")]).unwrap().authorities, None);
    }

    #[test]
    fn disabling_the_sdk_wins() {
        let variables = [
            (SDK_DISABLED, "TRUE"),
            (TRACES_EXPORTER, "nonsense"),
            (ENDPOINTS[1], "http://c:4317"),
        ];
        check_export(&variables, None);
    }

    #[track_caller]
    fn check_refused(variables: &[(&str, &str)], expected: &str) {
        let mut variables = variables.to_vec();
        variables.push((ENDPOINTS[1], "http://c:4317"));
        let error = parse(&variables).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_not_supported_is_refused_and_named() {
        check_refused(&[(PROTOCOLS[1], "http/json")], "OTEL_EXPORTER_OTLP_PROTOCOL=http/json");
        check_refused(&[(TRACES_EXPORTER, "zipkin")], "OTEL_TRACES_EXPORTER=zipkin");
        check_refused(&[(SAMPLER, "jaeger_remote")], "OTEL_TRACES_SAMPLER=jaeger_remote");
        check_refused(&[(ENDPOINTS[0], "c:4317")], "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=c:4317");
        let encrypted = (ENDPOINTS[0], "https://c");
        check_refused(&[encrypted, (CLIENT_KEYS[1], "k")], "OTEL_EXPORTER_OTLP_CLIENT_KEY=k");
        check_refused(
            &[encrypted, (CLIENT_CERTIFICATES[0], "c")],
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE=c",
        );
        let ratio = (SAMPLER, "parentbased_traceidratio");
        check_refused(&[ratio, (SAMPLER_ARGUMENT, "2")], "OTEL_TRACES_SAMPLER_ARG=2");
        check_refused(&[(LOG_FILTERS[1], "a=b=c")], "RUST_LOG");
    }

    #[test]
    fn a_share_of_traces_that_is_not_stated_is_all_of_them() {
        let asked = (ENDPOINTS[1], "http://c:4317");
        for sampler in ["traceidratio", "parentbased_traceidratio"] {
            check_export(&[asked, (SAMPLER, sampler)], Some(Protocol::Grpc));
            let empty = (SAMPLER_ARGUMENT, "");
            check_export(&[asked, (SAMPLER, sampler), empty], Some(Protocol::Grpc));
        }
    }

    #[test]
    fn the_programs_own_log_filter_goes_before_the_languages() {
        let both = [(LOG_FILTERS[0], "warn"), (LOG_FILTERS[1], "trace")];
        let filter = parse(&both).unwrap().log_filter.unwrap();
        assert_eq!(filter.to_string(), "warn");
    }
}
