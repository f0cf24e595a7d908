//! One GET request to a container: for probes and for hooks.
//!
//! Follows `pkg/probe/http` upstream and Go's client below it, whose words users see: certificates are not verified,
//! redirects to the same host are followed, others end the request with success. Every request has a connection of its
//! own, and nothing of it outlives the future.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{HeaderMap, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use task::{chain, errno_text};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How much of an answer is read, as upstream's `maxRespBodyLength`.
const BODY_LIMIT: usize = 10 * 1024;
/// How many requests a chain of redirects may have, as Go's client.
const REDIRECTS: usize = 10;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Get {
    uri: Uri,
    headers: HeaderMap,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status; a redirect is one to another host.
    pub(crate) status: u16,
    /// The beginning of the body.
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GetError {
    /// It cannot be asked for.
    #[error("{0}")]
    Request(String),
    /// The server does not speak TLS (as Go words it), which a hook is forgiven.
    #[error("Get \"{uri}\": http: server gave HTTP response to HTTPS client")]
    Plain { uri: Uri },
    /// It was asked for.
    #[error("Get \"{uri}\": {message}")]
    Exchange { uri: Uri, message: String },
}

impl Get {
    /// The request that an action describes; `address` is the pod's, `agent` who we say that we are.
    pub(crate) fn new(
        action: &HTTPGetAction,
        container: &Container,
        address: Option<IpAddr>,
        agent: &str,
    ) -> Result<Self, GetError> {
        let refuse = |message: String| GetError::Request(message);
        let port = port_number(container, &action.port).map_err(refuse)?;
        let host = match action.host.as_deref().filter(|host| !host.is_empty()) {
            Some(host) => host.to_owned(),
            None => address.ok_or_else(|| refuse("the pod has no address".to_owned()))?.to_string(),
        };
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        let scheme = if action.scheme.as_deref() == Some("HTTPS") { "https" } else { "http" };
        let path = action.path.as_deref().unwrap_or_default();
        let path = escape(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
        let text = format!("{scheme}://{host}:{port}{path}");
        let uri = text.parse().map_err(|error| refuse(format!("parse {text:?}: {error}")))?;
        Ok(Self { uri, headers: headers(action, agent).map_err(refuse)? })
    }

    /// The same without TLS.
    pub(crate) fn without_tls(self) -> Self {
        let text = self.uri.to_string().replacen("https://", "http://", 1);
        Self { uri: text.parse().unwrap_or(self.uri), headers: self.headers }
    }

    /// The error that this request failed in some way.
    pub(crate) fn failed(&self, message: &str) -> GetError {
        GetError::Exchange { uri: self.uri.clone(), message: message.to_owned() }
    }

    /// Sends it, and follows redirects to the same host.
    pub(crate) async fn send(&self) -> Result<Answer, GetError> {
        let mut uri = self.uri.clone();
        for _ in 0..REDIRECTS {
            let (answer, location) = exchange(&uri, &self.headers).await?;
            let next = location.and_then(|location| resolve(&uri, &location));
            match next.filter(|next| next.host() == self.uri.host()) {
                Some(next) => uri = next,
                None => return Ok(answer),
            }
        }
        let message = format!("stopped after {REDIRECTS} redirects");
        Err(GetError::Exchange { uri, message })
    }
}

/// What may stand in a path, query included, stays as it is.
fn escape(path: String) -> String {
    let kept = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    let escaped =
        path.bytes().map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    escaped.collect()
}

/// The headers of the action and those that it does not set (`pkg/probe/http/request.go`): an empty one that is set stays
/// away.
fn headers(action: &HTTPGetAction, agent: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in action.http_headers.iter().flatten() {
        let name: HeaderName =
            header.name.parse().map_err(|_| format!("invalid header field name {:?}", header.name))?;
        let value = HeaderValue::from_str(&header.value);
        let value = value.map_err(|_| format!("invalid header field value for {:?}", header.name))?;
        headers.append(name, value);
    }
    let defaults = [(USER_AGENT, agent), (ACCEPT, "*/*")];
    for (name, value) in defaults {
        if headers.get(&name).is_some_and(HeaderValue::is_empty) {
            headers.remove(&name);
        } else if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
        }
    }
    Ok(headers)
}

/// Asks once; the place of a redirect comes along.
async fn exchange(uri: &Uri, headers: &HeaderMap) -> Result<(Answer, Option<String>), GetError> {
    let fail = |message: String| GetError::Exchange { uri: uri.clone(), message };
    let (host, tls) = (uri.host().unwrap_or_default().to_owned(), uri.scheme_str() == Some("https"));
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = dial(&host, port).await.map_err(fail)?;
    let result = if tls {
        let stream = secure(stream, &host).await.map_err(|problem| match problem {
            Some(problem) => fail(problem),
            None => GetError::Plain { uri: uri.clone() },
        })?;
        converse(stream, uri, headers).await
    } else {
        converse(stream, uri, headers).await
    };
    result.map_err(fail)
}

/// TLS with whoever answers; no words if that is somebody who does not speak it.
async fn secure(stream: TcpStream, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Option<String>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Anyone(Arc::clone(&provider)));
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Some(error.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|error| Some(error.to_string()))?;
    let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    secured.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            // What a server of plain HTTP answers to a greeting is no record of TLS.
            Some(rustls::Error::InvalidMessage(_)) => None,
            Some(inner) => Some(format!("tls: {inner}")),
            None if error.kind() == std::io::ErrorKind::UnexpectedEof => Some("EOF".to_owned()),
            None => Some(errno_text(&error)),
        }
    })
}

