//! The ranges of addresses that a server's settings name: of pods and of Services, each of IPv4 and perhaps one of IPv6.

use anyhow::{Context, ensure};
use net::{Range, Ranges};

use super::settings::Settings;

/// How many bits the pods of a node have in common, of ranges that are not said.
const NODE_PREFIX_6: u8 = 64;
/// How many those of all nodes have.
const CLUSTER_PREFIX: u8 = 16;
const CLUSTER_PREFIX_6: u8 = 56;

/// Ranges that fit together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Of the pods of the server's own node.
    pub(super) pods: Ranges,
    /// Of the pods of all nodes.
    pub(super) cluster: Ranges,
    /// Of Services.
    pub(super) services: Ranges,
}

impl Settings {
    /// What the settings say, and what follows from it.
    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        let said = |name: &str, text: &Option<String>| {
            text.as_deref().map(|text| text.parse::<Ranges>().with_context(|| format!("--{name}"))).transpose()
        };
        let (pods, cluster) = (said("pod-cidr", &self.pod_cidr)?, said("cluster-cidr", &self.cluster_cidr)?);
        let pods = match (pods, cluster.and_then(|cluster| cluster.v6)) {
            (Some(Ranges { v4, v6: None }), Some(all)) => Ranges { v4, v6: Some(first_part(&all)?) },
            (None, v6) => Ranges { v4: "10.42.0.0/24".parse()?, v6: v6.map(|all| first_part(&all)).transpose()? },
            (Some(pods), _) => pods,
        };
        let cluster = cluster.unwrap_or_else(|| Ranges {
            v4: pods.v4.widened(CLUSTER_PREFIX),
            v6: pods.v6.map(|v6| v6.widened(CLUSTER_PREFIX_6)),
        });
        ensure!(pods.is_within(&cluster), "--pod-cidr {pods} is no part of --cluster-cidr {cluster}");
        if let Some(v6) = cluster.v6 {
            ensure!(
                (48..=NODE_PREFIX_6).contains(&v6.prefix()),
                "the range {v6} of --cluster-cidr is not of 48 to {NODE_PREFIX_6} bits"
            );
        }
        let services = said("service-cidr", &self.service_cidr)?;
        let services = services.map_or_else(|| "10.43.0.0/16".parse().context("--service-cidr"), Ok)?;
        ensure!(
            services.v6.is_none() || cluster.v6.is_some(),
            "--service-cidr {services} has IPv6 addresses and --cluster-cidr {cluster} has none, so nobody would answer there"
        );
        Ok(Addresses { pods, cluster, services })
    }
}

/// The part of a range that its first node has.
fn first_part(all: &Range) -> anyhow::Result<Range> {
    let prefix = all.prefix().max(NODE_PREFIX_6);
    Ok(format!("{}/{prefix}", all.network()).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pods: &str, cluster: &str, services: &str) -> Result<[String; 3], String> {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let settings = Settings {
            pod_cidr: text(pods),
            cluster_cidr: text(cluster),
            service_cidr: text(services),
            ..Settings::default()
        };
        let found = settings.addresses().map_err(|error| format!("{error:#}"))?;
        Ok([found.pods, found.cluster, found.services].map(|ranges| ranges.to_string()))
    }

    fn is(pods: &str, cluster: &str, services: &str) -> Result<[String; 3], String> {
        Ok([pods, cluster, services].map(str::to_owned))
    }

    #[test]
    fn what_is_not_said_follows_from_what_is() {
        assert_eq!(of("", "", ""), is("10.42.0.0/24", "10.42.0.0/16", "10.43.0.0/16"));
        assert_eq!(of("10.9.1.0/24", "", "10.8.0.0/20"), is("10.9.1.0/24", "10.9.0.0/16", "10.8.0.0/20"));
        let both = is("10.42.0.0/24,fd00:42::/64", "10.42.0.0/16,fd00:42::/56", "10.43.0.0/16,fd00:43::/112");
        assert_eq!(of("", "10.42.0.0/16,fd00:42::/56", "10.43.0.0/16,fd00:43::/112"), both);
        assert_eq!(of("10.42.0.0/24", "10.42.0.0/16,fd00:42::/56", "10.43.0.0/16,fd00:43::/112"), both);
        assert_eq!(of("10.42.0.0/24,fd00:42::/64", "", "10.43.0.0/16,fd00:43::/112"), both);
        assert_eq!(
            of("", "10.42.0.0/16,fd00:42::/56", ""),
            is("10.42.0.0/24,fd00:42::/64", "10.42.0.0/16,fd00:42::/56", "10.43.0.0/16")
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for (pods, cluster, services) in [
            ("10.9.0.0/24", "10.42.0.0/16", ""),
            ("10.42.0.0/24,fd00:9::/64", "10.42.0.0/16,fd00:42::/56", ""),
            ("10.42.0.0/24,fd00:42::/64", "10.42.0.0/16", ""),
            ("", "10.42.0.0/16,fd00:42::/40", ""),
            ("", "fd00:42::/56", ""),
            ("", "", "10.43.0.0/16,fd00:43::/112"),
        ] {
            assert!(of(pods, cluster, services).is_err(), "{pods} {cluster} {services}");
        }
    }
}
