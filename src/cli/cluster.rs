//! What every node must know of its cluster, published by the server in the ConfigMap `coracle-cluster` of `kube-system`,
//! which nodes may read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use client::{Client, ClientError, Key, Patch};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use net::Ranges;
use serde_json::json;
use task::Tasks;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coracle-cluster";
const RETRY: Duration = Duration::from_secs(5);

/// What is the same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    /// Addresses of all pods.
    pub(super) pods: Ranges,
    /// Addresses of Services.
    pub(super) services: Ranges,
    /// Addresses of the cluster's DNS service.
    pub(super) dns: Vec<IpAddr>,
    /// Domain of the cluster; none for the usual one.
    pub(super) domain: Option<String>,
}

impl Cluster {
    /// As texts, by the names of the server's settings.
    pub(super) fn to_data(&self) -> BTreeMap<String, String> {
        let dns: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
        let entries = [
            ("cluster-cidr", self.pods.to_string()),
            ("service-cidr", self.services.to_string()),
            ("cluster-dns", dns.join(",")),
            ("cluster-domain", self.domain.clone().unwrap_or_default()),
        ];
        entries.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    /// From those texts.
    pub(super) fn from_data(data: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let text = |name: &str| data.get(name).map(String::as_str).unwrap_or_default();
        let range = |name: &str| text(name).parse::<Ranges>().with_context(|| format!("{name} of the cluster"));
        let dns = text("cluster-dns").split(',').filter(|address| !address.is_empty());
        Ok(Self {
            pods: range("cluster-cidr")?,
            services: range("service-cidr")?,
            dns: dns.map(|address| address.parse().context("cluster-dns of the cluster")).collect::<Result<_, _>>()?,
            domain: Some(text("cluster-domain").to_owned()).filter(|domain| !domain.is_empty()),
        })
    }

    /// What the server has published.
    pub(super) async fn read(client: &Client) -> anyhow::Result<Self> {
        let map: ConfigMap = client.get(&Key::namespaced(NAMESPACE, NAME)).await?;
        Self::from_data(&map.data.unwrap_or_default())
    }

    /// Publishes it, as soon as that works.
    pub(super) fn publish(self, client: Client, tasks: &Tasks) {
        tasks.spawn("publishing of the cluster's settings", async move {
            while let Err(error) = self.write(&client).await {
                warn(&error);
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    async fn write(&self, client: &Client) -> Result<(), ClientError> {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(self.to_data()),
            ..ConfigMap::default()
        };
        match client.create(&map).await {
            Err(error) if error.is_already_exists() => {
                let patch = Patch::Merge(json!({ "data": map.data }));
                client.patch::<ConfigMap>(&Key::of(&map.metadata), &patch).await.map(drop)
            }
            result => result.map(drop),
        }
    }
}

fn warn(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "the settings of the cluster are not published; no node can join");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reads_what_the_server_has_written() {
        let cluster = Cluster {
            pods: "10.42.0.0/16,fd00:42::/56".parse().unwrap(),
            services: "10.43.0.0/16".parse().unwrap(),
            dns: vec!["10.43.0.10".parse().unwrap(), "fd00::1".parse().unwrap()],
            domain: Some("example.org".to_owned()),
        };
        assert_eq!(Cluster::from_data(&cluster.to_data()).unwrap(), cluster);
        let bare = Cluster { dns: Vec::new(), domain: None, ..cluster };
        assert_eq!(Cluster::from_data(&bare.to_data()).unwrap(), bare);
        assert!(Cluster::from_data(&BTreeMap::new()).is_err());
    }
}
