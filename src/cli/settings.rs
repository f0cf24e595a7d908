//! Settings of the server: flags and the configuration file say the same things, and a flag wins.
//!
//! The file is YAML with the flags' names as keys. An unknown key is an error that names its line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use api::quantity::Quantity;
use clap::Args;
use control::balancer::LoadBalancers;
use control::localpath::LocalStorage;
use k8s_openapi::api::core::v1::Taint;
use kubelet::{EvictionTexts, Threshold};
use serde::Deserialize;

/// How often a node shows that it lives.
const NODE_PULSE: Duration = Duration::from_secs(10);
/// Parts that can be left out.
const LOAD_BALANCER: &str = "load-balancer";
const LOCAL_STORAGE: &str = "local-storage";

/// What can be set, by flag or file.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Settings {
    /// Address and port of the API server [default: 0.0.0.0:6443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// Address and port of the kubelet's API [default: 0.0.0.0:10250, or another port where that is taken]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) kubelet_listen: Option<SocketAddr>,
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub(super) node_name: Option<String>,
    /// Address of the node, or one of each family [default: those that its default routes use]
    #[arg(long, value_name = "ADDRESS[,ADDRESS]")]
    pub(super) node_ip: Option<String>,
    /// Label of the node, `key=value`; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) node_label: Vec<String>,
    /// Addresses of this node's pods [default: 10.42.0.0/24, and the first /64 of a second --cluster-cidr]
    #[arg(long, value_name = "CIDR[,CIDR]")]
    pub(super) pod_cidr: Option<String>,
    /// Taint that the node registers with, `key=value:Effect` or `key:Effect`; may be given several times
    #[arg(long, value_name = "TAINT")]
    pub(super) register_with_taints: Vec<String>,
    /// Addresses of the pods of all nodes; with a second range of IPv6 addresses, like fd00:42::/56, pods have both
    /// [default: the /16 around --pod-cidr]
    #[arg(long, value_name = "CIDR[,CIDR]")]
    pub(super) cluster_cidr: Option<String>,
    /// Addresses of services, of IPv4 and perhaps of IPv6 like fd00:43::/112 [default: 10.43.0.0/16]
    #[arg(long, value_name = "CIDR[,CIDR]")]
    pub(super) service_cidr: Option<String>,
    /// Address of a DNS server that pods ask instead of the node's own; may be given several times [default: the tenth
    /// address of the services]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) cluster_dns: Vec<IpAddr>,
    /// File that names the host's own DNS servers [default: /etc/resolv.conf, or what stands behind systemd-resolved]
    #[arg(long, value_name = "FILE")]
    pub(super) resolv_conf: Option<PathBuf>,
    /// Domain of the cluster [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub(super) cluster_domain: Option<String>,
    /// Kernel parameter that pods may set beside the safe ones, by name or with * at its end; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) allowed_unsafe_sysctls: Vec<String>,
    /// Another OCI runtime, `handler=/path/of/its/program`, for RuntimeClasses of that handler; may be given several times
    #[arg(long, value_name = "HANDLER=PATH")]
    pub(super) runtime_handler: Vec<String>,
    /// How many pods the node takes [default: 110]
    #[arg(long, value_name = "NUMBER")]
    pub(super) max_pods: Option<u32>,
    /// What of the node is not for pods, `cpu=500m`, `memory=1Gi` or `ephemeral-storage=5Gi`; may be given several times
    #[arg(long, value_name = "RESOURCE=AMOUNT")]
    pub(super) system_reserved: Vec<String>,
    /// What must be left of the node, `memory.available<100Mi` or `nodefs.available<5%`, or "" for nothing; may be given
    /// several times [default: memory.available<100Mi, a tenth of nodefs and imagefs or 1Gi if that is less, a 20th of the files]
    #[arg(long, value_name = "SIGNAL<AMOUNT")]
    pub(super) eviction_hard: Vec<String>,
    /// What may be missed for some time, `memory.available<300Mi`, before a pod is ended; may be given several times
    #[arg(long, value_name = "SIGNAL<AMOUNT")]
    pub(super) eviction_soft: Vec<String>,
    /// For how long a threshold of --eviction-soft may be missed, `memory.available=1m30s`; each needs one
    #[arg(long, value_name = "SIGNAL=TIME")]
    pub(super) eviction_soft_grace_period: Vec<String>,
    /// How much beyond a threshold is to be had once a pod was ended for its sake, `nodefs.available=500Mi`
    #[arg(long, value_name = "SIGNAL=AMOUNT")]
    pub(super) eviction_minimum_reclaim: Vec<String>,
    /// How many seconds at most a pod has that is ended for the sake of --eviction-soft [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub(super) eviction_max_pod_grace_period: Option<i64>,
    /// Longest wait between two starts of a container that crashes, in seconds, 1 to 300 [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub(super) max_container_restart_period: Option<u64>,
    /// Largest packet of pods, in bytes [default: 1500]
    #[arg(long, value_name = "BYTES")]
    pub(super) mtu: Option<u32>,
    /// Folder of static pod manifests [default: /etc/coracle/static-pods]
    #[arg(long, value_name = "DIR")]
    pub(super) static_pods: Option<PathBuf>,
    /// Folder of manifests of any kind that are applied and kept [default: /etc/coracle/manifests]
    #[arg(long, value_name = "DIR")]
    pub(super) manifests: Option<PathBuf>,
    /// File with bearer tokens: lines of token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    pub(super) token_auth_file: Option<PathBuf>,
    /// Further name or address for the API server's certificate; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(super) tls_san: Vec<String>,
    /// Where the administrator's kubeconfig is written as well
    #[arg(long, value_name = "FILE")]
    pub(super) write_kubeconfig: Option<PathBuf>,
    /// A part that is not to be there, `load-balancer` or `local-storage`; may be given several times
    #[arg(long, value_name = "PART")]
    pub(super) disable: Vec<String>,
    /// How long a node may show no sign of life before it is not ready any more, like 40s; more than the 10 s between two
    /// signs [default: 40s]
    #[arg(long, value_name = "DURATION")]
    pub(super) node_monitor_grace_period: Option<String>,
    /// Run the control plane only, without a node
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) disable_agent: Option<bool>,
}

