//! Ingresses: which Service answers for which host and path.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{GROUP, reference};
use crate::names;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, items, number, present, text};
use crate::resources::{BLANK, Generation, Resource, rule, status_of};
use crate::status::FieldError;

/// Where older clients say the class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// `ingresses`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "Ingress",
    list_kind: "IngressList",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[status_of(GROUP, "v1", "Ingress")],
    validate,
    validate_update: |new, _| validate_spec(&new["spec"]),
    validate_status: |new, _| validate_status(&new["status"]["loadBalancer"]),
    has_status: true,
    new_status: || json!({ "loadBalancer": {} }),
    generation: Generation::SPEC,
    columns: &[
        cell::NAME,
        column("Class", "string", "", "Which class serves it.", 0),
        column("Hosts", "string", "", "For which hosts it is.", 0),
        column("Address", "string", "", "Where it is reached.", 0),
        column("Ports", "string", "", "At which ports it is reached.", 0),
        cell::AGE,
    ],
    cells,
    ..BLANK
};

/// Whether an Ingress says its class, in one way or the other.
pub(in crate::resources) fn has_class(ingress: &Value) -> bool {
    present(&ingress["spec"], "ingressClassName") || present(&ingress["metadata"]["annotations"], CLASS_ANNOTATION)
}

fn cells(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &ingress["spec"];
    let hosts = items(spec, "rules").iter().map(|rule| text(rule, "host").to_owned());
    let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).collect();
    let points = items(&ingress["status"]["loadBalancer"], "ingress").iter();
    let points = points.map(|point| match text(point, "ip") {
        "" => text(point, "hostname"),
        ip => ip,
    });
    let mut points: Vec<&str> = points.filter(|point| !point.is_empty()).collect();
    points.sort_unstable();
    points.dedup();
    let ports = if items(spec, "tls").is_empty() { "80" } else { "80, 443" };
    vec![
        cell::name(ingress),
        spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
        cell::or(&cell::first_of(&hosts, 3), "*"),
        points.join(",").into(),
        ports.into(),
        cell::age(ingress, now),
    ]
}

fn validate(ingress: &Value) -> Vec<FieldError> {
    let mut errors = validate_spec(&ingress["spec"]);
    let annotation = &ingress["metadata"]["annotations"][CLASS_ANNOTATION];
    let class = &ingress["spec"]["ingressClassName"];
    if !annotation.is_null() && !class.is_null() && annotation != class {
        // Upstream's path leaves out `metadata`.
        let path = Path::new("annotations").child(CLASS_ANNOTATION);
        let detail = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(path, annotation, detail));
    }
    errors
}

fn validate_spec(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    let rules = items(spec, "rules");
    if rules.is_empty() && !present(spec, "defaultBackend") {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(&path, &spec["rules"], detail));
    }
    if present(spec, "defaultBackend") {
        backend(&spec["defaultBackend"], &path.child("defaultBackend"), &mut errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        host(text(rule, "host"), &path.child("host"), &mut errors);
        if present(rule, "http") {
            paths(&rule["http"], &path.child("http").child("paths"), &mut errors);
        }
    }
    for (index, tls) in items(spec, "tls").iter().enumerate() {
        let path = path.child("tls").index(index);
        for (at, host) in items(tls, "hosts").iter().enumerate() {
            domain(host.as_str().unwrap_or_default(), &path.child("hosts").index(at), &mut errors);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            errors.extend(rule::subdomain(&path.child("secretName"), secret));
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        errors.extend(rule::subdomain(&path.child("ingressClassName"), class));
    }
    errors
}

fn host(host: &str, path: &Path, errors: &mut Vec<FieldError>) {
    if host.is_empty() {
        return;
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path, &host.into(), "must be a DNS name, not an IP address"));
    }
    domain(host, path, errors);
}

/// A domain, or all domains directly below one.
fn domain(host: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let wrong = if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns1123_subdomain(host) };
    errors.extend(rule::each(path, host, wrong));
}

fn paths(http: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let paths = items(http, "paths");
    if paths.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    for (index, entry) in paths.iter().enumerate() {
        let path = path.index(index);
        let (location, location_path) = (text(entry, "path"), path.child("path"));
        let mut invalid = |detail: &str| errors.push(FieldError::invalid(&location_path, &location.into(), detail));
        match entry["pathType"].as_str() {
            None => {
                errors.push(FieldError::required(path.child("pathType"), "pathType must be specified"));
                continue;
            }
            Some("Exact" | "Prefix") => {
                if !location.starts_with('/') {
                    invalid("must be an absolute path");
                }
                for sequence in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| location.contains(part)) {
                    invalid(&format!("must not contain '{sequence}'"));
                }
                for end in ["/..", "/."].into_iter().filter(|end| location.ends_with(end)) {
                    invalid(&format!("cannot end with '{end}'"));
                }
            }
            Some("ImplementationSpecific") => {
                if !location.is_empty() && !location.starts_with('/') {
                    invalid("must be an absolute path");
                }
            }
            Some(kind) => {
                let known = ["Exact", "ImplementationSpecific", "Prefix"];
                errors.extend(rule::one_of(&path.child("pathType"), kind, &known));
            }
        }
        backend(&entry["backend"], &path.child("backend"), errors);
    }
}

fn backend(backend: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let empty = Value::from("");
    match (present(backend, "resource"), present(backend, "service")) {
        (true, true) => {
            errors.push(FieldError::invalid(path, &empty, "cannot set both resource and service backends"));
        }
        (true, false) => reference(&backend["resource"], &path.child("resource"), errors),
        (false, true) => service(&backend["service"], path, errors),
        (false, false) => {
            errors.push(FieldError::invalid(path, &empty, "resource or service backend is required"));
        }
    }
}

fn service(service: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let own = path.child("service");
    match text(service, "name") {
        "" => errors.push(FieldError::required(own.child("name"), "")),
        name => errors.extend(rule::each(&own.child("name"), name, names::dns1035_label(name))),
    }
    let (name, port) = (text(&service["port"], "name"), number(&service["port"], "number"));
    let port_path = own.child("port");
    match (name.is_empty(), port == 0) {
        (false, false) => {
            errors.push(FieldError::invalid(path, &"".into(), "cannot set both port name & port number"));
        }
        (false, true) => errors.extend(rule::each(&port_path.child("name"), name, names::port_name(name))),
        (true, false) => errors.extend(rule::port_number(&port_path.child("number"), port)),
        (true, true) => errors.push(FieldError::required(path, "port name or number is required")),
    }
}

fn validate_status(balancer: &Value) -> Vec<FieldError> {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let mut errors = Vec::new();
    for (index, point) in items(balancer, "ingress").iter().enumerate() {
        let path = path.index(index);
        if !text(point, "ip").is_empty() {
            errors.extend(rule::ip(&path.child("ip"), text(point, "ip")));
        }
        let (name, path) = (text(point, "hostname"), path.child("hostname"));
        if !name.is_empty() {
            errors.extend(rule::subdomain(&path, name));
            if name.parse::<std::net::IpAddr>().is_ok() {
                errors.push(FieldError::invalid(path, &name.into(), "must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}
