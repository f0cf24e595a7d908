//! Whether the server of a group answers, and if not, why (`remote_available_controller.go` of kube-aggregator).

use std::time::Duration;

use api::resources::{self, Resource};
use api::status::ApiError;
use serde_json::Value;

use super::Remote;
use crate::proxy;
use crate::server::ApiServer;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(6);

/// Why a group is not available: status, reason and message of the condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

fn problem(reason: &'static str, message: String) -> Problem {
    Problem { status: "False", reason, message }
}

/// The resources that the server of a group has, in the legacy form.
pub(super) async fn check(server: &ApiServer, remote: &Remote) -> Result<Value, Problem> {
    let (name, namespace) = (&remote.service, &remote.namespace);
    let inaccessible = |error: ApiError| Problem {
        status: "Unknown",
        reason: "ServiceAccessError",
        message: format!("service/{name} in {namespace:?} cannot be checked due to: {}", error.message),
    };
    let service = match server.read(services().map_err(inaccessible)?, namespace, name).await {
        Ok((service, _)) => service,
        Err(error) if error.code == 404 => {
            return Err(problem("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
        }
        Err(error) => return Err(inaccessible(error)),
    };
    if matches!(service["spec"]["type"].as_str(), None | Some("ClusterIP")) {
        let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let Some(port) = ports.find(|port| port["port"].as_u64() == Some(remote.port.into())) else {
            let message = format!("service/{name} in {namespace:?} is not listening on port {}", remote.port);
            return Err(problem("ServicePortError", message));
        };
        let port = port["name"].as_str().unwrap_or_default();
        let found = proxy::endpoints_behind(server, namespace, name, port).await;
        match found.map_err(inaccessible)? {
            None => {
                let message = format!("cannot find endpoints for service/{name} in {namespace:?}");
                return Err(problem("EndpointsNotFound", message));
            }
            Some(0) => {
                let message =
                    format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {port:?}");
                return Err(problem("MissingEndpoints", message));
            }
            Some(_) => {}
        }
    }
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let url = format!("https://{}:{}{path}", remote.host(), remote.port);
    let asked = tokio::time::timeout(PATIENCE, remote.read(server, &path, "application/json")).await;
    let failed = |text: String| problem("FailedDiscoveryCheck", text);
    match asked {
        Err(_) => Err(failed(format!("timed out waiting for {url}"))),
        Ok(Err(why)) => Err(failed(format!("failing or missing response from {url}: Get {url:?}: {why}"))),
        Ok(Ok((200..=299, body))) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
        Ok(Ok((code, _))) => {
            Err(failed(format!("failing or missing response from {url}: bad status from {url}: {code}")))
        }
    }
}

fn services() -> Result<&'static Resource, ApiError> {
    resources::find("", "v1", "services").ok_or_else(|| ApiError::internal("no kind services"))
}

/// Where the server says that the OpenAPI document of its group is.
pub(super) async fn schema(server: &ApiServer, remote: &Remote) -> Option<String> {
    let asked = tokio::time::timeout(PATIENCE, remote.read(server, "/openapi/v3", "application/json")).await;
    let Ok(Ok((200, body))) = asked else { return None };
    let index: Value = serde_json::from_slice(&body).ok()?;
    let address = &index["paths"][format!("apis/{}/{}", remote.group, remote.version)]["serverRelativeURL"];
    let own = format!("/openapi/v3/apis/{}/{}", remote.group, remote.version);
    // Whatever it says, clients are led to its own document only.
    address.as_str().filter(|address| address.split('?').next() == Some(&own)).map(str::to_owned)
}
