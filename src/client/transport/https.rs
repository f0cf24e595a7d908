//! HTTPS to any API server.
//!
//! Requests share HTTP/2 connections, watches included; a further connection is opened when one carries [`STREAMS`]
//! requests. Servers without HTTP/2 get HTTP/1.1 connections, each kept for the next request. Dead connections are found
//! by pings and replaced by the next request; a request is repeated only if none of it was sent. The server must always
//! prove itself to the configured authority.

mod connection;
mod pinned;
mod tls;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Request, Response, Uri};
use task::Tasks;
use tokio::time::Instant;

use crate::transport::{Body, BoxError, Transport, TransportError};
use connection::{Attempt, Connection, Connector};

pub use pinned::{AuthorityError, Fingerprint, authority};
pub use tls::HttpsError;

/// Requests on one HTTP/2 connection at most; upstream API servers admit 100.
const STREAMS: usize = 80;
/// HTTP/1.1 connections that are kept for a next request.
const KEPT: usize = 8;
/// Until the head of an answer must be there.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a token read from a file is used before it is read again, as client-go.
const TOKEN_AGE: Duration = Duration::from_secs(60);

/// Where the API server is and who we are.
#[derive(Debug, Clone)]
pub struct HttpsConfig {
    /// `https://host:port`, possibly with a path.
    pub server: String,
    /// Certificates of the server's authority, PEM.
    pub ca: Vec<u8>,
    /// Name that the server's certificate must have, if it is not the host's.
    pub server_name: Option<String>,
    /// Who we are.
    pub identity: Identity,
}

/// Who we are.
#[derive(Clone)]
pub enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// A client certificate with its chain, and its key; PEM.
    Certificate {
        /// Certificates, ours first.
        chain: Vec<u8>,
        /// Private key.
        key: Vec<u8>,
    },
    /// A bearer token.
    Token(String),
    /// A file with a bearer token that somebody else keeps fresh.
    TokenFile(PathBuf),
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Certificate { .. } => "Certificate(redacted)",
            Self::Token(_) => "Token(redacted)",
            Self::TokenFile(_) => "TokenFile",
        })
    }
}

/// A transport over TLS.
pub struct HttpsTransport {
    connector: Connector,
    /// Makes connecting single-file, so that a burst of requests opens one connection and not one each.
    opening: tokio::sync::Mutex<()>,
    open: Mutex<Vec<Connection>>,
    server: String,
    authority: Authority,
    prefix: String,
    identity: Identity,
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

impl HttpsTransport {
    /// A transport whose connections end with the task group. Connects when the first request comes.
    pub fn new(config: HttpsConfig, tasks: &Tasks) -> Result<Self, HttpsError> {
        let (uri, authority) = split(&config.server)?;
        let (host, port) = place(&authority);
        let name = tls::server_name(config.server_name.as_deref().unwrap_or(&host))?;
        let connector = Connector { tls: tls::client_config(&config)?, name, host, port, tasks: tasks.clone() };
        Ok(Self {
            connector,
            opening: tokio::sync::Mutex::new(()),
            open: Mutex::new(Vec::new()),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            server: config.server,
            authority,
            identity: config.identity,
            token: Mutex::new(None),
        })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection with room, if there is one. HTTP/1.1 connections are taken out.
    fn pick(&self) -> Option<Connection> {
        let mut open = self.open();
        open.retain(Connection::is_open);
        let index = open.iter().position(Connection::has_room)?;
        Some(open[index].share().unwrap_or_else(|| open.swap_remove(index)))
    }

    fn keep(&self, connection: Connection) {
        let mut open = self.open();
        if !connection.is_shared() && open.iter().filter(|other| !other.is_shared()).count() < KEPT {
            open.push(connection);
        }
    }

    async fn connection(&self) -> Result<Connection, BoxError> {
        if let Some(connection) = self.pick() {
            return Ok(connection);
        }
        let _turn = self.opening.lock().await;
        if let Some(connection) = self.pick() {
            return Ok(connection);
        }
        let connection = self.connector.connect().await?;
        if let Some(shared) = connection.share() {
            self.open().push(shared);
        }
        Ok(connection)
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Body>, BoxError> {
        let mut request = self.address(request).await?;
        loop {
            let mut connection = self.connection().await?;
            match tokio::time::timeout(ANSWER, connection.send(request)).await? {
                Attempt::Answered(response) => {
                    self.keep(connection);
                    return Ok(response);
                }
                Attempt::Unsent(back) => request = *back,
                Attempt::Failed(error) => return Err(error),
            }
        }
    }

    /// Completes the request's address and adds our token.
    async fn address(&self, request: Request<Bytes>) -> Result<Request<Bytes>, BoxError> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = format!("{}{path}", self.prefix);
        parts.uri = Uri::builder().scheme("https").authority(self.authority.clone()).path_and_query(path).build()?;
        parts.headers.insert(HOST, HeaderValue::from_str(self.authority.as_str())?);
        if let Some(token) = self.token().await? {
            parts.headers.insert(AUTHORIZATION, token);
        }
        Ok(Request::from_parts(parts, body))
    }

    async fn token(&self) -> Result<Option<HeaderValue>, BoxError> {
        match &self.identity {
            Identity::Anonymous | Identity::Certificate { .. } => Ok(None),
            Identity::Token(token) => Ok(Some(bearer(token)?)),
            Identity::TokenFile(path) => {
                let cached = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some((token, read)) = cached
                    && read.elapsed() < TOKEN_AGE
                {
                    return Ok(Some(token));
                }
                let path = path.clone();
                let text = task::blocking(move || std::fs::read_to_string(path)).await?;
                let token = bearer(text.trim())?;
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some((token.clone(), Instant::now()));
                Ok(Some(token))
            }
        }
    }
}

/// An `https` URL, and who is meant by it.
fn split(server: &str) -> Result<(Uri, Authority), HttpsError> {
    let refused = || HttpsError::Server { server: server.to_owned() };
    let uri: Uri = server.parse().map_err(|_| refused())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https")).cloned();
    Ok((uri, authority.ok_or_else(refused)?))
}

/// Host, without the brackets of an IPv6 address, and port.
fn place(authority: &Authority) -> (String, u16) {
    (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(443))
}

fn bearer(token: &str) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[async_trait]
impl Transport for HttpsTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let unreachable = |source| TransportError { server: self.server.clone(), source };
        self.exchange(request).await.map_err(unreachable)
    }
}