async fn converse<S>(stream: S, uri: &Uri, headers: &HeaderMap) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = http::Request::builder().uri(path);
    if let Some(target) = request.headers_mut() {
        target.extend(headers.clone());
        let own = HeaderValue::from_str(uri.authority().map_or("", http::uri::Authority::as_str));
        target.entry(HOST).or_insert(own.map_err(|error| error.to_string())?);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| chain(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| chain(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| in_words(&error))?;
        let location = response.headers().get(LOCATION).filter(|_| is_redirect(response.status().as_u16()));
        let location = location.and_then(|location| location.to_str().ok()).map(str::to_owned);
        let (status, body) = (response.status().as_u16(), read_body(response.into_body()).await);
        Ok((Answer { status, body }, location))
    };
    // The connection is driven here and dropped with this future: no task is left behind by a timeout.
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = &mut exchange => result,
        _ = &mut connection => exchange.await,
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// What is broken off counts as far as it came.
async fn read_body(mut body: hyper::body::Incoming) -> String {
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await
        && kept.len() < BODY_LIMIT
    {
        if let Ok(data) = frame.into_data() {
            kept.extend_from_slice(&data[..data.len().min(BODY_LIMIT - kept.len())]);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// An error of an exchange in the words of Go's `net/http`.
fn in_words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() { "EOF".to_owned() } else { chain(error) }
}

/// Where a redirect leads (RFC 3986, section 5.2).
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    if location.contains("://") {
        return location.parse().ok();
    }
    if location.starts_with("//") {
        return format!("{scheme}:{location}").parse().ok();
    }
    let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    let path = match location.as_bytes().first() {
        Some(b'/') => location.to_owned(),
        Some(b'?') => format!("{}{location}", base.path()),
        _ => format!("{directory}/{location}"),
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

/// Opens a connection; the problem is worded as Go's `net.Dial` words it.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let name = host.trim_matches(['[', ']']);
    let address = if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
    let is_name = name.parse::<IpAddr>().is_err();
    match TcpStream::connect((name, port)).await {
        Ok(stream) => Ok(stream),
        Err(error) if error.raw_os_error().is_none() && is_name => {
            Err(format!("dial tcp: lookup {name}: no such host"))
        }
        Err(error) => Err(format!("dial tcp {address}: connect: {}", errno_text(&error))),
    }
}

/// A port by number, by its name in the container, or by a number in words.
pub(crate) fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let named = |name: &str| container.ports.iter().flatten().find(|one| one.name.as_deref() == Some(name));
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let number = named(name).map(|port| port.container_port).or_else(|| name.parse().ok());
            number.ok_or_else(|| format!("port {name} not found"))?
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Takes anybody's word for who they are: a kubelet asks for the health of containers whose certificates it cannot know.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
