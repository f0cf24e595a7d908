//! From a pod to what the runtime understands: a pure translation.
//!
//! Called by the worker when a sandbox or container is started, and by volumes for the downward API. It fetches nothing
//! and writes nothing: objects that a container refers to, addresses and paths come in [`Context`]. Invariant: what cannot
//! be translated is an error that names the field or object, never left out.

mod command;
mod credentials;
mod env;
mod error;
mod fields;
mod files;
pub(crate) mod huge_pages;
mod links;
mod ports;
mod program;
mod qos;
mod resources;
mod sandbox;
mod security;
mod unsupported;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use runtime::{ContainerId, ContainerSpec, ImageDefaults, ImageId, Mount};

pub use command::expand;
pub use credentials::pull_credentials;
pub use error::ConfigError;
pub use fields::{field, resource_field};
pub use files::{Dns, ResolvConf, hosts_file, name_resolution, resolv_conf};
pub use links::links;
pub use ports::host_ports;
pub(crate) use ports::{host_ip, published};
pub(crate) use program::{not_run, not_started};
pub use qos::{Qos, qos};
pub(crate) use resources::{MIN_SHARES, shares};
pub use resources::{amount, pod_resources, resize};
pub use sandbox::{cgroup, host_name, kernel_name, sandbox_spec};
pub use unsupported::unsupported_fields;

/// Objects that a pod refers to; absent ones are not in the maps.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Tokens of the pod's account.
    pub tokens: BTreeMap<TokenWish, Token>,
}

/// Which token a volume asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenWish {
    /// Whom it is for; empty for the API server.
    pub audience: String,
    /// How long it shall be good.
    pub seconds: i64,
}

/// A token of the pod's account.
#[derive(Clone)]
pub struct Token {
    /// What is written to the file.
    pub text: String,
    /// When to put another in its place.
    pub renew_at: Timestamp,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// What a pod's containers must know about where they run.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// The node's addresses.
    pub host_ips: Vec<IpAddr>,
    /// The node's memory in bytes.
    pub node_memory: i64,
    /// What of the node pods may ask for: CPU in thousandths, the others as they are.
    pub allocatable: BTreeMap<String, i64>,
    /// The sizes of huge pages that the node has.
    pub huge_page_sizes: Vec<u64>,
    /// Directory of `Localhost` seccomp profiles.
    pub seccomp_profiles: PathBuf,
    /// Variables that name the Services.
    pub links: Vec<(String, String)>,
    /// Objects referred to.
    pub references: References,
}

/// One container about to be started.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// What it shall be.
    pub container: &'a Container,
    /// Identity to give it.
    pub id: ContainerId,
    /// How often it was started before.
    pub attempt: u32,
    /// Its image.
    pub image: ImageId,
    /// What its image says.
    pub defaults: &'a ImageDefaults,
    /// Volumes and files, ready to be mounted.
    pub mounts: Vec<Mount>,
    /// A container whose processes it shall see.
    pub processes_of: Option<ContainerId>,
    /// Labels in the runtime.
    pub labels: BTreeMap<String, String>,
}

/// The variables that the pod gives a container, for expressions outside its environment.
pub fn environment(pod: &Pod, container: &Container, context: &Context) -> Result<Vec<(String, String)>, ConfigError> {
    env::of_container(pod, container, context)
}

/// Translates a container.
pub fn compile(request: Request<'_>, context: &Context) -> Result<ContainerSpec, ConfigError> {
    let Request { pod, container, defaults, .. } = request;
    let own = env::of_container(pod, container, context)?;
    let args = command::args(container, defaults, &own)?;
    let user = security::user(pod, container, defaults)?;
    let privileges = security::privileges(pod, container, context)?;
    let cwd = match container.working_dir.as_deref() {
        Some(dir) if !dir.is_empty() => command::expand(dir, &own),
        _ => defaults.working_dir.clone(),
    };
    Ok(ContainerSpec {
        id: request.id,
        name: container.name.clone(),
        attempt: request.attempt,
        image: request.image,
        image_reference: container.image.clone().unwrap_or_default(),
        args,
        env: env::with_image(own, defaults),
        cwd: PathBuf::from(if cwd.is_empty() { "/" } else { &cwd }),
        user,
        privileges,
        mounts: request.mounts,
        resources: resources::of_container(pod, container, context),
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        processes_of: request.processes_of,
        labels: request.labels,
    })
}

#[cfg(test)]
mod tests;
