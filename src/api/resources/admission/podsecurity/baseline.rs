//! The checks of the level `baseline`, in the order of upstream's names for them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Version;
use super::violations::{Pod, Violation, containers, plural, quoted, quoted_set, violation};
use crate::resources::path::{entries, items, number, present, text};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Settings of the kernel that concern nobody else, and since which version they are known to.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX_TYPES: [(&str, u32); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// What a pod violates; checks that `restricted` has a stricter form of are left to it.
pub(super) fn check(pod: &Pod<'_>, version: Version, is_restricted: bool) -> Vec<Violation> {
    let overridden = |found: Option<Violation>| found.filter(|_| !is_restricted);
    let found = [
        app_armor(pod),
        overridden(capabilities(pod)),
        host_namespaces(pod),
        overridden(host_paths(pod)),
        host_ports(pod),
        version.is_since(34).then(|| probes(pod)).flatten(),
        privileged(pod),
        proc_mount(pod, version),
        selinux(pod, version),
        overridden(if version.is_since(19) { seccomp(pod) } else { seccomp_annotations(pod) }),
        sysctls(pod, version),
        windows(pod),
    ];
    found.into_iter().flatten().collect()
}

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut setters: Vec<String> = pod
        .setters(|context| {
            let kind = &context["appArmorProfile"]["type"];
            let bad = kind.as_str().filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
            values.extend(bad.map(str::to_owned));
            bad.is_some()
        })
        .into_iter()
        .collect();
    let mut annotations = Vec::new();
    for (key, value) in entries(pod.metadata, "annotations") {
        let value = value.as_str().unwrap_or_default();
        let fine = matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
        if key.starts_with(APP_ARMOR) && !fine {
            annotations.push(key.as_str());
            values.insert(value.to_owned());
        }
    }
    if !annotations.is_empty() {
        annotations.sort_unstable();
        let word = plural("annotation", "annotations", annotations.len());
        setters.push(format!("{word} {}", quoted(&annotations)));
    }
    (!setters.is_empty()).then(|| {
        let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
        let detail = format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted_set(&values));
        violation(reason, detail)
    })
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let mut added = BTreeSet::new();
    let bad = pod.bad(|context| {
        let own = items(&context["capabilities"], "add").iter().filter_map(Value::as_str);
        let own: Vec<&str> = own.filter(|name| !CAPABILITIES.contains(name)).collect();
        added.extend(own.iter().map(|name| (*name).to_owned()));
        !own.is_empty()
    });
    (!bad.is_empty()).then(|| {
        let added = quoted_set(&added);
        let detail = format!("{} must not include {added} in securityContext.capabilities.add", containers(&bad));
        violation("non-default capabilities", detail)
    })
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    // As upstream sorts them.
    let shared = ["hostIPC", "hostNetwork", "hostPID"].into_iter().filter(|field| pod.spec[*field] == true);
    let shared: Vec<&str> = shared.collect();
    (!shared.is_empty()).then(|| {
        let detail = shared.iter().map(|field| format!("{field}=true")).collect::<Vec<_>>().join(", ");
        violation("host namespaces", detail)
    })
}

fn host_paths(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = items(pod.spec, "volumes").iter().filter(|volume| present(volume, "hostPath"));
    let names: Vec<&str> = volumes.map(|volume| text(volume, "name")).collect();
    (!names.is_empty()).then(|| {
        violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
    })
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let mut bad = Vec::new();
    for container in pod.containers() {
        let own = items(container, "ports").iter().map(|port| number(port, "hostPort")).filter(|port| *port != 0);
        let own: Vec<String> = own.map(|port| port.to_string()).collect();
        if !own.is_empty() {
            bad.push(text(container, "name"));
        }
        ports.extend(own);
    }
    (!bad.is_empty()).then(|| {
        let (use_word, word) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", ports.len()));
        let shown = Vec::from_iter(ports).join(", ");
        violation("hostPort", format!("{} {use_word} {word} {shown}", containers(&bad)))
    })
}

