//! Endpoints, which EndpointSlices have replaced.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::{Path, default_text, items, items_mut, number, present, text};
use super::{BLANK, Resource, rule};
use crate::status::FieldError;

/// `endpoints`.
pub(super) const ROW: Resource = Resource {
    kind: "Endpoints",
    list_kind: "EndpointsList",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    default,
    validate,
    validate_update: |new, _| validate(new),
    columns: &[
        cell::NAME,
        column("Endpoints", "string", "", "Addresses and ports of what stands behind the Service.", 0),
        cell::AGE,
    ],
    cells,
    deprecation: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ..BLANK
};

fn cells(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(endpoints), shown(endpoints).into(), cell::age(endpoints, now)]
}

/// The first three addresses with their ports, and how many more there are.
fn shown(endpoints: &Value) -> String {
    let mut list = Vec::new();
    for subset in items(endpoints, "subsets") {
        let (addresses, ports) = (items(subset, "addresses"), items(subset, "ports"));
        if ports.is_empty() {
            list.extend(addresses.iter().map(|address| text(address, "ip").to_owned()));
        }
        for port in ports {
            list.extend(addresses.iter().map(|address| {
                let (ip, port) = (text(address, "ip"), number(port, "port"));
                if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
            }));
        }
    }
    if list.is_empty() { "<none>".to_owned() } else { cell::first_of(&list, 3) }
}

fn default(endpoints: &mut Value) {
    for subset in items_mut(endpoints, "subsets") {
        items_mut(subset, "ports").for_each(|port| default_text(port, "protocol", "TCP"));
    }
}

fn validate(endpoints: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, subset) in items(endpoints, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(index);
        if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(&path, detail));
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (index, address) in items(subset, list).iter().enumerate() {
                check_address(address, &path.child(list).index(index), &mut errors);
            }
        }
        let ports = items(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            check_port(port, ports.len() > 1, &path.child("ports").index(index), &mut errors);
        }
    }
    errors
}

fn check_address(address: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let wrong = rule::ip(&path.child("ip"), text(address, "ip"));
    if wrong.is_empty() {
        errors.extend(rule::endpoint_ip(&path.child("ip"), text(address, "ip")));
    }
    errors.extend(wrong);
    if !text(address, "hostname").is_empty() {
        errors.extend(rule::label(&path.child("hostname"), text(address, "hostname")));
    }
    if present(address, "nodeName") {
        errors.extend(rule::subdomain(&path.child("nodeName"), text(address, "nodeName")));
    }
}

fn check_port(port: &Value, must_be_named: bool, path: &Path, errors: &mut Vec<FieldError>) {
    match text(port, "name") {
        "" if must_be_named => errors.push(FieldError::required(path.child("name"), "")),
        "" => (),
        name => errors.extend(rule::label(&path.child("name"), name)),
    }
    errors.extend(rule::port_number(&path.child("port"), number(port, "port")));
    let known = ["SCTP", "TCP", "UDP"];
    errors.extend(rule::required_one_of(&path.child("protocol"), text(port, "protocol"), &known));
    if present(port, "appProtocol") {
        errors.extend(rule::qualified(&path.child("appProtocol"), text(port, "appProtocol")));
    }
}
