//! The API as those see it who come over the network.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use client::{Client, Transport, TransportError};
use http::HeaderMap;
use http_body_util::{Full, combinators::BoxBody};
use hyper::client::conn::http1;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use super::*;
use crate::simulation::World;

/// An API server that knows one token, and lets everybody read metrics and jane run commands.
struct Reviews;

#[async_trait]
impl Transport for Reviews {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let mut review: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let spec = review["spec"].clone();
        match request.uri().path().rsplit('/').next().unwrap_or_default() {
            "tokenreviews" if spec["token"] == "sesame" => {
                review["status"] = json!({ "authenticated": true, "user": { "username": "jane", "groups": ["g"] } });
            }
            "tokenreviews" => review["status"] = json!({ "error": "invalid bearer token" }),
            "subjectaccessreviews" => {
                let asked = &spec["resourceAttributes"];
                assert_eq!((&asked["resource"], &asked["name"]), (&json!("nodes"), &json!("edge")));
                let allowed = match (spec["user"].as_str(), asked["verb"].as_str(), asked["subresource"].as_str()) {
                    (_, Some("get"), Some("metrics")) | (Some("jane"), _, Some("proxy")) => true,
                    (user, ..) => user == Some("broken"),
                };
                review["status"] = json!({ "allowed": allowed });
            }
            // Nothing else is there.
            _ => {
                let mut response = Response::new(BoxBody::new(Full::default().map_err(|never| match never {})));
                *response.status_mut() = StatusCode::NOT_FOUND;
                return Ok(response);
            }
        }
        let text = Full::new(Bytes::from(review.to_string())).map_err(|never| match never {});
        Ok(Response::new(BoxBody::new(text)))
    }
}

/// An authority and what it has issued.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }

    fn door(&self) -> Door {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), Arc::clone(&provider));
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let (certificate, key) = self.issue("edge");
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).unwrap();
        // Who has a certificate here is the scheduler, whatever is in it.
        Door { tls: Arc::new(tls), identify: |_| Some(UserInfo::authenticated("scheduler", &[])) }
    }
}

/// A request with a token or a certificate, on a connection of its own.
async fn ask(
    authority: &Authority,
    at: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    certificate: bool,
) -> (u16, HeaderMap, String) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(authority.roots());
    let config = match certificate {
        true => {
            let (certificate, key) = authority.issue("scheduler");
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        false => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let tasks = Tasks::new();
    tasks.spawn("client", connection);
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    tasks.shutdown().await;
    (parts.status.as_u16(), parts.headers, text)
}

#[tokio::test]
async fn nobody_is_served_without_a_name_and_nobody_beyond_his_rights() {
    let client = Client::new(Arc::new(Reviews), "test");
    let world = World::new();
    let shared = world.shared_with(client);
    let authority = Authority::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    shared.seams.tasks.spawn("listener", listen(Arc::clone(&shared), listener, authority.door()));
    let ask = async |line: &str, headers: &[(&str, &str)], certificate| {
        let (code, _, text) = ask(&authority, at, line, headers, certificate).await;
        (code, text)
    };
    for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "Basic sesame")]] {
        for path in ["/healthz", "/metrics", "/pods", "/"] {
            let refused = (401, "Unauthorized".to_owned());
            assert_eq!(ask(&format!("GET {path}"), headers, false).await, refused, "{path} {headers:?}");
        }
    }
    let jane = [("authorization", "Bearer sesame")];
    assert_eq!(ask("GET /healthz", &jane, false).await, (200, "ok".to_owned()));
    assert_eq!(ask("POST /healthz", &jane, false).await.0, 405);
    assert_eq!(ask("GET /nothing", &jane, false).await.0, 404);
    assert_eq!(ask("POST /run/default/absent/c?cmd=true", &jane, false).await.0, 404);
    let (code, text) = ask("GET /metrics", &jane, false).await;
    assert!(code == 200 && text.contains("kubelet_node_name{node=\"edge\"} 1"), "{code} {text}");
    // The scheduler is known by its certificate, whatever token it shows, and may read metrics only.
    assert_eq!(ask("GET /metrics/resource", &jane, true).await.0, 200);
    let refused = "Forbidden (user=scheduler, verb=get, resource=nodes, subresource(s)=[healthz proxy])\n";
    assert_eq!(ask("GET /healthz", &jane, true).await, (403, refused.to_owned()));
    let refused = "Forbidden (user=scheduler, verb=create, resource=nodes, subresource(s)=[proxy])\n";
    assert_eq!(ask("GET /exec/a/b/c?command=x&output=1", &[], true).await, (403, refused.to_owned()));
    shared.seams.tasks.shutdown().await;
}
