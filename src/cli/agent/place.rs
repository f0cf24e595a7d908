//! A node's place in its cluster: the addresses of its pods, and what all nodes know.
//!
//! The node registers with its name and address and waits for the control plane to give it addresses. Both are kept, so
//! that it starts again without the server.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use apiserver::pki::write_private;
use client::{Client, Informer, Key, ListOptions, Scope};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use net::Ranges;
use serde::{Deserialize, Serialize};
use task::Tasks;

use super::super::cluster::Cluster;

/// How long a node that knows its place waits for news of it.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Addresses of its pods.
    pub(super) pods: Ranges,
    /// What all nodes know.
    pub(super) cluster: Cluster,
}

/// What it brings along.
pub(super) struct Own<'a> {
    pub(super) name: &'a str,
    pub(super) address: IpAddr,
    pub(super) taints: &'a [Taint],
}

/// The form in which it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    pods: String,
    cluster: BTreeMap<String, String>,
}

impl Place {
    /// Asks for it; a node that knows it already goes on with that if there is no answer.
    pub(super) async fn find(folder: &Path, client: &Client, tasks: &Tasks, own: &Own<'_>) -> anyhow::Result<Self> {
        let path = folder.join("place.json");
        let known = read(&path)?;
        let place = loop {
            let tasks = tasks.child();
            let asked = async {
                match known {
                    Some(_) => tokio::time::timeout(PATIENCE, ask(client, &tasks, own)).await?,
                    None => ask(client, &tasks, own).await,
                }
            };
            let asked = asked.await;
            tasks.stop();
            match (asked, &known) {
                (Ok(place), _) => break place,
                (Err(error), Some(known)) => {
                    tracing::warn!(error = format!("{error:#}"), "the server does not answer; all goes on as it was");
                    break known.clone();
                }
                (Err(error), None) => {
                    tracing::warn!(error = format!("{error:#}"), "the node has no place yet, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        if let Some(known) = known.filter(|known| known.pods != place.pods) {
            tracing::warn!(were = %known.pods, are = %place.pods, "the addresses of the node's pods have changed");
        }
        let kept = Kept { pods: place.pods.to_string(), cluster: place.cluster.to_data() };
        write_private(&path, &serde_json::to_vec(&kept)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(place)
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Place>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let kept: Kept = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(Place { pods: kept.pods.parse()?, cluster: Cluster::from_data(&kept.cluster)? }))
}

async fn ask(client: &Client, tasks: &Tasks, own: &Own<'_>) -> anyhow::Result<Place> {
    let cluster = Cluster::read(client).await.context("cannot read the settings of the cluster")?;
    match client.create(&own.render()).await {
        Err(error) if error.is_already_exists() => {}
        other => drop(other.context("cannot register the node")?),
    }
    let only = ListOptions::fields(&format!("metadata.name={}", own.name));
    let nodes: Informer<Node> = Informer::spawn(client, tasks, Scope::Cluster, only);
    let mut dirty = nodes.subscribe();
    loop {
        let node = nodes.get(&Key::cluster(own.name));
        let spec = node.as_ref().and_then(|node| node.spec.as_ref());
        let ranges = spec.and_then(|spec| spec.pod_cidrs.clone()).filter(|ranges| !ranges.is_empty());
        if let Some(ranges) = ranges.or_else(|| Some(vec![spec?.pod_cidr.clone()?])) {
            return Ok(Place { pods: ranges.join(",").parse()?, cluster });
        }
        dirty.next().await;
    }
}

impl Own<'_> {
    /// The node before its kubelet says more of it.
    fn render(&self) -> Node {
        let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
        let addresses =
            vec![address("InternalIP", self.address.to_string()), address("Hostname", self.name.to_owned())];
        Node {
            metadata: ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() },
            spec: Some(NodeSpec {
                taints: Some(self.taints.to_vec()).filter(|taints| !taints.is_empty()),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus { addresses: Some(addresses), ..NodeStatus::default() }),
        }
    }
}
