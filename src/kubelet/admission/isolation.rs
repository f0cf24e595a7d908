//! Whether a pod can be run apart from the host and from others as it asks: kernel parameters, profiles.
//!
//! After `pkg/kubelet/sysctl` and `pkg/security/apparmor` upstream, words included.

use k8s_openapi::api::core::v1::Pod;

use super::Rejection;

/// Kernel parameters that belong to a namespace and affect nobody outside of it: `pkg/kubelet/sysctl/safe_sysctls.go`.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Whether a node can run a pod. `allowed` are kernel parameters that the administrator allows beside the safe ones; `*` at
/// the end stands for any end.
pub(crate) fn admit(pod: &Pod, allowed: &[String]) -> Result<(), Rejection> {
    sysctls(pod, allowed)?;
    app_armor(pod)
}

/// Namespaces that a kernel parameter may belong to, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

/// The namespace of a parameter, or of all that begin so.
fn namespace(name: &str) -> Option<Namespace> {
    let ipc =
        name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|own| name.starts_with(own));
    match () {
        () if ipc => Some(Namespace::Ipc),
        () if name.starts_with("net.") => Some(Namespace::Net),
        () => None,
    }
}

/// Refuses what the administrator cannot allow: parameters of the whole host.
pub(crate) fn check_allowed(patterns: &[String]) -> Result<(), String> {
    let of_host = |pattern: &&String| namespace(dotted(pattern).trim_end_matches('*')).is_none();
    match patterns.iter().find(of_host) {
        Some(pattern) => Err(format!("the sysctl {pattern:?} is not known to be namespaced")),
        None => Ok(()),
    }
}

fn sysctls(pod: &Pod, allowed: &[String]) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let asked = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for name in asked.map(|sysctl| dotted(&sysctl.name)) {
        let by_pattern = |pattern: &String| match dotted(pattern).strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == dotted(pattern),
        };
        let problem = match namespace(&name) {
            _ if !SAFE.contains(&name.as_str()) && !allowed.iter().any(by_pattern) => "not allowlisted",
            Some(Namespace::Ipc) if spec.host_ipc == Some(true) => "not allowed with host IPC enabled",
            Some(Namespace::Net) if spec.host_network == Some(true) => "not allowed with host Net enabled",
            _ => continue,
        };
        return Err(Rejection::new("SysctlForbidden", &format!("forbidden sysctl: {name:?} {problem}")));
    }
    Ok(())
}

/// A name with dots between its parts: where a slash comes first, it separates and dots belong to names (sysctl.d(5)).
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|place| &name[place..=place]) {
        Some("/") => {
            let swapped = |character| match character {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swapped).collect()
        }
        _ => name.to_owned(),
    }
}

/// Nothing here enforces profiles, whether or not the kernel could.
fn app_armor(pod: &Pod) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let of_pod = spec.security_context.iter().filter_map(|context| context.app_armor_profile.as_ref());
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let own = containers.filter_map(|container| container.security_context.as_ref()?.app_armor_profile.as_ref());
    if of_pod.chain(own).all(|profile| profile.type_ == "Unconfined") {
        return Ok(());
    }
    Err(Rejection::new("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(json!({ "spec": spec })).expect("a pod")
    }

    #[track_caller]
    fn check(spec: Value, allowed: &[&str], expected: Result<(), (&str, &str)>) {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let answer = admit(&pod(spec), &allowed);
        let answer = match &answer {
            Ok(()) => Ok(()),
            Err(why) => Err((why.reason.as_str(), why.message.as_str())),
        };
        assert_eq!(answer, expected);
    }

    fn sysctl(name: &str) -> Value {
        json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}})
    }

    #[test]
    fn safe_parameters_are_taken_and_others_only_if_they_are_allowed() {
        let forbidden = "SysctlForbidden";
        check(json!({}), &[], Ok(()));
        check(sysctl("kernel.shm_rmid_forced"), &[], Ok(()));
        check(sysctl("net/ipv4/tcp_syncookies"), &[], Ok(()));
        check(sysctl("kernel.msgmax"), &[], Err((forbidden, "forbidden sysctl: \"kernel.msgmax\" not allowlisted")));
        check(sysctl("kernel.msgmax"), &["kernel.msg*"], Ok(()));
        check(sysctl("net.core.somaxconn"), &["net.core.somaxconn"], Ok(()));
        check(
            sysctl("vm.swappiness"),
            &["net.*"],
            Err((forbidden, "forbidden sysctl: \"vm.swappiness\" not allowlisted")),
        );
    }

    #[test]
    fn parameters_of_namespaces_that_are_the_host_s_are_not_set() {
        let mut spec = sysctl("net.ipv4.tcp_syncookies");
        spec["hostNetwork"] = json!(true);
        let message = "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled";
        check(spec, &[], Err(("SysctlForbidden", message)));
        let mut spec = sysctl("fs.mqueue.msg_max");
        spec["hostIPC"] = json!(true);
        let message = "forbidden sysctl: \"fs.mqueue.msg_max\" not allowed with host IPC enabled";
        check(spec, &["fs.mqueue.*"], Err(("SysctlForbidden", message)));
    }

    #[test]
    fn the_administrator_cannot_allow_parameters_of_the_host() {
        let check = |pattern: &str| check_allowed(&[pattern.to_owned()]);
        assert_eq!(check("net.core.*"), Ok(()));
        assert_eq!(check("kernel/sem"), Ok(()));
        assert_eq!(check("vm.*"), Err("the sysctl \"vm.*\" is not known to be namespaced".to_owned()));
    }

    #[test]
    fn profiles_that_nobody_enforces_are_refused() {
        let profile = |kind: &str| json!({"securityContext": {"appArmorProfile": {"type": kind}}});
        check(profile("Unconfined"), &[], Ok(()));
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        check(profile("RuntimeDefault"), &[], Err(("AppArmor", message)));
    }

    #[test]
    fn ports_of_the_host_are_one_pod_s_at_a_time() {
        let with = |port: Value| pod(json!({"containers": [{"name": "c", "ports": [port]}]}));
        let admits = |first: &Pod, second: &Pod| crate::admission::ports::admit(second, [first].into_iter()).is_ok();
        let any = with(json!({"containerPort": 1, "hostPort": 80}));
        let one = with(json!({"containerPort": 1, "hostPort": 80, "hostIP": "192.0.2.1"}));
        let other = with(json!({"containerPort": 1, "hostPort": 80, "hostIP": "192.0.2.2"}));
        let datagrams = with(json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"}));
        let mut on_host = any.clone();
        on_host.spec.as_mut().expect("a spec").host_network = Some(true);
        assert!(admits(&one, &other) && admits(&any, &datagrams) && admits(&any, &with(json!({"containerPort": 80}))));
        assert!(!admits(&any, &one) && !admits(&one, &any) && !admits(&one, &one) && !admits(&on_host, &any));
    }
}
