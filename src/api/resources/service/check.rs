//! Checks of Services, in the order and words of `ValidateService` and `ValidateServiceUpdate`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{is_external_name, is_headless, is_reachable_from_outside, needs_health_port};
use crate::resources::path::{Path, items, number, present, text};
use crate::resources::rule;
use crate::status::FieldError;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const KUBELET: i64 = 10_250;
const DAY: i64 = 86_400;
const MODE: &str = "service.kubernetes.io/topology-mode";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// Checks a Service that has its addresses and ports.
pub(super) fn validate(service: &Value) -> Vec<FieldError> {
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let annotations = &service["metadata"]["annotations"];
    let mut errors = Vec::new();
    if present(annotations, MODE) && present(annotations, HINTS) && annotations[MODE] != annotations[HINTS] {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        let path = Path::new("metadata").child("annotations").key(MODE);
        errors.push(FieldError::invalid(path, &annotations[MODE], &detail));
    }
    by_type(service, &path, &mut errors);
    ports(service, &path.child("ports"), &mut errors);
    errors.extend(rule::labels(&path.child("selector"), spec, "selector"));
    affinity(spec, &path, &mut errors);
    if !is_external_name(service) {
        addresses(service, &path, &mut errors);
    }
    external_addresses(spec, &path.child("externalIPs"), &mut errors);
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    errors.extend(rule::required_one_of(&path.child("type"), text(spec, "type"), &types));
    repeated_ports(spec, &path.child("ports"), &mut errors);
    balancer(spec, &path, &mut errors);
    traffic(service, &path, &mut errors);
    errors
}

fn by_type(service: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (spec, headless) = (&service["spec"], is_headless(service));
    if items(spec, "ports").is_empty() && !headless && !is_external_name(service) {
        errors.push(FieldError::required(path.child("ports"), ""));
    }
    let kind = text(spec, "type");
    if kind == "LoadBalancer" {
        for (index, port) in items(spec, "ports").iter().enumerate().filter(|(_, port)| port["port"] == KUBELET) {
            let detail = format!("may not expose port {KUBELET} externally since it is used by kubelet");
            errors.push(FieldError::invalid(path.child("ports").index(index), &port["port"], &detail));
        }
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(path.child("clusterIPs").index(0), &"None".into(), &detail));
    }
    if kind != "ExternalName" {
        return;
    }
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if present(spec, field) && spec[field] != json!([]) {
            errors.push(FieldError::forbidden(path.child(field), "may not be set for ExternalName services"));
        }
    }
    let name = text(spec, "externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.push(FieldError::required(path.child("externalName"), "")),
        name => errors.extend(rule::subdomain(&path.child("externalName"), name)),
    }
}

fn ports(service: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let ports = items(&service["spec"], "ports");
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match text(port, "name") {
            "" if ports.len() > 1 => errors.push(FieldError::required(path.child("name"), "")),
            "" => (),
            name => {
                errors.extend(rule::label(&path.child("name"), name));
                if !names.insert(name) {
                    errors.push(FieldError::duplicate(path.child("name"), &name.into()));
                }
            }
        }
        errors.extend(rule::port_number(&path.child("port"), number(port, "port")));
        let known = ["SCTP", "TCP", "UDP"];
        errors.extend(rule::required_one_of(&path.child("protocol"), text(port, "protocol"), &known));
        errors.extend(rule::port(&path.child("targetPort"), &port["targetPort"]));
        if present(port, "appProtocol") {
            errors.extend(rule::qualified(&path.child("appProtocol"), text(port, "appProtocol")));
        }
    }
}

fn affinity(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let word = text(spec, "sessionAffinity");
    errors.extend(rule::required_one_of(&path.child("sessionAffinity"), word, &["ClientIP", "None"]));
    let (config, path) = (&spec["sessionAffinityConfig"], path.child("sessionAffinityConfig"));
    if word == "None" && !config.is_null() {
        errors.push(FieldError::forbidden(&path, "must not be set when session affinity is None"));
    }
    if word != "ClientIP" {
        return;
    }
    let seconds = &config["clientIP"]["timeoutSeconds"];
    match seconds.as_i64() {
        None => {
            let detail = "when session affinity is ClientIP";
            errors.push(FieldError::required(path, detail));
        }
        Some(1..=DAY) => (),
        Some(_) => {
            let path = path.child("clientIP").child("timeoutSeconds");
            let detail = format!("must be greater than 0 and less than {DAY}");
            errors.push(FieldError::invalid(path, seconds, &detail));
        }
    }
}

/// Whether addresses and families can be made sense of.
pub(super) fn are_addresses_readable(service: &Value) -> bool {
    let mut errors = Vec::new();
    addresses(service, &Path::new("spec"), &mut errors);
    errors.is_empty()
}

