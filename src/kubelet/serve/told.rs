//! What the kubelet says of itself: health, settings, what runs.

use std::sync::Arc;

use http::{Response, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::{ContainerState, SandboxStatus};
use serde_json::json;
use task::chain;

use super::{Body, json_text, plain};
use crate::shared::Shared;

/// `/healthz` and its parts. What makes pods run needs the runtime: if that does not answer, nothing goes on.
pub(super) async fn health(shared: &Shared, part: Option<&str>) -> Response<Body> {
    let ok = || plain(StatusCode::OK, "ok".to_owned());
    match part {
        Some("ping" | "log") => ok(),
        None | Some("syncloop") => match shared.seams.runtime.list().await {
            Ok(_) => ok(),
            Err(error) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("sync Loop took longer than expected: {}\n", chain(&error)),
            ),
        },
        Some(_) => plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

/// `/configz`: those of upstream's settings that exist here.
pub(super) fn settings(shared: &Shared) -> Response<Body> {
    let config = &shared.config;
    let reserved: serde_json::Map<_, _> =
        config.reserved.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    let document = json!({ "kubeletconfig": {
        "port": config.kubelet_port,
        "authentication": {
            "anonymous": { "enabled": false }, "webhook": { "enabled": true, "cacheTTL": "0s" },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "maxPods": config.max_pods,
        "podCIDR": config.pod_cidrs.join(","),
        "staticPodPath": config.manifest_dir,
        "resolvConf": config.resolv_conf,
        "systemReserved": reserved,
        "allowedUnsafeSysctls": config.allowed_unsafe_sysctls,
        "podLogsDir": config.log_root,
        "enableDebuggingHandlers": true,
        "enableSystemLogHandler": true,
        "enableSystemLogQuery": false,
        "crashLoopBackOff": { "maxContainerRestartPeriod": format!("{}s", config.longest_restart_backoff.as_secs()) },
        "serverTLSBootstrap": false,
    } });
    json_text(&document)
}

/// `/runningpods/`: what the runtime has, whatever the API server knows of it.
pub(super) async fn running(shared: &Arc<Shared>) -> Response<Body> {
    match shared.seams.runtime.list().await {
        Ok(sandboxes) => {
            let items = sandboxes.iter().filter(|sandbox| !names(sandbox).is_empty()).map(pod).collect();
            json_text(&List::<Pod> { items, ..List::default() })
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))),
    }
}

/// Name and image of what runs.
fn names(sandbox: &SandboxStatus) -> Vec<(&str, &str)> {
    let running = sandbox.containers.iter().filter(|one| matches!(one.state, ContainerState::Running { .. }));
    running.map(|one| (one.name.as_str(), one.image_reference.as_str())).collect()
}

fn pod(sandbox: &SandboxStatus) -> Pod {
    let container = |(name, image): (&str, &str)| Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        ..Container::default()
    };
    let containers = names(sandbox).into_iter().map(container).collect();
    let (name, namespace, uid) = (&sandbox.spec.name, &sandbox.spec.namespace, &sandbox.spec.pod_uid);
    Pod {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: Some(uid.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers, ..PodSpec::default() }),
        ..Pod::default()
    }
}
