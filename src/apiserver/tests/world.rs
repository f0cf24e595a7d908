//! A server in memory, with seeded randomness and simulated time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::user::{MASTERS, UserInfo};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use store::{HistoryLimits, MemoryStore};
use task::{SharedClock, SimulatedClock, SystemClock, Tasks};

pub(super) use super::samples::{sample, sample_of};
use crate::authn::{Issuer, SigningKeys, StaticTokens};
use crate::fairness::Limits;
use crate::{ApiServer, Body, Caller, Config, Entropy, Network, NodeConnector, NodeError, VersionInfo};

/// A server and who owns its tasks.
pub(super) struct World {
    pub(super) server: Arc<ApiServer>,
    pub(super) tasks: Tasks,
}

/// An answer that is complete.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The document of an answer that must have this code.
    pub(super) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }
}

pub(super) fn admin() -> UserInfo {
    UserInfo::authenticated("admin", &[MASTERS])
}

pub(super) fn node(name: &str) -> UserInfo {
    UserInfo::authenticated(&format!("system:node:{name}"), &["system:nodes"])
}

/// A kubelet that repeats what it was asked.
struct Echo;

#[async_trait]
impl NodeConnector for Echo {
    async fn send(&self, node: &str, request: Request<Bytes>) -> Result<Response<Body>, NodeError> {
        if node == "unreachable" {
            let source = Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
            return Err(NodeError { node: node.to_owned(), source });
        }
        let mut text = format!("{node} {}", request.uri());
        if request.uri().path() == "/stats/summary" {
            text = super::usage::summary();
        }
        let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
        if request.uri().path().ends_with("/waiting") {
            *response.status_mut() = http::StatusCode::BAD_REQUEST;
        }
        Ok(response)
    }
}

impl World {
    /// A started server whose time stands still; needs paused tokio time.
    pub(super) async fn new() -> Self {
        let clock: SharedClock = Arc::new(SimulatedClock::starting_at("2026-01-02T03:04:05Z".parse().unwrap()));
        Self::with(clock, Entropy::seeded(1), Limits::default()).await
    }

    /// A started server in real time with limits of its own.
    pub(super) async fn limited(limits: Limits) -> Self {
        Self::with(Arc::new(SystemClock), Entropy::system(), limits).await
    }

    async fn with(clock: SharedClock, entropy: Entropy, limits: Limits) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::clone(&clock), HistoryLimits::default()));
        let mut version = VersionInfo::of_release("0.0.0");
        version.platform = "linux/amd64".to_owned();
        let tokens = StaticTokens::parse("sesame,jane,7,\"system:masters\"").unwrap();
        let config = Config {
            store,
            clock,
            entropy,
            version,
            nodes: Arc::new(Echo),
            tokens,
            issuer: Issuer::new("cluster.local", SigningKeys::generate().unwrap()),
            services: Network::default(),
            advertise: SocketAddr::from(([192, 0, 2, 1], 6443)),
        };
        let server = ApiServer::with(config, limits);
        let tasks = Tasks::new();
        server.start(&tasks).await.unwrap();
        let world = Self { server, tasks };
        world.ask("POST /api/v1/namespaces/default/serviceaccounts", sample("", "default")).await.expect(201);
        world
    }

    pub(super) async fn raw(&self, user: UserInfo, request: Request<Full<Bytes>>) -> Response<Body> {
        self.server.handle(Caller { user }, request).await
    }

    /// Sends a request as `METHOD path` with headers and waits for the whole answer.
    pub(super) async fn send(&self, user: UserInfo, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let (parts, body) = self.raw(user, request).await.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// A request of the administrator with a JSON body; null for none.
    pub(super) async fn ask(&self, line: &str, body: Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send(admin(), line, &[], &text).await
    }

    pub(super) async fn patch(&self, path: &str, kind: &str, body: Value) -> Answer {
        let content_type = format!("application/{kind}+json");
        self.send(admin(), &format!("PATCH {path}"), &[("content-type", &content_type)], &body.to_string()).await
    }

    /// Starts a watch of the administrator.
    pub(super) async fn watch(&self, path: &str) -> Events {
        let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
        let response = self.raw(admin(), request).await;
        assert_eq!(response.status(), 200, "{path}");
        Events { body: response.into_body(), buffer: BytesMut::new() }
    }
}

/// The events of a watch.
pub(super) struct Events {
    body: Body,
    buffer: BytesMut,
}

impl Events {
    /// The next event, or none at the end.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Some(serde_json::from_slice(&self.buffer.split_to(end + 1)).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// The next event as `TYPE name`.
    pub(super) async fn brief(&mut self) -> String {
        let Some(event) = self.next().await else { return "end".to_owned() };
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    }

    /// Asserts that nothing comes for a while (of simulated time).
    pub(super) async fn is_quiet(&mut self) {
        let waited = tokio::time::timeout(Duration::from_secs(5), self.next()).await;
        assert!(waited.is_err(), "unexpected event {waited:?}");
    }
}
