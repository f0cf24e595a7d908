//! The files that every container finds: hosts and resolver configuration.
//!
//! After `kubelet_pods.managedHostsFileContent` and `pkg/kubelet/network/dns` upstream.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use super::host_name;
use super::sandbox::whole_name;
use crate::shared::in_full;

/// Limits of the resolver library, as upstream's validation.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;
/// Longest domain name; some resolvers abort on a longer one.
const MAX_DOMAIN: usize = 253;

/// What the cluster offers for name resolution.
#[derive(Debug, Clone, Default)]
pub struct Dns {
    /// Addresses of the cluster's DNS; empty while there is none.
    pub servers: Vec<IpAddr>,
    /// The cluster's domain.
    pub domain: String,
}

/// A resolver configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvConf {
    /// Servers to ask, in order.
    pub nameservers: Vec<String>,
    /// Domains to append.
    pub search: Vec<String>,
    /// Options, `name` or `name:value`.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads the host's configuration (resolv.conf(5)); the last `search` line counts.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => conf.nameservers.extend(words.next()),
                Some("search" | "domain") => {
                    let plain = words.map(|domain| domain.trim_end_matches('.').to_owned());
                    conf.search = plain.filter(|domain| !domain.is_empty()).collect();
                }
                Some("options") => conf.options = words.collect(),
                _ => {}
            }
        }
        conf
    }

    /// As a file.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }

    /// Leaves out what is too much for the resolver library, and says so.
    fn limit(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        if self.nameservers.len() > MAX_NAMESERVERS {
            self.nameservers.truncate(MAX_NAMESERVERS);
            told.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        let asked = self.search.len();
        self.search.truncate(MAX_SEARCH);
        self.search.retain(|domain| domain.len() <= MAX_DOMAIN);
        while self.search.join(" ").len() > MAX_SEARCH_LENGTH {
            self.search.pop();
        }
        if self.search.len() < asked {
            told.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                self.search.join(" ")
            ));
        }
        told
    }

    fn merge(&mut self, config: &PodDNSConfig) {
        let add = |known: &mut Vec<String>, more: &Option<Vec<String>>| {
            for one in more.iter().flatten() {
                if !known.contains(one) {
                    known.push(one.clone());
                }
            }
        };
        add(&mut self.nameservers, &config.nameservers);
        add(&mut self.search, &config.searches);
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            self.options.retain(|known| known.split(':').next() != Some(&name));
            self.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
}

/// Whether a pod's names are resolved by the cluster, or would be.
fn asks_cluster(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    match spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst") {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => spec.is_none_or(|spec| spec.host_network != Some(true)),
        _ => false,
    }
}

/// The pod's resolver configuration. `ClusterFirst` falls back to the host's while the cluster has no DNS.
pub fn resolv_conf(pod: &Pod, host: &ResolvConf, dns: &Dns) -> ResolvConf {
    limited(pod, host, dns).0
}

fn limited(pod: &Pod, host: &ResolvConf, dns: &Dns) -> (ResolvConf, Vec<String>) {
    let spec = pod.spec.as_ref();
    let mut conf = match spec.and_then(|spec| spec.dns_policy.as_deref()) {
        Some("None") => ResolvConf::default(),
        _ if asks_cluster(pod) && !dns.servers.is_empty() => cluster_first(pod, host, dns),
        _ => host.clone(),
    };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        conf.merge(config);
    }
    let told = conf.limit();
    (conf, told)
}

/// What users are told of the pod's resolver configuration: reasons and messages of warnings.
pub fn name_resolution(pod: &Pod, host: &ResolvConf, dns: &Dns) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    if asks_cluster(pod) && dns.servers.is_empty() {
        let message = format!(
            "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. \
             Falling back to \"Default\" policy.",
            in_full(&pod.metadata)
        );
        told.push(("MissingClusterDNS", message));
    }
    told.extend(limited(pod, host, dns).1.into_iter().map(|message| ("DNSConfigForming", message)));
    told
}

fn cluster_first(pod: &Pod, host: &ResolvConf, dns: &Dns) -> ResolvConf {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = &dns.domain;
    let mut search = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    for domain in &host.search {
        if !search.contains(domain) {
            search.push(domain.clone());
        }
    }
    ResolvConf {
        nameservers: dns.servers.iter().map(ToString::to_string).collect(),
        search,
        options: vec!["ndots:5".to_owned()],
    }
}

/// The hosts file: the kubelet's own for pods with a network of their own, the host's with additions otherwise.
pub fn hosts_file(pod: &Pod, pod_ips: &[IpAddr], host: Option<&str>, domain: &str) -> String {
    let mut text = match host {
        Some(host) => format!("# Kubernetes-managed hosts file (host network).\n{host}"),
        None => own_hosts(pod, pod_ips, domain),
    };
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let lines: Vec<String> = aliases
        .map(|alias| format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")))
        .collect();
    if !lines.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.push_str(&lines.concat());
    }
    text
}

fn own_hosts(pod: &Pod, pod_ips: &[IpAddr], domain: &str) -> String {
    let mut text =
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
    let (host, whole) = (host_name(pod), whole_name(pod, domain));
    for ip in pod_ips {
        match &whole {
            Some(whole) => text.push_str(&format!("{ip}\t{whole}\t{host}\n")),
            None => text.push_str(&format!("{ip}\t{host}\n")),
        }
    }
    text
}