impl Settings {
    /// These settings, completed by those of a file. A file that was not named need not exist.
    pub(super) fn with_file(self, named: Option<&Path>, usual: &Path) -> anyhow::Result<Self> {
        let path = named.unwrap_or(usual);
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(self),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let file = parse(&text).with_context(|| format!("{}", path.display()))?;
        Ok(self.or(file))
    }

    fn or(self, file: Self) -> Self {
        fn either<T>(flags: Vec<T>, file: Vec<T>) -> Vec<T> {
            if flags.is_empty() { file } else { flags }
        }
        Self {
            listen: self.listen.or(file.listen),
            kubelet_listen: self.kubelet_listen.or(file.kubelet_listen),
            node_name: self.node_name.or(file.node_name),
            node_ip: self.node_ip.or(file.node_ip),
            node_label: either(self.node_label, file.node_label),
            pod_cidr: self.pod_cidr.or(file.pod_cidr),
            register_with_taints: either(self.register_with_taints, file.register_with_taints),
            cluster_cidr: self.cluster_cidr.or(file.cluster_cidr),
            service_cidr: self.service_cidr.or(file.service_cidr),
            cluster_dns: either(self.cluster_dns, file.cluster_dns),
            resolv_conf: self.resolv_conf.or(file.resolv_conf),
            cluster_domain: self.cluster_domain.or(file.cluster_domain),
            allowed_unsafe_sysctls: either(self.allowed_unsafe_sysctls, file.allowed_unsafe_sysctls),
            runtime_handler: either(self.runtime_handler, file.runtime_handler),
            max_pods: self.max_pods.or(file.max_pods),
            system_reserved: either(self.system_reserved, file.system_reserved),
            eviction_hard: either(self.eviction_hard, file.eviction_hard),
            eviction_soft: either(self.eviction_soft, file.eviction_soft),
            eviction_soft_grace_period: either(self.eviction_soft_grace_period, file.eviction_soft_grace_period),
            eviction_minimum_reclaim: either(self.eviction_minimum_reclaim, file.eviction_minimum_reclaim),
            eviction_max_pod_grace_period: self.eviction_max_pod_grace_period.or(file.eviction_max_pod_grace_period),
            max_container_restart_period: self.max_container_restart_period.or(file.max_container_restart_period),
            mtu: self.mtu.or(file.mtu),
            static_pods: self.static_pods.or(file.static_pods),
            manifests: self.manifests.or(file.manifests),
            token_auth_file: self.token_auth_file.or(file.token_auth_file),
            tls_san: either(self.tls_san, file.tls_san),
            write_kubeconfig: self.write_kubeconfig.or(file.write_kubeconfig),
            disable: either(self.disable, file.disable),
            node_monitor_grace_period: self.node_monitor_grace_period.or(file.node_monitor_grace_period),
            disable_agent: self.disable_agent.or(file.disable_agent),
        }
    }