/// `ValidateServiceClusterIPsRelatedFields`.
fn addresses(service: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let spec = &service["spec"];
    let (list, own) = (items(spec, "clusterIPs"), text(spec, "clusterIP"));
    let list_path = path.child("clusterIPs");
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(&list_path, &spec["clusterIPs"], detail));
    match (own, list) {
        ("", []) => (),
        ("", _) => invalid("must be empty when `clusterIP` is not specified"),
        (_, []) => errors.push(FieldError::required(&list_path, "")),
        (own, [first, ..]) if first != own => invalid("first value must match `clusterIP`"),
        _ => (),
    }
    families(spec, path, errors);
    let mut readable = true;
    for (index, address) in list.iter().enumerate() {
        let address = address.as_str().unwrap_or_default();
        if index == 0 && address == "None" {
            if list.len() > 1 {
                readable = false;
                let detail = "'None' must be the first and only value";
                errors.push(FieldError::invalid(&list_path, &spec["clusterIPs"], detail));
            }
            continue;
        }
        let wrong = rule::ip(&list_path.index(index), address);
        readable &= wrong.is_empty();
        errors.extend(wrong);
    }
    if list.len() > 2 {
        errors.push(FieldError::invalid(&list_path, &spec["clusterIPs"], "may only hold up to 2 values"));
    }
    if readable {
        fitting(spec, &list_path, errors);
    }
}

fn families(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let families = items(spec, "ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        errors.extend(rule::one_of(&path, family.as_str().unwrap_or_default(), &FAMILIES));
        if families[..index].contains(family) {
            errors.push(FieldError::duplicate(path, family));
        }
    }
    if present(spec, "ipFamilyPolicy") {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.extend(rule::one_of(&path.child("ipFamilyPolicy"), text(spec, "ipFamilyPolicy"), &known));
    }
}

/// Whether readable addresses are of the families that are named.
fn fitting(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let list = items(spec, "clusterIPs");
    let is_v6 = |address: &Value| address.as_str().is_some_and(|address| address.contains(':'));
    if let [first, second, ..] = list
        && is_v6(first) == is_v6(second)
    {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, &spec["clusterIPs"], detail));
    }
    if list.first().is_some_and(|address| address == "None") {
        return;
    }
    for (index, (address, family)) in list.iter().zip(items(spec, "ipFamilies")).enumerate() {
        let family = family.as_str().unwrap_or_default();
        if is_v6(address) != (family == "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(path.index(index), address, &detail));
        }
    }
}

fn external_addresses(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, address) in items(spec, "externalIPs").iter().enumerate() {
        let (path, address) = (path.index(index), address.as_str().unwrap_or_default());
        let wrong = rule::ip(&path, address);
        if wrong.is_empty() {
            errors.extend(rule::endpoint_ip(&path, address));
        }
        errors.extend(wrong);
    }
}

fn repeated_ports(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let ports = items(spec, "ports");
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate().filter(|(_, port)| number(port, "nodePort") != 0) {
        let path = path.index(index).child("nodePort");
        if spec["type"] == "ClusterIP" {
            errors.push(FieldError::forbidden(&path, "may not be used when `type` is 'ClusterIP'"));
        }
        if !seen.insert((text(port, "protocol"), number(port, "nodePort"))) {
            errors.push(FieldError::duplicate(path, &port["nodePort"]));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        if !seen.insert((text(port, "protocol"), number(port, "port"))) {
            let key = json!({"protocol": port["protocol"], "port": port["port"]});
            errors.push(FieldError::duplicate(path.index(index), &key));
        }
    }
}

fn balancer(spec: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const ELSEWHERE: &str = "may only be used when `type` is 'LoadBalancer'";
    let is_balanced = spec["type"] == "LoadBalancer";
    let (ranges, range_path) = (items(spec, "loadBalancerSourceRanges"), path.child("LoadBalancerSourceRanges"));
    if !ranges.is_empty() && !is_balanced {
        errors.push(FieldError::forbidden(&range_path, ELSEWHERE));
    }
    for (index, range) in ranges.iter().enumerate() {
        errors.extend(rule::cidr(&range_path.index(index), range.as_str().unwrap_or_default().trim()));
    }
    let allocate = "allocateLoadBalancerNodePorts";
    match (present(spec, allocate), is_balanced) {
        (true, false) => errors.push(FieldError::forbidden(path.child(allocate), ELSEWHERE)),
        (false, true) => errors.push(FieldError::required(allocate, "")),
        _ => (),
    }
    if present(spec, "loadBalancerClass") {
        let path = path.child("loadBalancerClass");
        if !is_balanced {
            errors.push(FieldError::forbidden(&path, ELSEWHERE));
        }
        errors.extend(rule::qualified(&path, text(spec, "loadBalancerClass")));
    }
}

fn traffic(service: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let spec = &service["spec"];
    let (policy, policy_path) = (text(spec, "externalTrafficPolicy"), path.child("externalTrafficPolicy"));
    if is_reachable_from_outside(service) {
        errors.extend(rule::required_one_of(&policy_path, policy, &["Cluster", "Local"]));
    } else if !policy.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(policy_path, &policy.into(), detail));
    }
    let (port, port_path) = (number(spec, "healthCheckNodePort"), path.child("healthCheckNodePort"));
    match (needs_health_port(service), port) {
        (false, 0) => (),
        (false, _) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(port_path, &port.into(), detail));
        }
        (true, 0) => errors.push(FieldError::required(port_path, "")),
        (true, _) => errors.extend(rule::port_number(&port_path, port)),
    }
    let internal = path.child("internalTrafficPolicy");
    if present(spec, "internalTrafficPolicy") {
        errors.extend(rule::one_of(&internal, text(spec, "internalTrafficPolicy"), &["Cluster", "Local"]));
    } else if matches!(text(spec, "type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
        errors.push(FieldError::required(internal, ""));
    }
    if present(spec, "trafficDistribution") {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        errors.extend(rule::one_of(&path.child("trafficDistribution"), text(spec, "trafficDistribution"), &known));
    }
}

