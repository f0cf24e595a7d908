//! Reaching a webhook, whatever it is asked: one request over TLS, on a connection of its own.
//!
//! Who asks what, and what answers mean, is said by the askers: `admission::hooks` and `conversion`. It deliberately keeps
//! no connections.
//! Its server must prove itself to the authority of the configuration, or to those that the host trusts if there is none,
//! under the name of the address, or `service.namespace.svc`. Errors are worded as Go words them: users see them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use task::chain;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxy;
use crate::server::ApiServer;

/// Most bytes of an answer.
const LONGEST: usize = 16 * 1024 * 1024;
/// Most bytes of an answer that is none, as they are shown.
const SHOWN: usize = 2048;

/// Where a webhook is and how long it may take.
#[derive(Debug)]
pub(crate) struct Reach {
    /// What is asked, as it is shown: scheme, host, port, path and the time that is given.
    url: String,
    place: Place,
    /// PEM texts of authorities; empty for those of the host.
    authorities: Vec<u8>,
    seconds: u64,
    /// Made at first use.
    tls: OnceLock<Arc<ClientConfig>>,
}

#[derive(Debug)]
enum Place {
    Address { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

impl Reach {
    /// By a `clientConfig`.
    pub(crate) fn new(config: &Value, seconds: u64) -> Self {
        let service = &config["service"];
        let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
        let (base, place) = if service.is_null() {
            let base = config["url"].as_str().unwrap_or_default().to_owned();
            let uri: Uri = base.parse().unwrap_or_default();
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            (base, Place::Address { host, port: uri.port_u16().unwrap_or(443) })
        } else {
            let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
            let (namespace, name, path) = (text("namespace"), text("name"), text("path"));
            let path = path.trim_start_matches('/');
            (format!("https://{name}.{namespace}.svc:{port}/{path}"), Place::Service { namespace, name, port })
        };
        let authorities = STANDARD.decode(config["caBundle"].as_str().unwrap_or_default()).unwrap_or_default();
        Self { url: format!("{base}?timeout={seconds}s"), place, authorities, seconds, tls: OnceLock::new() }
    }

    /// Sends a review and returns the answer; the error is a sentence.
    pub(crate) async fn post(&self, server: &ApiServer, review: &Value) -> Result<Value, String> {
        let patience = Duration::from_secs(self.seconds);
        let sent = tokio::time::timeout(patience, self.send(server, review.to_string())).await;
        let (code, bytes) = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(text)) => return Err(format!("Post {:?}: {text}", self.url)),
            Err(_) => return Err(format!("Post {:?}: context deadline exceeded", self.url)),
        };
        match code {
            200..=299 => serde_json::from_slice(&bytes).map_err(|error| format!("couldn't get version/kind; {error}")),
            404 => Err("the server could not find the requested resource".to_owned()),
            code => {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).trim().to_owned();
                let shown = if shown.is_empty() { format!("status code {code}") } else { shown };
                Err(format!("an error on the server ({shown:?}) has prevented the request from succeeding"))
            }
        }
    }

    async fn send(&self, server: &ApiServer, body: String) -> Result<(u16, Bytes), String> {
        let uri: Uri = self.url.parse().map_err(|error| format!("{error}"))?;
        let (stream, name) = self.connect(server).await?;
        let name = ServerName::try_from(name).map_err(|_| "tls: invalid server name".to_owned())?;
        let connector = TlsConnector::from(self.tls().await?);
        let stream = connector.connect(name, stream).await.map_err(|error| words(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let request = Request::post(target)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .header(USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            Ok((code, body.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes()))
        };
        let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
        tokio::select! {
            answer = &mut exchange => answer,
            // The last of an answer may still be in the hands of who reads it.
            _ = &mut connection => exchange.await,
        }
    }

    /// A connection, and the name that the other end must have.
    async fn connect(&self, server: &ApiServer) -> Result<(TcpStream, String), String> {
        let (stream, name) = match &self.place {
            Place::Address { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                (stream.map_err(|error| format!("dial tcp {host}:{port}: {}", refused(&error)))?, host.clone())
            }
            Place::Service { namespace, name, port } => {
                let at = proxy::behind(server, namespace, name, *port).await;
                let at = at.map_err(|error| error.message)?;
                let stream = TcpStream::connect(at).await;
                let stream = stream.map_err(|error| format!("dial tcp {at}: {}", refused(&error)))?;
                (stream, format!("{name}.{namespace}.svc"))
            }
        };
        // Small pieces must not wait for an acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        Ok((stream, name))
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let authorities = self.authorities.clone();
        let config = task::blocking(move || client_config(&authorities)).await?;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

/// Authorities of PEM texts, or those that the host trusts if there are none. Reads files.
pub(crate) fn roots(authorities: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    if authorities.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities).flatten());
    }
    roots
}

fn client_config(authorities: &[u8]) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots(authorities)).with_no_client_auth())
}

fn refused(error: &std::io::Error) -> String {
    let text = error.to_string();
    format!("connect: {}", text.split(" (os error").next().unwrap_or_default().to_lowercase())
}

/// Why TLS did not come about.
fn words(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
        }
        Some(inner) => format!("tls: {inner}"),
        None => error.to_string(),
    }
}
