//! Connections: TLS, client certificates, tokens, both HTTP versions, shutdown.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use task::{Clock, SystemClock, Tasks};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::World;
use crate::fairness::Limits;
use crate::pki::{Credential, Kubeconfig, Pki, Subject};
use crate::{Entropy, tls_config};

/// A server on a port of loopback.
pub(super) struct Served {
    pub(super) world: World,
    pki: Pki,
    pub(super) port: u16,
    stop: Tasks,
    serving: JoinHandle<Option<()>>,
    _directory: TempDir,
}

fn now() -> Timestamp {
    SystemClock.now()
}

impl Served {
    pub(super) async fn start() -> Self {
        Self::limited(Limits::default()).await
    }

    /// One with limits of its own.
    pub(super) async fn limited(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path(), now(), &Entropy::system()).unwrap();
        let credential = pki.credential("server", &Subject::api_server("n1", &[]), now()).unwrap();
        let tls = tls_config(pki.certificate(), &credential).unwrap();
        let world = World::limited(limits).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Tasks::new();
        let serving = Tasks::new().spawn("serve", Arc::clone(&world.server).serve(listener, tls, stop.clone()));
        Self { world, pki, port, stop, serving, _directory: directory }
    }

    pub(super) fn admin(&self) -> Credential {
        self.pki.mint(&Subject::client("admin", &["system:masters"]), now()).unwrap()
    }

    pub(super) fn kubeconfig(&self) -> String {
        let server = format!("https://127.0.0.1:{}", self.port);
        let (credential, authority) = (self.admin(), self.pki.certificate());
        let config = Kubeconfig { server: &server, cluster: "test", user: "admin", authority, credential: &credential };
        config.render()
    }

    pub(super) async fn connect(
        &self,
        name: &str,
        alpn: &str,
        client: Option<&Credential>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pki.certificate().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match client {
            Some(client) => {
                let (certificate, key) = client.to_der().unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The code of `GET path` over HTTP/1.1, or none if the connection is refused.
    pub(super) async fn get(&self, path: &str, token: &str, client: Option<&Credential>) -> Option<u16> {
        let stream = self.connect("localhost", "http/1.1", client).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        let tasks = Tasks::new();
        tasks.spawn("client", connection);
        let mut request = Request::get(path).header("host", "localhost");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.ok()?;
        tasks.stop();
        Some(response.status().as_u16())
    }

    pub(super) async fn stop(self) {
        self.stop.stop();
        self.serving.await.unwrap();
        self.world.tasks.shutdown().await;
    }
}

#[tokio::test]
async fn certificates_and_tokens_say_who_somebody_is() {
    let served = Served::start().await;
    let admin = served.admin();
    let node = served.pki.mint(&Subject::client("system:node:n1", &["system:nodes"]), now()).unwrap();
    assert_eq!(served.get("/api/v1/pods", "", Some(&admin)).await, Some(200));
    assert_eq!(served.get("/api/v1/nodes", "", Some(&node)).await, Some(200));
    assert_eq!(served.get("/api/v1/pods", "", Some(&node)).await, Some(403));
    assert_eq!(served.get("/api/v1/pods", "sesame", None).await, Some(200));
    assert_eq!(served.get("/api/v1/pods", "wrong", None).await, Some(401));
    assert_eq!(served.get("/version", "wrong", None).await, Some(401));
    assert_eq!(served.get("/version", "", None).await, Some(200));
    assert_eq!(served.get("/api/v1/pods", "", None).await, Some(403));
    served.stop().await;
}

#[tokio::test]
async fn certificates_of_others_and_of_servers_are_refused() {
    let served = Served::start().await;
    let directory = tempfile::tempdir().unwrap();
    let other = Pki::open(directory.path(), now(), &Entropy::system()).unwrap();
    let forged = other.mint(&Subject::client("admin", &["system:masters"]), now()).unwrap();
    assert_eq!(served.get("/version", "", Some(&forged)).await, None);
    let server = served.pki.mint(&Subject::api_server("n1", &[]), now()).unwrap();
    assert_eq!(served.get("/version", "", Some(&server)).await, None, "a server's certificate is no client's");
    served.stop().await;
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_under_every_name() {
    let served = Served::start().await;
    for name in ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default.svc.cluster.local", "n1"] {
        let stream = served.connect(name, "h2", Some(&served.admin())).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let tasks = Tasks::new();
        tasks.spawn("client", connection);
        let request =
            Request::get("https://localhost/api/v1/namespaces?limit=1").body(Full::new(Bytes::new())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
        assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());
        tasks.stop();
    }
    assert!(served.connect("elsewhere", "h2", None).await.is_err());
    served.stop().await;
}

#[tokio::test]
async fn a_stop_ends_watches_and_refuses_new_connections() {
    let served = Served::start().await;
    let stream = served.connect("localhost", "http/1.1", Some(&served.admin())).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let tasks = Tasks::new();
    tasks.spawn("client", connection);
    let request =
        Request::get("/api/v1/pods?watch=1").header("host", "localhost").body(Full::new(Bytes::new())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    let port = served.port;
    served.stop().await;
    let rest = response.into_body().collect().await.expect("the body ends cleanly");
    assert!(rest.to_bytes().is_empty());
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
