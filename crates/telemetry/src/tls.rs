//! TLS to the collector: whom to trust, and what to show of oneself.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::Error;

/// A file that a variable names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PemFile {
    pub(crate) variable: &'static str,
    pub(crate) path: String,
}

/// What the environment says of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// The authorities to trust; without them the system's are.
    pub(crate) authorities: Option<PemFile>,
    /// This side's certificate and its key, for collectors that ask for one.
    pub(crate) client: Option<(PemFile, PemFile)>,
}

/// The same, read and known to fit together.
pub(crate) struct Tls {
    config: ClientConfig,
    /// The files again: the gRPC library reads them for itself.
    authorities: Vec<u8>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsSettings {
    /// Reads the files; an error names the variable of the one that is wrong.
    pub(crate) fn read(&self) -> Result<Tls, Error> {
        let authorities = match &self.authorities {
            Some(file) => file.read()?,
            None => Vec::new(),
        };
        let roots = match &self.authorities {
            Some(file) => file.authorities(&authorities)?,
            None => system_authorities()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_root_certificates(roots);
        let Some((certificate, key)) = &self.client else {
            return Ok(Tls { config: builder.with_no_client_auth(), authorities, client: None });
        };
        let (chain, private) = (certificate.read()?, key.read()?);
        let config = builder
            .with_client_auth_cert(certificate.certificates(&chain)?, key.private_key(&private)?)
            .map_err(|error| key.wrong(&format!("does not go with the certificate: {error}")))?;
        Ok(Tls { config, authorities, client: Some((chain, private)) })
    }
}

impl PemFile {
    fn read(&self) -> Result<Vec<u8>, Error> {
        fs::read(&self.path).map_err(|error| self.wrong(&format!("cannot be read: {error}")))
    }

    fn certificates(&self, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| self.wrong(&format!("{error}")))?;
        if certificates.is_empty() {
            return Err(self.wrong("has no certificate in PEM"));
        }
        Ok(certificates)
    }

    fn authorities(&self, pem: &[u8]) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(pem)? {
            let added = roots.add(certificate);
            added.map_err(|error| self.wrong(&format!("has no certificate to trust: {error}")))?;
        }
        Ok(roots)
    }

    fn private_key(&self, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
        let key = PrivateKeyDer::from_pem_slice(pem);
        key.map_err(|error| self.wrong(&format!("has no private key in PEM: {error}")))
    }

    fn wrong(&self, how: &str) -> Error {
        let Self { variable, path } = self;
        Error::Pem { variable, path: path.clone(), how: how.to_owned() }
    }
}

/// The authorities that the system trusts.
fn system_authorities() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::Tls(
            "this system trusts no certificate authority; name the collector's in \
             `OTEL_EXPORTER_OTLP_CERTIFICATE`"
                .into(),
        ));
    }
    Ok(roots)
}

impl Tls {
    /// For OTLP over gRPC.
    pub(crate) fn for_grpc(self) -> ClientTlsConfig {
        let roots = ClientTlsConfig::new();
        let roots = if self.authorities.is_empty() {
            roots.with_native_roots()
        } else {
            roots.ca_certificate(Certificate::from_pem(self.authorities))
        };
        match self.client {
            Some((certificate, key)) => roots.identity(Identity::from_pem(certificate, key)),
            None => roots,
        }
    }

    /// For OTLP over HTTP, each request with this time.
    pub(crate) fn for_http(self, timeout: Duration) -> HyperClient<HttpsConnector<HttpConnector>> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.config)
            .https_only()
            .enable_http1()
            .build();
        HyperClient::new(connector, timeout, None)
    }
}
