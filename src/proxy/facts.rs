//! What network policies need to know of pods and namespaces, and nothing else of them: every node has all of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use client::{Client, Sink, Tracked, follow};
use net::Family;
use serde::Deserialize;
use serde_json::{Map, Value};
use task::Tasks;
use tokio::sync::watch;

/// Of a pod.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFacts {
    pub(crate) metadata: Metadata,
    pub(crate) spec: PodSpec,
    status: PodStatus,
}

/// Of a namespace.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NamespaceFacts {
    pub(crate) metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) namespace: String,
    name: String,
    pub(crate) labels: Map<String, Value>,
    resource_version: String,
}

/// The version is not part of what an object is.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        (&self.namespace, &self.name, &self.labels) == (&other.namespace, &other.name, &other.labels)
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: String,
    pub(crate) host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<Port>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    container_port: i64,
    protocol: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

impl PodFacts {
    /// Its address of a family, if it has one yet.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        let all = self.status.pod_ips.iter().map(|own| &own.ip).chain([&self.status.pod_ip]);
        all.filter_map(|text| text.parse().ok()).find(|address| Family::of(*address) == family)
    }

    /// Its address may be another's by now.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// The ports by a name; those of containers that run beside each other.
    pub(crate) fn ports_named<'f>(&'f self, name: &'f str, protocol: &'f str) -> impl Iterator<Item = u16> + 'f {
        let sidecars = self.spec.init_containers.iter().filter(|own| own.restart_policy.as_deref() == Some("Always"));
        let ports = self.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
        ports
            .filter(move |port| port.name == name && port.protocol.as_deref().unwrap_or("TCP") == protocol)
            .filter_map(|port| u16::try_from(port.container_port).ok())
    }
}

impl NamespaceFacts {
    pub(crate) fn name(&self) -> &str {
        &self.metadata.name
    }
}

impl Tracked for PodFacts {
    fn revision(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Tracked for NamespaceFacts {
    fn revision(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// What has metadata.
pub(crate) trait Named {
    fn metadata(&self) -> &Metadata;
}

impl Named for PodFacts {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Named for NamespaceFacts {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

type ByName<K> = BTreeMap<(String, String), Arc<K>>;

/// A live copy of what is known of all objects of a kind.
#[derive(Debug)]
pub(crate) struct Known<K> {
    all: Mutex<Option<ByName<K>>>,
    /// Counts what changed.
    changes: watch::Sender<u64>,
}

impl<K: Named + Tracked + PartialEq> Known<K> {
    pub(crate) fn follow(client: &Client, tasks: &Tasks, path: &str) -> Arc<Self> {
        let known = Arc::new(Self { all: Mutex::default(), changes: watch::Sender::new(0) });
        follow(client, tasks, path, Arc::clone(&known));
        known
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All objects, once they are known.
    pub(crate) fn snapshot(&self) -> Option<Vec<Arc<K>>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.as_ref().map(|all| all.values().cloned().collect())
    }

    fn change(&self, change: impl FnOnce(&mut Option<ByName<K>>) -> bool) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let has_changed = change(&mut all);
        drop(all);
        if has_changed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

fn key<K: Named>(object: &K) -> (String, String) {
    let metadata = object.metadata();
    (metadata.namespace.clone(), metadata.name.clone())
}

impl<K: Named + Tracked + PartialEq> Sink<K> for Known<K> {
    fn replace(&self, objects: Vec<K>) {
        let objects = objects.into_iter().map(|object| (key(&object), Arc::new(object))).collect();
        self.change(|all| {
            *all = Some(objects);
            true
        });
    }

    fn put(&self, object: K) {
        self.change(|all| {
            let all = all.get_or_insert_default();
            let key = key(&object);
            // Most changes of pods are of no interest here.
            let has_changed = all.get(&key).is_none_or(|known| **known != object);
            all.insert(key, Arc::new(object));
            has_changed
        });
    }

    fn remove(&self, object: K) {
        self.change(|all| all.as_mut().is_some_and(|all| all.remove(&key(&object)).is_some()));
    }
}
