//! What a kubelet is told by whoever composes the program.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use client::Transport;
use k8s_openapi::api::core::v1::Taint;
use net::Network;
use runtime::{Images, Runtime};
use task::{SharedClock, Tasks};

use crate::eviction::Threshold;

/// Settings of one node. Nothing in this crate knows a host path or an address that does not come from here.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    /// Name of the Node object.
    pub node_name: String,
    /// Durable state: `<root>/pods/<uid>`.
    pub root: PathBuf,
    /// Volatile state; secrets are written below it, so it should be a tmpfs.
    pub run_dir: PathBuf,
    /// Where container logs go: `<log_root>/<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    pub log_root: PathBuf,
    /// Static pod manifests; none for no such source.
    pub manifest_dir: Option<PathBuf>,
    /// The node's pod address ranges, as written to `spec.podCIDRs`.
    pub pod_cidrs: Vec<String>,
    /// Cgroup below which all pods live, e.g. `kubepods`.
    pub cgroup_prefix: PathBuf,
    /// Longest wait between two starts of a container that crashes (KEP-4603).
    pub longest_restart_backoff: Duration,
    /// How many pods fit on the node.
    pub max_pods: u32,
    /// What of the node's resources is not for pods, by name.
    pub reserved: BTreeMap<String, Quantity>,
    /// What must be left of the node; below that it takes no further pods and evicts some. None for no such care.
    pub eviction: Vec<Threshold>,
    /// How many seconds a pod has at most that is ended for the sake of a soft threshold.
    pub eviction_max_pod_grace: i64,
    /// The node's addresses, the primary one first.
    pub node_ips: Vec<IpAddr>,
    /// `status.nodeInfo.kubeletVersion`, e.g. `v1.36.0+coracle`.
    pub kubelet_version: String,
    /// Version of this program, for `containerRuntimeVersion: coracle://<version>`.
    pub coracle_version: String,
    /// Port of the kubelet's API, for `status.daemonEndpoints`.
    pub kubelet_port: u16,
    /// Labels given to the node when it registers, beside the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints given to the node when it registers.
    pub taints: Vec<Taint>,
    /// Kernel parameters that pods may set beside the safe ones, by name or with `*` at the end.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Address of the cluster's DNS service; none while there is none.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster, e.g. `cluster.local`.
    pub cluster_domain: String,
    /// The host's resolver configuration, e.g. `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The host's hosts file, for pods in the host's network.
    pub hosts_file: PathBuf,
    /// Where `/proc` is mounted.
    pub proc: PathBuf,
    /// Where `/sys` is mounted.
    pub sys: PathBuf,
    /// The host's `/etc`, for `os-release` and `machine-id`.
    pub etc: PathBuf,
}

/// The parts of the program that the kubelet stands on.
#[derive(Clone)]
pub struct Seams {
    /// Runs sandboxes and containers.
    pub runtime: Arc<dyn Runtime>,
    /// Fetches and finds images.
    pub images: Arc<dyn Images>,
    /// Connects sandboxes.
    pub network: Arc<dyn Network>,
    /// The API server; without one only static pods and those known from before run.
    pub transport: Option<Arc<dyn Transport>>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// Owner of all tasks of the kubelet.
    pub tasks: Tasks,
}
