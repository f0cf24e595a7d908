//! The sandbox of a pod.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use runtime::{PidSharing, SandboxId, SandboxSpec, Sharing};

use super::{ConfigError, Qos, pod_resources, qos};

/// Longest host name without a domain: a label of RFC 1123.
const HOST_NAME_LIMIT: usize = 63;
/// Longest name that the kernel takes, see uname(2).
const WHOLE_NAME_LIMIT: usize = 64;

/// What the sandbox of a pod shall be, but for the ids of its user namespace, which are picked and not translated, and for
/// its [`kernel_name`], which may be too long.
pub fn sandbox_spec(pod: &Pod, attempt: u32, cgroup_prefix: &Path, log_directory: PathBuf) -> SandboxSpec {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let uid = text(&pod.metadata.uid);
    let spec = pod.spec.as_ref();
    let host = |wish: Option<bool>| if wish == Some(true) { Sharing::Host } else { Sharing::Sandbox };
    let pid = match spec {
        Some(spec) if spec.host_pid == Some(true) => PidSharing::Host,
        Some(spec) if spec.share_process_namespace == Some(true) => PidSharing::Sandbox,
        _ => PidSharing::Container,
    };
    let sysctls = spec.and_then(|spec| spec.security_context.as_ref()).and_then(|all| all.sysctls.as_ref());
    SandboxSpec {
        id: SandboxId::new(&uid, attempt),
        attempt,
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        hostname: host_name(pod),
        network: host(spec.and_then(|spec| spec.host_network)),
        ipc: host(spec.and_then(|spec| spec.host_ipc)),
        pid,
        cgroup: cgroup(pod, cgroup_prefix),
        resources: pod_resources(pod),
        log_directory,
        sysctls: sysctls.into_iter().flatten().map(|one| (one.name.clone(), one.value.clone())).collect(),
        user_namespace: None,
        handler: None,
        pod_uid: uid,
    }
}

/// The pod's cgroup: `<prefix>[/burstable|/besteffort]/pod<uid>`, as kubelet's cgroupfs driver names it.
pub fn cgroup(pod: &Pod, prefix: &Path) -> PathBuf {
    let leaf = format!("pod{}", pod.metadata.uid.as_deref().unwrap_or_default());
    match qos(pod) {
        Qos::Guaranteed => prefix.join(leaf),
        Qos::Burstable => prefix.join("burstable").join(leaf),
        Qos::BestEffort => prefix.join("besteffort").join(leaf),
    }
}

/// The host name of the pod, without its domain: what overrides it (KEP-4762), else `spec.hostname`, else its own name,
/// shortened to what the kernel takes.
pub fn host_name(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    if let Some(name) = spec.and_then(|spec| spec.hostname_override.as_ref()) {
        return name.chars().take(WHOLE_NAME_LIMIT).collect();
    }
    let asked = spec.and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let name = asked.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let short: String = name.chars().take(HOST_NAME_LIMIT).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The host name of the pod with its domain, if a subdomain gives it one.
pub(super) fn whole_name(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let spec = pod.spec.as_ref().filter(|spec| spec.hostname_override.is_none())?;
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Some(format!("{}.{subdomain}.{namespace}.svc.{cluster_domain}", host_name(pod)))
}

/// What the kernel is told: the host name, or the whole one for `setHostnameAsFQDN`.
pub fn kernel_name(pod: &Pod, cluster_domain: &str) -> Result<String, ConfigError> {
    let whole = pod.spec.as_ref().is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    match whole_name(pod, cluster_domain).filter(|_| whole) {
        Some(name) if name.len() > WHOLE_NAME_LIMIT => {
            Err(ConfigError::NameTooLong { length: name.len(), name, limit: WHOLE_NAME_LIMIT })
        }
        Some(name) => Ok(name),
        None => Ok(host_name(pod)),
    }
}
