//! The way to kubelets on other machines: TLS with this server's certificate, to a server whose certificate is of the
//! cluster's authority.
//!
//! Where a kubelet is, its node's status says (`pkg/kubelet/client`), and its certificate must name that address: whoever
//! may write a status can lead requests astray, but not to somebody who is not known by that name. Each request has a
//! connection of its own, as those to pods.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::resources;
use api::status::ApiError;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use store::Store;
use task::Tasks;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{address, exchange, tunnel};
use crate::node::{NodeConnector, NodeError};
use crate::pki::Credential;
use crate::serve::TlsConfigError;
use crate::server::{Body, BoxError};
use crate::{object, storage};

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reaches kubelets over the network.
pub struct Kubelets {
    store: Arc<dyn Store>,
    connector: TlsConnector,
    tasks: Tasks,
}

impl Kubelets {
    /// Kubelets of the nodes in a store; connections that change their protocol end with the tasks.
    ///
    /// # Errors
    /// If the authority (PEM) or the credential is unusable.
    pub fn new(
        store: Arc<dyn Store>,
        authority: &str,
        credential: &Credential,
        tasks: Tasks,
    ) -> Result<Self, TlsConfigError> {
        let pem = |what| TlsConfigError::Pem { what };
        let root = CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|_| pem("certificate authority"))?;
        let mut roots = RootCertStore::empty();
        roots.add(root).map_err(|_| pem("certificate authority"))?;
        let (certificate, key) = credential.to_der().ok_or(pem("client's credential"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsConfigError::Certificate)?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(TlsConfigError::Certificate)?;
        Ok(Self { store, connector: TlsConnector::from(Arc::new(config)), tasks })
    }

    /// Host and port of a node's kubelet.
    async fn place(&self, node: &str) -> Result<(String, u16), ApiError> {
        let row = resources::find("", "v1", "nodes").ok_or_else(|| ApiError::internal("no kind nodes"))?;
        let found = self.store.get(&storage::key(row, "", node)).await.map_err(storage::failed)?;
        let found = found.ok_or_else(|| ApiError::not_found("", "nodes", node))?;
        let node = object::of_entry(&found)?;
        Ok((address::of_node(&node)?.to_owned(), address::kubelet_port(&node)))
    }

    async fn exchange(&self, node: &str, request: Request<Bytes>) -> Result<Response<Body>, BoxError> {
        let (host, port) = self.place(node).await.map_err(|error| error.message)?;
        let authority = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(HOST, HeaderValue::from_str(&authority)?);
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let request = Request::from_parts(parts, Full::new(body));
        let connecting = async {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, BoxError>(self.connector.connect(ServerName::try_from(host.clone())?, stream).await?)
        };
        let stream = tokio::time::timeout(PATIENCE, connecting).await??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let Some(client) = upgrade else {
            return Ok(exchange::drive(Box::pin(sender.send_request(request)), Box::pin(connection)).await?);
        };
        let driven = tunnel::Held::new(self.tasks.spawn("kubelet connection", connection.with_upgrades()));
        let mut response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response.map(|body| driven.with(body.map_err(BoxError::from))));
        }
        let kubelet = hyper::upgrade::on(&mut response);
        self.tasks.spawn("kubelet session", async move {
            let _driven = driven;
            tunnel::join(client, kubelet).await;
        });
        Ok(response.map(|_| crate::respond::empty()))
    }
}

#[async_trait]
impl NodeConnector for Kubelets {
    async fn send(&self, node: &str, request: Request<Bytes>) -> Result<Response<Body>, NodeError> {
        let failed = |source| NodeError { node: node.to_owned(), source };
        self.exchange(node, request).await.map_err(failed)
    }
}
