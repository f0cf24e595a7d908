//! EndpointSlices: what stands behind a Service, in parts of bounded size.
//!
//! Follows `pkg/apis/discovery` of upstream.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::{Path, default_text, default_to, items, items_mut, number, present, text};
use super::{BLANK, Generation, Resource, rule};
use crate::names;
use crate::status::FieldError;

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;
const MOST_HINTS: usize = 8;
const MOST_TOPOLOGY: usize = 16;

/// `endpointslices.discovery.k8s.io`.
pub(super) const ROW: Resource = Resource {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    list_kind: "EndpointSliceList",
    plural: "endpointslices",
    singular: "endpointslice",
    default,
    validate,
    validate_update,
    generation: Generation::Of(&["/metadata/labels", "/endpoints", "/ports"]),
    columns: &[
        cell::NAME,
        column("AddressType", "string", "", "What kind of addresses it has.", 0),
        column("Ports", "string", "", "Ports of the endpoints.", 0),
        column("Endpoints", "string", "", "Addresses of the endpoints.", 0),
        cell::AGE,
    ],
    cells,
    ..BLANK
};

fn cells(slice: &Value, now: Timestamp) -> Vec<Value> {
    let port = |port: &Value| match (port["port"].as_i64(), port["name"].as_str()) {
        (Some(number), _) => number.to_string(),
        (None, name) => name.unwrap_or("*").to_owned(),
    };
    let ports: Vec<String> = items(slice, "ports").iter().map(port).collect();
    let addresses = items(slice, "endpoints").iter().flat_map(|endpoint| items(endpoint, "addresses"));
    let addresses: Vec<String> = addresses.map(|address| address.as_str().unwrap_or_default().to_owned()).collect();
    let shown = |list: &[String]| cell::or(&cell::first_of(list, 3), "<unset>");
    let kind = text(slice, "addressType");
    vec![cell::name(slice), kind.into(), shown(&ports), shown(&addresses), cell::age(slice, now)]
}

fn default(slice: &mut Value) {
    for port in items_mut(slice, "ports") {
        default_to(port, "name", "");
        default_text(port, "protocol", "TCP");
    }
}

fn validate(slice: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(slice, "addressType");
    errors.extend(rule::required_one_of(&Path::new("addressType"), kind, &["FQDN", "IPv4", "IPv6"]));
    let (endpoints, path) = (items(slice, "endpoints"), Path::new("endpoints"));
    if endpoints.len() > MOST_ENDPOINTS {
        errors.push(FieldError::too_many(path, endpoints.len(), MOST_ENDPOINTS));
    } else {
        for (index, endpoint) in endpoints.iter().enumerate() {
            check_endpoint(endpoint, kind, &path.index(index), &mut errors);
        }
    }
    check_ports(items(slice, "ports"), &Path::new("ports"), &mut errors);
    errors
}

fn check_endpoint(endpoint: &Value, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let (addresses, address_path) = (items(endpoint, "addresses"), path.child("addresses"));
    if addresses.is_empty() {
        errors.push(FieldError::required(&address_path, "must contain at least 1 address"));
    } else if addresses.len() > MOST_ADDRESSES {
        errors.push(FieldError::too_many(&address_path, addresses.len(), MOST_ADDRESSES));
    }
    for (index, address) in addresses.iter().enumerate() {
        check_address(address.as_str().unwrap_or_default(), kind, &address_path.index(index), errors);
    }
    if present(endpoint, "nodeName") {
        errors.extend(rule::subdomain(&path.child("nodeName"), text(endpoint, "nodeName")));
    }
    let topology = endpoint["deprecatedTopology"].as_object().map_or(0, serde_json::Map::len);
    if topology > MOST_TOPOLOGY {
        errors.push(FieldError::too_many(path.child("deprecatedTopology"), topology, MOST_TOPOLOGY));
    }
    errors.extend(rule::labels(&path.child("deprecatedTopology"), endpoint, "deprecatedTopology"));
    if present(endpoint, "hostname") {
        errors.extend(rule::label(&path.child("hostname"), text(endpoint, "hostname")));
    }
    for list in ["forZones", "forNodes"] {
        check_hints(items(&endpoint["hints"], list), &path.child("hints").child(list), errors);
    }
}

fn check_address(address: &str, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let mut invalid = |detail: &str| errors.push(FieldError::invalid(path, &address.into(), detail));
    match (kind, address.parse::<IpAddr>()) {
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => errors.extend(rule::endpoint_ip(path, address)),
        ("IPv4", _) => invalid("must be a valid IPv4 address"),
        ("IPv6", _) => invalid("must be a valid IPv6 address"),
        ("FQDN", _) if address.is_empty() => errors.push(FieldError::required(path, "")),
        ("FQDN", _) => {
            let sentences = names::dns1123_subdomain(address.strip_suffix('.').unwrap_or(address));
            if !sentences.is_empty() {
                errors.extend(rule::each(path, address, sentences));
            } else if !address.contains('.') {
                invalid("should be a domain with at least two segments separated by dots");
            }
        }
        _ => (),
    }
}

fn check_hints(hints: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    if hints.len() > MOST_HINTS {
        errors.push(FieldError::too_many(path, hints.len(), MOST_HINTS));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, hint) in hints.iter().enumerate() {
        let (path, name) = (path.index(index).child("name"), text(hint, "name"));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, &name.into()));
        }
        errors.extend(rule::each(&path, name, names::label_value(name)));
    }
}

fn check_ports(ports: &[Value], path: &Path, errors: &mut Vec<FieldError>) {
    if ports.len() > MOST_PORTS {
        errors.push(FieldError::too_many(path, ports.len(), MOST_PORTS));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (path, name) = (path.index(index), text(port, "name"));
        if !name.is_empty() {
            errors.extend(rule::label(&path.child("name"), name));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.child("name"), &name.into()));
        }
        if present(port, "port") {
            errors.extend(rule::port_number(&path.child("port"), number(port, "port")));
        }
        let known = ["SCTP", "TCP", "UDP"];
        errors.extend(rule::required_one_of(&path.child("protocol"), text(port, "protocol"), &known));
        if present(port, "appProtocol") {
            errors.extend(rule::qualified(&path.child("appProtocol"), text(port, "appProtocol")));
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(new);
    errors.extend(rule::immutable("addressType", &new["addressType"], &old["addressType"]));
    errors
}
