//! One version of a group that another server serves, and how that server is reached.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::FrontProxy;
use crate::object::meta;
use crate::proxy::{self, Sent, Wire};
use crate::server::ApiServer;
use crate::{Body, body, webhook};

/// Most bytes of a document that is read here and not only passed on.
const LONGEST: usize = 16 * 1024 * 1024;

/// A version of a group, as its APIService has it.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(super) name: String,
    pub(super) spec: Value,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(super) minimum: i64,
    pub(super) priority: i64,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// Whether its condition says that it answers.
    pub(super) is_available: bool,
    /// How it proves itself and this server to it; a sentence if that cannot be.
    pub(super) tls: Result<Arc<ClientConfig>, String>,
    /// The resources that it last said to have.
    pub(super) resources: Option<Value>,
    /// Where it says its OpenAPI document is, with its hash.
    pub(super) schema: Option<String>,
}

impl Remote {
    /// By an APIService with a Service; what is known of the same before is kept.
    pub(super) async fn new(object: &Value, before: Option<&Arc<Self>>, front: Option<&FrontProxy>) -> Self {
        let spec = object["spec"].clone();
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let place = &spec["service"];
        let before = before.filter(|before| before.spec == spec);
        let tls = match before {
            Some(before) => before.tls.clone(),
            None => trust(&spec, front).await.map(Arc::new),
        };
        let known = api::resources::apiservice::available(object);
        Self {
            name: meta(object, "name").to_owned(),
            group: text(&spec, "group"),
            version: text(&spec, "version"),
            minimum: spec["groupPriorityMinimum"].as_i64().unwrap_or(0),
            priority: spec["versionPriority"].as_i64().unwrap_or(0),
            namespace: text(place, "namespace"),
            service: text(place, "name"),
            port: place["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            is_available: known.is_some_and(|condition| condition["status"] == "True"),
            tls,
            resources: before.and_then(|before| before.resources.clone()),
            schema: before.and_then(|before| before.schema.clone()),
            spec,
        }
    }

    /// The name that its certificate must have.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Opens a connection; the error is a sentence as Go words it.
    pub(super) async fn dial(&self, server: &ApiServer) -> Result<Box<dyn Wire>, String> {
        let tls = self.tls.clone()?;
        let at = proxy::behind(server, &self.namespace, &self.service, self.port).await;
        let at = at.map_err(|error| error.message)?;
        let name = ServerName::try_from(self.host()).map_err(|_| "tls: invalid server name".to_owned())?;
        proxy::dial_secured(at, name, tls).await
    }

    /// Asks for a document as this server itself, which may read everything.
    pub(super) async fn read(&self, server: &ApiServer, path: &str, accept: &str) -> Result<(u16, Bytes), String> {
        let mut headers = HeaderMap::new();
        let user = api::user::UserInfo {
            username: "system:kube-aggregator".to_owned(),
            uid: String::new(),
            groups: vec![api::user::MASTERS.to_owned()],
            extra: std::collections::BTreeMap::new(),
        };
        super::forward::introduce(&mut headers, &user);
        let mut request =
            Request::get(path).header(http::header::HOST, self.host()).header(http::header::ACCEPT, accept);
        if let Some(own) = request.headers_mut() {
            own.extend(headers);
        }
        let request = request.body(proxy::sent(Full::new(Bytes::new()))).map_err(|error| error.to_string())?;
        let response = self.send(server, request).await?;
        let code = response.status().as_u16();
        Ok((code, body::whole(response.into_body(), LONGEST).await.map_err(|error| error.message)?))
    }

    /// Sends a request on a connection of its own.
    pub(super) async fn send(&self, server: &ApiServer, request: Request<Sent>) -> Result<Response<Body>, String> {
        proxy::send_over(self.dial(server).await?, request).await
    }
}

/// How the other side proves itself, and this server to it.
async fn trust(spec: &Value, front: Option<&FrontProxy>) -> Result<ClientConfig, String> {
    let (certificate, key) = front
        .and_then(|front| front.credential.to_der())
        .ok_or_else(|| "this server has no identity for others".to_owned())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = if spec["insecureSkipTLSVerify"] == true {
        builder.dangerous().with_custom_certificate_verifier(proxy::anyone())
    } else {
        let bundle = STANDARD.decode(spec["caBundle"].as_str().unwrap_or_default()).unwrap_or_default();
        let roots: RootCertStore = task::blocking(move || webhook::roots(&bundle)).await;
        builder.with_root_certificates(roots)
    };
    builder.with_client_auth_cert(vec![certificate], key).map_err(|error| error.to_string())
}
