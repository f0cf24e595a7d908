//! Names in the composition: where the DNS of a node answers, and whom its pods are told to ask.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::Context;
use client::Client;
use dns::ResolvConf;
use task::Tasks;

use super::server::NodeFacts;
use super::settings::Settings;

/// The DNS of a node and of its pods.
#[derive(Debug)]
pub(super) struct Names {
    /// Where the node's own answers.
    gateway: IpAddr,
    /// The same with IPv6, if pods have it.
    second: Option<IpAddr>,
    /// The Service that leads there; none if pods are told of another server.
    service: Option<Ipv4Addr>,
    asked: Vec<IpAddr>,
    domain: String,
    resolv_conf: ResolvConf,
}

impl Names {
    pub(super) fn new(settings: &Settings, facts: &NodeFacts) -> Self {
        let gateway = facts.pods.v4.gateway();
        // The tenth as everywhere; a range that is too small for it has none, and pods ask their node itself.
        let tenth = facts.services.v4.at(10);
        let asked = match settings.cluster_dns.as_slice() {
            [] => vec![tenth.unwrap_or(gateway)],
            said => said.to_vec(),
        };
        let usual = ResolvConf::of_host();
        let file = settings.resolv_conf.clone();
        Self {
            gateway,
            second: facts.pods.v6.map(|range| range.gateway()),
            service: tenth.filter(|tenth| asked.contains(tenth)).and_then(|tenth| match tenth {
                IpAddr::V4(tenth) => Some(tenth),
                IpAddr::V6(_) => None,
            }),
            asked,
            domain: settings.cluster_domain.clone().unwrap_or_else(|| "cluster.local".to_owned()),
            resolv_conf: ResolvConf { file: file.unwrap_or(usual.file), ..usual },
        }
    }

    /// Address of the Service that leads to the DNS of nodes, if there is to be one.
    pub(super) fn service(&self) -> Option<Ipv4Addr> {
        self.service
    }

    /// The servers that pods ask.
    pub(super) fn asked(&self) -> Vec<IpAddr> {
        self.asked.clone()
    }

    /// The cluster's domain.
    pub(super) fn domain(&self) -> String {
        self.domain.clone()
    }

    /// The file that says whom the host asks.
    pub(super) fn of_host(&self) -> PathBuf {
        self.resolv_conf.effective().to_owned()
    }

    /// Starts the node's DNS, with the node's identity.
    pub(super) fn start(self, client: &Client, tasks: &Tasks) -> anyhow::Result<()> {
        let config = dns::Config {
            domain: self.domain,
            listen: [Some(self.gateway), self.second].into_iter().flatten().map(|own| (own, 53).into()).collect(),
            told: vec![self.service.map_or(self.gateway, IpAddr::V4)],
            resolv_conf: self.resolv_conf,
        };
        dns::spawn(client, tasks, config).context("--cluster-domain")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(services: &str, told: &[&str]) -> Names {
        let settings =
            Settings { cluster_dns: told.iter().map(|text| text.parse().unwrap()).collect(), ..Settings::default() };
        let facts = NodeFacts {
            name: "n".to_owned(),
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            pods: "10.42.0.0/24".parse().unwrap(),
            cluster: "10.42.0.0/16".parse().unwrap(),
            services: services.parse().unwrap(),
            advertise: (Ipv4Addr::LOCALHOST, 6443).into(),
        };
        Names::new(&settings, &facts)
    }

    fn said(names: &Names) -> (Option<String>, Vec<String>) {
        (names.service().map(|address| address.to_string()), names.asked().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn pods_ask_the_tenth_address_of_services_unless_told_otherwise() {
        let ten = || Some("10.43.0.10".to_owned());
        assert_eq!(said(&names("10.43.0.0/16", &[])), (ten(), vec!["10.43.0.10".to_owned()]));
        assert_eq!(said(&names("10.43.0.0/16", &["192.0.2.1"])), (None, vec!["192.0.2.1".to_owned()]));
        let both = names("10.43.0.0/16", &["10.43.0.10", "192.0.2.1"]);
        assert_eq!(said(&both), (ten(), vec!["10.43.0.10".to_owned(), "192.0.2.1".to_owned()]));
        assert_eq!(said(&names("10.43.0.0/29", &[])), (None, vec!["10.42.0.1".to_owned()]));
    }
}
