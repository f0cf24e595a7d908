use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use task::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An HTTPS server that answers with what it saw; `/hang` never answers.
struct Server {
    url: String,
    ca: Vec<u8>,
    tasks: Tasks,
    connections: mpsc::UnboundedReceiver<Arc<Accepted>>,
}

/// A connection as the server sees it.
#[derive(Default)]
struct Accepted {
    /// Breaks it.
    cut: Notify,
    /// Tells that a request hangs on it.
    hanging: Notify,
}

async fn server(protocol: &'static [u8]) -> Server {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    tls.alpn_protocols = vec![protocol.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/prefix", listener.local_addr().unwrap());
    let (announce, connections) = mpsc::unbounded_channel();
    let tasks = Tasks::new();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let own = tasks.clone();
    tasks.spawn("accept", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let accepted = Arc::new(Accepted::default());
            announce.send(Arc::clone(&accepted)).unwrap();
            own.spawn("connection", converse(acceptor.clone(), stream, accepted));
        }
    });
    Server { url, ca: ca.pem().into_bytes(), tasks, connections }
}

async fn converse(acceptor: TlsAcceptor, stream: TcpStream, accepted: Arc<Accepted>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let answer = service_fn(|request| answer(request, Arc::clone(&accepted)));
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    tokio::select! {
        _ = builder.serve_connection(TokioIo::new(stream), answer) => {}
        () = accepted.cut.notified() => {}
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    accepted: Arc<Accepted>,
) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
    let token = request.headers().get(AUTHORIZATION).map_or("none", |value| value.to_str().unwrap()).to_owned();
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap();
    let body = request.into_body().collect().await?.to_bytes();
    if path.ends_with("/hang") {
        accepted.hanging.notify_one();
        std::future::pending::<()>().await;
    }
    Ok(http::Response::new(Full::new(Bytes::from(format!("{path} {token} {}", String::from_utf8_lossy(&body))))))
}

impl Server {
    fn config(&self, identity: Identity) -> HttpsConfig {
        HttpsConfig { server: self.url.clone(), ca: self.ca.clone(), server_name: None, identity }
    }

    fn transport(&self, identity: Identity) -> HttpsTransport {
        HttpsTransport::new(self.config(identity), &self.tasks).unwrap()
    }

    fn accepted(&mut self) -> Vec<Arc<Accepted>> {
        std::iter::from_fn(|| self.connections.try_recv().ok()).collect()
    }
}

async fn ask(transport: &HttpsTransport, path: &str, body: &'static str) -> Result<String, TransportError> {
    let request = Request::post(path).body(Bytes::from_static(body.as_bytes())).unwrap();
    let bytes = transport.send(request).await?.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_carry_prefix_query_body_and_token_in_both_versions_of_http() {
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let mut server = server(protocol).await;
        let transport = server.transport(Identity::Token("t0ken".into()));
        for _ in 0..3 {
            assert_eq!(ask(&transport, "/api?x=1", "hello").await.unwrap(), "/prefix/api?x=1 Bearer t0ken hello");
        }
        assert_eq!(server.accepted().len(), 1, "a connection is used again");
    }
}

#[tokio::test]
async fn a_token_file_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from-file\n").unwrap();
    let server = server(b"h2").await;
    let transport = server.transport(Identity::TokenFile(file.path().to_owned()));
    assert_eq!(ask(&transport, "/", "").await.unwrap(), "/prefix/ Bearer from-file ");
}

#[tokio::test]
async fn a_burst_opens_one_connection_and_a_further_one_only_when_that_is_full() {
    let mut server = server(b"h2").await;
    let transport = Arc::new(server.transport(Identity::Anonymous));
    let hanging = Tasks::new();
    for _ in 0..STREAMS {
        let transport = Arc::clone(&transport);
        hanging.spawn("hang", async move { ask(&transport, "/hang", "").await.map(drop) });
    }
    let full = || transport.open().iter().all(|connection| !connection.has_room());
    while transport.open().is_empty() || !full() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.accepted().len(), 1);
    ask(&transport, "/", "").await.unwrap();
    assert_eq!(server.accepted().len(), 1);
    hanging.shutdown().await;
    ask(&transport, "/", "").await.unwrap();
    assert_eq!(server.accepted().len(), 0, "room comes back when requests are given up");
}

#[tokio::test]
async fn a_broken_connection_fails_its_requests_and_the_next_request_connects_again() {
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let mut server = server(protocol).await;
        let transport = Arc::new(server.transport(Identity::Anonymous));
        ask(&transport, "/", "").await.unwrap();
        let connection = server.accepted().remove(0);
        let hanging = {
            let transport = Arc::clone(&transport);
            server.tasks.spawn("hang", async move { ask(&transport, "/hang", "").await.map(drop) })
        };
        connection.hanging.notified().await;
        connection.cut.notify_one();
        let error = hanging.await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.server, server.url);
        assert_eq!(ask(&transport, "/", "again").await.unwrap(), "/prefix/ none again");
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_talked_to() {
    let (server, other) = (server(b"h2").await, server(b"h2").await);
    let config = HttpsConfig { ca: other.ca.clone(), ..server.config(Identity::Token("secret".into())) };
    let transport = HttpsTransport::new(config, &server.tasks).unwrap();
    assert!(ask(&transport, "/", "").await.is_err());
}

#[tokio::test]
async fn plain_http_and_a_missing_authority_are_refused() {
    let tasks = Tasks::new();
    let config = |server: &str, ca: &[u8]| HttpsConfig {
        server: server.into(),
        ca: ca.to_vec(),
        server_name: None,
        identity: Identity::Anonymous,
    };
    let refused = |config| HttpsTransport::new(config, &tasks).err().unwrap();
    assert!(matches!(refused(config("http://host:6443", b"")), HttpsError::Server { .. }));
    assert!(matches!(refused(config("https://host:6443", b"")), HttpsError::NoAuthority));
}