/// Checks a change: addresses and families stay, unless the Service begins or ends to be a mere name.
pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    if !is_external_name(new) && !is_external_name(old) {
        if !(is_headless(new) && is_headless(old)) {
            fixed(new, old, "clusterIPs", "primary clusterIP can not be unset", &mut errors);
        }
        fixed(new, old, "ipFamilies", "primary ipFamily can not be unset", &mut errors);
    }
    let (class, before) = (&new["spec"]["loadBalancerClass"], &old["spec"]["loadBalancerClass"]);
    let both_balanced = new["spec"]["type"] == "LoadBalancer" && old["spec"]["type"] == "LoadBalancer";
    if both_balanced && class != before {
        errors.push(FieldError::invalid(path.child("loadBalancerClass"), class, "may not change once set"));
    }
    let port = "healthCheckNodePort";
    if needs_health_port(new) && needs_health_port(old) && new["spec"][port] != old["spec"][port] {
        errors.push(FieldError::forbidden(path.child(port), "field is immutable"));
    }
    errors.extend(validate(new));
    errors
}

fn fixed(new: &Value, old: &Value, field: &str, unset: &str, errors: &mut Vec<FieldError>) {
    let (now, before) = (items(&new["spec"], field), items(&old["spec"], field));
    let path = Path::new("spec").child(field);
    if now.is_empty() && !before.is_empty() {
        errors.push(FieldError::invalid(path.index(0), &new["spec"][field], unset));
        return;
    }
    let changed = now.iter().zip(before).enumerate().filter(|(_, (now, before))| now != before);
    for (index, _) in changed {
        errors.push(FieldError::invalid(path.index(index), &new["spec"][field], "may not change once set"));
    }
}

/// Checks what a load balancer reports (`ValidateLoadBalancerStatus`).
pub(super) fn validate_status(new: &Value, _old: &Value) -> Vec<FieldError> {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = items(&new["status"]["loadBalancer"], "ingress");
    let mut errors = Vec::new();
    if new["spec"]["type"] != "LoadBalancer" && !ingress.is_empty() {
        let detail = "may only be used when `spec.type` is \"LoadBalancer\"";
        errors.push(FieldError::forbidden(path, detail));
        return errors;
    }
    for (index, ingress) in ingress.iter().enumerate() {
        let path = path.index(index);
        let (ip, host) = (text(ingress, "ip"), text(ingress, "hostname"));
        if !ip.is_empty() {
            errors.extend(rule::ip(&path.child("ip"), ip));
        }
        let mode = text(ingress, "ipMode");
        if !ip.is_empty() || !mode.is_empty() {
            if ip.is_empty() {
                let detail = "may not be specified when `ip` is not set";
                errors.push(FieldError::forbidden(path.child("ipMode"), detail));
            } else {
                errors.extend(rule::required_one_of(&path.child("ipMode"), mode, &["Proxy", "VIP"]));
            }
        }
        if !host.is_empty() {
            errors.extend(rule::subdomain(&path.child("hostname"), host));
            if host.parse::<IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(path.child("hostname"), &host.into(), detail));
            }
        }
    }
    errors
}