/// Whoever may name the host of a probe can let the node ask anybody.
fn probes(pod: &Pod<'_>) -> Option<Violation> {
    let (mut bad, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for container in pod.containers() {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|field| &container[field]);
        let hooks = ["postStart", "preStop"].map(|field| &container["lifecycle"][field]);
        for handler in probes.into_iter().chain(hooks) {
            for host in ["httpGet", "tcpSocket"].map(|kind| text(&handler[kind], "host")) {
                if !host.is_empty() {
                    bad.insert(text(container, "name"));
                    hosts.insert(host.to_owned());
                }
            }
        }
    }
    let bad = Vec::from_iter(bad);
    (!bad.is_empty()).then(|| {
        let (use_word, count) = (plural("uses", "use", bad.len()), hosts.len());
        let word = plural("probe or lifecycle host", "probe or lifecycle hosts", count);
        let detail = format!("{} {use_word} {word} {}", containers(&bad), quoted_set(&hosts));
        violation("probe or lifecycle host", detail)
    })
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let bad = pod.bad(|context| context["privileged"] == true);
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.privileged=true", containers(&bad));
        violation("privileged", detail)
    })
}

fn proc_mount(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version.is_since(35) && pod.spec["hostUsers"] == false {
        return None;
    }
    let mut kinds = BTreeSet::new();
    let bad = pod.bad(|context| {
        let kind = context["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(kind.map(str::to_owned));
        kind.is_some()
    });
    (!bad.is_empty()).then(|| {
        let kinds = quoted_set(&kinds);
        violation("procMount", format!("{} must not set securityContext.procMount to {kinds}", containers(&bad)))
    })
}

fn selinux(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let setters = pod.setters(|context| {
        let options = &context["seLinuxOptions"];
        let kind = text(options, "type");
        let known = SELINUX_TYPES.iter().any(|(name, since)| *name == kind && version.is_since(*since));
        if !known {
            types.insert(kind.to_owned());
        }
        let (sets_user, sets_role) = (!text(options, "user").is_empty(), !text(options, "role").is_empty());
        (user, role) = (user || sets_user, role || sets_role);
        !known || sets_user || sets_role
    })?;
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted_set(&types)));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Some(violation("seLinuxOptions", detail))
}

/// Whether a profile is one of those that confine.
pub(super) fn confines(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

/// The violation of profiles that do not confine.
pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let setters = pod.setters(|context| {
        let profile = &context["seccompProfile"];
        let is_bad = profile.is_object() && !confines(text(profile, "type"));
        if is_bad {
            values.insert(text(profile, "type").to_owned());
        }
        is_bad
    })?;
    let detail = format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted_set(&values));
    Some(violation("seccompProfile", detail))
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let annotations = &pod.metadata["annotations"];
    let keys = pod.containers().map(|container| format!("{SECCOMP}{}", text(container, "name")));
    let mut bad = BTreeSet::new();
    for key in std::iter::once(SECCOMP_POD.to_owned()).chain(keys) {
        if let Some(value) = annotations[&key].as_str()
            && !matches!(value, "runtime/default" | "docker/default")
            && !value.starts_with("localhost/")
        {
            bad.insert(format!("{key}={value:?}"));
        }
    }
    (!bad.is_empty()).then(|| {
        let word = plural("annotation", "annotations", bad.len());
        violation("seccompProfile", format!("forbidden {word} {}", Vec::from_iter(bad).join(", ")))
    })
}

fn sysctls(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let known = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && version.is_since(*since));
    let names = items(pod.context(), "sysctls").iter().map(|sysctl| text(sysctl, "name"));
    let bad: Vec<&str> = names.filter(|name| !known(name)).collect();
    (!bad.is_empty()).then(|| violation("forbidden sysctls", bad.join(", ")))
}

fn windows(pod: &Pod<'_>) -> Option<Violation> {
    let setters = pod.setters(|context| context["windowsOptions"]["hostProcess"] == true)?;
    Some(violation("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true")))
}