    /// Longest wait between two starts of a container that crashes, within the limits of KEP-4603.
    pub(super) fn longest_restart_backoff(&self) -> anyhow::Result<Duration> {
        let seconds = self.max_container_restart_period.unwrap_or(300);
        anyhow::ensure!(
            (1..=300).contains(&seconds),
            "max-container-restart-period is {seconds}, not 1 to 300 seconds"
        );
        Ok(Duration::from_secs(seconds))
    }

    /// What of the node is not for pods.
    pub(super) fn reserved(&self) -> anyhow::Result<BTreeMap<String, Quantity>> {
        let split = |text: &String| {
            let (name, amount) = text.split_once('=').with_context(|| format!("reserved {text:?} has no '='"))?;
            anyhow::ensure!(
                ["cpu", "memory", "ephemeral-storage"].contains(&name),
                "{name:?} cannot be reserved, only cpu, memory and ephemeral-storage"
            );
            let amount = Quantity::parse(amount).with_context(|| format!("reserved {text:?}"))?;
            anyhow::ensure!(!amount.is_negative(), "reserved {text:?} is negative");
            Ok((name.to_owned(), amount))
        };
        self.system_reserved.iter().map(split).collect()
    }

    /// What must be left of the node.
    pub(super) fn eviction(&self) -> anyhow::Result<Vec<Threshold>> {
        let texts = EvictionTexts {
            hard: &self.eviction_hard,
            soft: &self.eviction_soft,
            soft_grace: &self.eviction_soft_grace_period,
            minimum_reclaim: &self.eviction_minimum_reclaim,
        };
        let grace = self.eviction_max_pod_grace_period.unwrap_or(0);
        anyhow::ensure!(grace >= 0, "eviction-max-pod-grace-period is {grace}, less than none");
        texts.thresholds().context("thresholds of eviction")
    }

    /// Whether nodes' own disks are for claims.
    pub(super) fn local_storage(&self) -> anyhow::Result<LocalStorage> {
        Ok(if self.has(LOCAL_STORAGE)? { LocalStorage::On } else { LocalStorage::Off })
    }

    /// Whether Services of that type get addresses; the ports are those by which nodes are called.
    pub(super) fn load_balancers(&self, reserved: BTreeSet<u16>) -> anyhow::Result<LoadBalancers> {
        Ok(if self.has(LOAD_BALANCER)? { LoadBalancers::On { reserved } } else { LoadBalancers::Off })
    }

    /// Whether a part is there.
    fn has(&self, part: &str) -> anyhow::Result<bool> {
        const PARTS: [&str; 2] = [LOAD_BALANCER, LOCAL_STORAGE];
        if let Some(unknown) = self.disable.iter().find(|part| !PARTS.contains(&part.as_str())) {
            anyhow::bail!("{unknown:?} cannot be disabled, only {}", PARTS.join(" and "));
        }
        Ok(!self.disable.iter().any(|disabled| disabled == part))
    }

    /// The addresses of the node that were said, one of each family at most.
    pub(super) fn node_ips(&self) -> anyhow::Result<Vec<IpAddr>> {
        let said = self.node_ip.iter().flat_map(|text| text.split(','));
        let said: Vec<IpAddr> = said
            .map(|text| text.trim().parse().with_context(|| format!("node-ip {text:?} is no address")))
            .collect::<anyhow::Result<_>>()?;
        match said.as_slice() {
            [] | [_] => Ok(said),
            [one, other] if one.is_ipv4() != other.is_ipv4() => Ok(said),
            _ => anyhow::bail!("node-ip names more than one address of a family"),
        }
    }

