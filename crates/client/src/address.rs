//! Reads where a stage's service is found, as `--stage` says it: `model=dns:///model:8001`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use consort_stage::{Error, Result};

/// The schemes that name one service by its host and port.
const SINGLE: [&str; 3] = ["dns:///", "http://", ""];

/// The scheme that lists the replicas themselves.
const LIST: &str = "static:///";

/// A stage's name and where its service is found.
///
/// A stage may be given several times, once for each place where it has replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageAddress {
    /// The name that errors, logs and metrics call the stage.
    pub name: Arc<str>,
    /// The hosts behind it; each may stand for many replicas.
    pub targets: Vec<Target>,
}

/// A host and a port; all addresses of the host are replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name to be resolved, or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for StageAddress {
    type Err = Error;

    /// Reads `NAME=dns:///HOST:PORT`, `NAME=http://HOST:PORT`, `NAME=HOST:PORT` or
    /// `NAME=static:///HOST:PORT,HOST:PORT`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, place) = text.split_once('=').ok_or_else(|| {
            Error::invalid(format!("stage `{text}` has no name; write NAME=dns:///HOST:PORT"))
        })?;
        if name.is_empty() || name.chars().any(char::is_whitespace) {
            return Err(Error::invalid(format!("stage `{text}` has no usable name before `=`")));
        }
        let targets = read_targets(place)
            .map_err(|error| error.within(format_args!("stage `{name}` at `{place}`: ")))?;
        Ok(Self { name: name.into(), targets })
    }
}

fn read_targets(place: &str) -> Result<Vec<Target>> {
    if let Some(list) = place.strip_prefix(LIST) {
        return list.split(',').map(str::parse).collect();
    }
    let host = SINGLE.iter().find_map(|scheme| place.strip_prefix(scheme));
    let host = host.expect("the empty scheme is a prefix of everything");
    let host = host.strip_suffix('/').unwrap_or(host);
    Ok(vec![host.parse()?])
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((scheme, _)) = text.split_once("//") {
            return Err(Error::invalid(format!(
                "`{scheme}//` is not supported; use `dns:///`, `http://` or `static:///`"
            )));
        }
        let (host, port) = text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':') || is_bracketed(host))
            .ok_or_else(|| {
                Error::invalid(format!(
                    "`{text}` is not HOST:PORT, such as `{text}:8001`; an IPv6 address stands in brackets"
                ))
            })?;
        let port =
            port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                Error::invalid(format!("port `{port}` is not between 1 and 65535"))
            })?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['/', ',', ' ']) {
            return Err(Error::invalid(format!("`{text}` names no host")));
        }
        Ok(Self { host: host.into(), port })
    }
}

fn is_bracketed(host: &str) -> bool {
    host.starts_with('[') && host.ends_with(']')
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match text.parse::<StageAddress>() {
            Ok(stage) => {
                let targets: Vec<_> = stage.targets.iter().map(Target::to_string).collect();
                format!("{} {}", stage.name, targets.join(" "))
            }
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn every_way_to_write_an_address_is_read() {
        for (text, expected) in [
            ("model=dns:///model:8001", "model model:8001"),
            ("model=model:8001", "model model:8001"),
            ("model=http://10.0.0.3:8001/", "model 10.0.0.3:8001"),
            ("a=static:///b:1,[::1]:2", "a b:1 [::1]:2"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("model:8001", "has no name; write NAME=dns:///HOST:PORT"),
            ("=model:8001", "no usable name"),
            ("model=dns:///model", "`model` is not HOST:PORT"),
            ("model=::1:80", "brackets"),
            ("model=model:0", "port `0` is not between"),
            ("model=model:http", "port `http` is not between"),
            ("model=:8001", "names no host"),
            ("model=https://model:8001", "`https://` is not supported"),
            ("model=dns://1.1.1.1/model:8001", "`dns://` is not supported"),
            ("a=static:///b:1,", "`` is not HOST:PORT"),
        ] {
            let message = read(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
