//! Connections to registries: pooled HTTP/1.1, with TLS unless the registry is local or configured otherwise.
//!
//! HTTP/1.1, because layers that are fetched at the same time then do not share one flow-control window.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::error::RegistryError;
use super::resolve::Resolver;

const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

type Body = Empty<Bytes>;
type Plain = Client<HttpConnector<Resolver>, Body>;
type Tls = Client<HttpsConnector<HttpConnector<Resolver>>, Body>;

/// The connections of one pull; closed with it.
#[derive(Debug)]
pub(super) struct Transport {
    plain: Plain,
    /// Made at first use: reading the host's certificates takes time and memory.
    tls: OnceLock<Tls>,
}

impl Transport {
    pub(super) fn new() -> Self {
        let plain = Client::builder(TokioExecutor::new()).build(connector());
        Self { plain, tls: OnceLock::new() }
    }

    /// Sends a request; returns when the head of the answer is there.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, RegistryError> {
        let uri = request.uri().clone();
        let answer = match uri.scheme_str() {
            Some("https") => self.tls()?.request(request),
            _ => self.plain.request(request),
        };
        let answered = tokio::time::timeout(ANSWER_PATIENCE, answer).await;
        let answered = answered.map_err(|_| RegistryError::Silent { url: without_query(&uri) })?;
        answered.map_err(|source| match source.is_connect() {
            true => RegistryError::Connect { registry: host(&uri), source: Box::new(source) },
            false => RegistryError::Request { url: without_query(&uri), source: Box::new(source) },
        })
    }

    fn tls(&self) -> Result<&Tls, RegistryError> {
        if let Some(client) = self.tls.get() {
            return Ok(client);
        }
        let mut roots = rustls::RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(native.certs);
        if added == 0 {
            return Err(RegistryError::NoTrust);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(RegistryError::Tls)?.with_root_certificates(roots).with_no_client_auth();
        let mut http = connector();
        http.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
        let client = Client::builder(TokioExecutor::new()).build(connector.wrap_connector(http));
        Ok(self.tls.get_or_init(|| client))
    }
}

fn connector() -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(Resolver::of_host());
    connector.set_connect_timeout(Some(CONNECT_PATIENCE));
    connector.set_nodelay(true);
    connector
}

/// Whether a registry (`host`, `host:port`, `[address]:port`) is on this host's loopback.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST,
        Err(_) => host == "localhost",
    }
}

/// The host and port of a URL.
pub(super) fn host(uri: &Uri) -> String {
    uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default()
}

/// A URL as it may be shown: storage services carry signatures in the query.
pub(super) fn without_query(uri: &Uri) -> String {
    format!("{}://{}{}", uri.scheme_str().unwrap_or("http"), host(uri), uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_address_and_name() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in ["localhost.example.com", "10.0.0.1:5000", "[fd00::1]:5000", "registry.k8s.io", "128.0.0.1"] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn what_is_shown_of_an_address_has_no_signature() {
        let uri: Uri = "https://storage.example/blob?signature=secret".parse().unwrap();
        assert_eq!(without_query(&uri), "https://storage.example/blob");
    }
}