    /// The node's labels.
    pub(super) fn labels(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let split = |label: &String| {
            let (key, value) = label.split_once('=').with_context(|| format!("label {label:?} has no '='"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        self.node_label.iter().map(split).collect()
    }
}

impl Settings {
    /// The taints with which the node registers.
    pub(super) fn taints(&self) -> anyhow::Result<Vec<Taint>> {
        let split = |text: &String| {
            let (key, effect) = text.rsplit_once(':').with_context(|| format!("taint {text:?} has no ':'"))?;
            let (key, value) = key.split_once('=').map_or((key, None), |(key, value)| (key, Some(value.to_owned())));
            let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
            anyhow::ensure!(known, "effect of taint {text:?} is not NoSchedule, PreferNoSchedule or NoExecute");
            Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
        };
        self.register_with_taints.iter().map(split).collect()
    }

    /// How long a node may show no sign of life.
    pub(super) fn node_grace(&self) -> anyhow::Result<Duration> {
        let Some(text) = &self.node_monitor_grace_period else { return Ok(control::node::GRACE) };
        let grace = text.parse::<jiff::SignedDuration>().ok().and_then(|grace| Duration::try_from(grace).ok());
        let grace = grace.with_context(|| format!("node-monitor-grace-period {text:?} is no duration like 40s"))?;
        anyhow::ensure!(
            grace > NODE_PULSE,
            "node-monitor-grace-period is not more than the 10 s between two signs of life"
        );
        Ok(grace)
    }

    /// Names of those that are set and that only a server has.
    pub(super) fn of_control_plane(&self) -> Vec<&'static str> {
        let set = [
            ("listen", self.listen.is_some()),
            ("pod-cidr", self.pod_cidr.is_some()),
            ("cluster-cidr", self.cluster_cidr.is_some()),
            ("service-cidr", self.service_cidr.is_some()),
            ("cluster-dns", !self.cluster_dns.is_empty()),
            ("cluster-domain", self.cluster_domain.is_some()),
            ("token-auth-file", self.token_auth_file.is_some()),
            ("tls-san", !self.tls_san.is_empty()),
            ("write-kubeconfig", self.write_kubeconfig.is_some()),
            ("node-monitor-grace-period", self.node_monitor_grace_period.is_some()),
            ("disable", !self.disable.is_empty()),
            ("disable-agent", self.disable_agent.is_some()),
        ];
        set.into_iter().filter_map(|(name, is_set)| is_set.then_some(name)).collect()
    }

    /// Programs of other runtimes, by handler.
    pub(super) fn handlers(&self) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let split = |text: &String| {
            let (handler, path) =
                text.split_once('=').with_context(|| format!("runtime handler {text:?} has no '='"))?;
            anyhow::ensure!(Path::new(path).is_absolute(), "path of runtime handler {text:?} is not absolute");
            Ok((handler.to_owned(), PathBuf::from(path)))
        };
        self.runtime_handler.iter().map(split).collect()
    }
}

fn parse(text: &str) -> anyhow::Result<Settings> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Settings::default());
    }
    Ok(serde_saphyr::from_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = parse("node-name: from-file\nmax-pods: 7\n").unwrap();
        let flags = Settings { node_name: Some("from-flag".to_owned()), ..Settings::default() };
        let both = flags.or(file);
        assert_eq!((both.node_name.as_deref(), both.max_pods), (Some("from-flag"), Some(7)));
    }

    #[test]
    fn the_longest_restart_period_is_limited() {
        let settings = |text| parse(text).unwrap().longest_restart_backoff();
        assert_eq!(settings("max-container-restart-period: 5").unwrap(), Duration::from_secs(5));
        assert_eq!(settings("").unwrap(), Duration::from_secs(300));
        assert!(settings("max-container-restart-period: 0").is_err());
        assert!(settings("max-container-restart-period: 301").is_err());
    }

    #[test]
    fn only_what_is_known_can_be_disabled() {
        let settings = |text: &str| parse(text).unwrap().local_storage();
        assert_eq!(settings("").unwrap(), LocalStorage::On);
        assert_eq!(settings("disable: [local-storage]").unwrap(), LocalStorage::Off);
        assert!(settings("disable: [traefik]").is_err());
    }

    #[test]
    fn what_is_reserved_is_named_with_its_amount() {
        let settings = |text: &str| parse(text).unwrap().reserved();
        let reserved = settings("system-reserved: [cpu=500m, memory=1Gi]").unwrap();
        assert_eq!((reserved["cpu"].milli_value(), reserved["memory"].value()), (500, 1 << 30));
        for wrong in ["cpu", "pods=5", "cpu=x", "memory=-1"] {
            assert!(settings(&format!("system-reserved: [{wrong}]")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_has_one_address_of_a_family() {
        let settings = |text: &str| parse(text).unwrap().node_ips().map_err(drop);
        let addresses = |all: &[&str]| Ok(all.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(settings(""), addresses(&[]));
        assert_eq!(settings("node-ip: 192.0.2.1"), addresses(&["192.0.2.1"]));
        assert_eq!(settings("node-ip: 192.0.2.1,2001:db8::1"), addresses(&["192.0.2.1", "2001:db8::1"]));
        for wrong in ["192.0.2.1,192.0.2.2", "192.0.2.1,fd00::1,fd00::2", "x", "''"] {
            assert!(settings(&format!("node-ip: {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn taints_are_read_as_kubectl_writes_them() {
        let settings = |text: &str| parse(text).unwrap().taints();
        let taints = settings("register-with-taints: ['a.b/c=d:NoExecute', 'e:NoSchedule']").unwrap();
        let shown: Vec<_> = taints.iter().map(|taint| (&*taint.key, taint.value.as_deref(), &*taint.effect)).collect();
        assert_eq!(shown, [("a.b/c", Some("d"), "NoExecute"), ("e", None, "NoSchedule")]);
        for wrong in ["a", "a=b", "a:Sometimes"] {
            assert!(settings(&format!("register-with-taints: ['{wrong}']")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_has_more_time_than_between_two_of_its_signs() {
        let settings = |text: &str| parse(text).unwrap().node_grace();
        assert_eq!(settings("").unwrap(), Duration::from_secs(40));
        assert_eq!(settings("node-monitor-grace-period: 1m30s").unwrap(), Duration::from_secs(90));
        for wrong in ["10s", "-40s", "soon"] {
            assert!(settings(&format!("node-monitor-grace-period: {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_of_the_control_plane_are_named() {
        let settings = parse("node-name: a\nlisten: 127.0.0.1:1\ncluster-dns: [127.0.0.1]\n").unwrap();
        assert_eq!(settings.of_control_plane(), ["listen", "cluster-dns"]);
        assert!(parse("node-name: a\nmax-pods: 3\n").unwrap().of_control_plane().is_empty());
    }

    #[test]
    fn what_must_be_left_is_as_usual_unless_it_is_said() {
        let settings = |text: &str| parse(text).unwrap().eviction();
        assert_eq!(settings("").unwrap(), Threshold::usual());
        assert_eq!(settings("eviction-hard: ['']").unwrap(), []);
        let said = settings("eviction-hard: ['memory.available<1Gi,nodefs.available<10%']").unwrap();
        assert_eq!(said, ["memory.available<1Gi", "nodefs.available<10%"].map(|text| text.parse().unwrap()));
        assert!(settings("eviction-hard: ['memory<1Gi']").is_err());
        let soft = "eviction-hard: ['']\neviction-soft: ['memory.available<1Gi']\n";
        assert!(settings(soft).is_err(), "it needs a grace period");
        let soft = format!("{soft}eviction-soft-grace-period: [memory.available=1m]\n");
        assert_eq!(settings(&soft).unwrap().len(), 1);
        assert!(settings(&format!("{soft}eviction-max-pod-grace-period: -1\n")).is_err());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("max-pods: 7\nnode-nmae: x\n").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("node-nmae") && text.contains('2'), "{text}");
    }

    #[test]
    fn a_file_without_settings_sets_nothing() {
        assert_eq!(parse("# nothing\n\n").unwrap(), Settings::default());
    }
}
