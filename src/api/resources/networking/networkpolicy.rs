//! NetworkPolicies: who may talk to which pods, and to whom these may talk.
//!
//! They are kept and checked, and nothing is refused by them yet: whoever writes one is told.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::GROUP;
use crate::names;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, default_text, ensure_object, items, items_mut, present, text};
use crate::resources::{BLANK, Generation, Resource, rule, selector};
use crate::status::FieldError;

/// `networkpolicies`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "NetworkPolicy",
    list_kind: "NetworkPolicyList",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    default,
    validate: |policy| validate(&policy["spec"]),
    validate_update: |new, _| validate(&new["spec"]),
    generation: Generation::SPEC,
    columns: &[cell::NAME, column("Pod-Selector", "string", "", "Which pods it is for.", 0), cell::AGE],
    cells: |policy, now: Timestamp| {
        vec![cell::name(policy), selector::cell(&policy["spec"]["podSelector"]), cell::age(policy, now)]
    },
    ..BLANK
};

fn default(policy: &mut Value) {
    let spec = ensure_object(policy, "spec");
    for list in ["ingress", "egress"] {
        for rule in items_mut(spec, list) {
            items_mut(rule, "ports").for_each(|port| default_text(port, "protocol", "TCP"));
        }
    }
    if items(spec, "policyTypes").is_empty() {
        spec["policyTypes"] = json!(["Ingress"]);
        if !items(spec, "egress").is_empty() {
            spec["policyTypes"] = json!(["Ingress", "Egress"]);
        }
    }
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    selector::check(&spec["podSelector"], &path.child("podSelector"), &mut errors);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(spec, list).iter().enumerate() {
            let path = path.child(list).index(index);
            for (at, port) in items(rule, "ports").iter().enumerate() {
                check_port(port, &path.child("ports").index(at), &mut errors);
            }
            for (at, peer) in items(rule, peers).iter().enumerate() {
                check_peer(peer, &path.child(peers).index(at), &mut errors);
            }
        }
    }
    let (types, path) = (items(spec, "policyTypes"), path.child("policyTypes"));
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(path, &spec["policyTypes"], detail));
        return errors;
    }
    for (index, kind) in types.iter().enumerate() {
        let known = ["Ingress", "Egress"];
        errors.extend(rule::one_of(&path.index(index), kind.as_str().unwrap_or_default(), &known));
    }
    errors
}

fn check_port(port: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if present(port, "protocol") {
        let known = ["TCP", "UDP", "SCTP"];
        errors.extend(rule::one_of(&path.child("protocol"), text(port, "protocol"), &known));
    }
    let (end, end_path) = (&port["endPort"], path.child("endPort"));
    let mut wrong_end = |detail: &str| errors.push(FieldError::invalid(&end_path, end, detail));
    match (&port["port"], end.as_i64()) {
        (Value::Null, Some(_)) => wrong_end("may not be specified when `port` is not specified"),
        (Value::String(name), last) => {
            if last.is_some() {
                wrong_end("may not be specified when `port` is non-numeric");
            }
            errors.extend(rule::each(&path.child("port"), name, names::port_name(name)));
        }
        (number, last) if !number.is_null() => {
            let first = number.as_i64().unwrap_or(0);
            errors.extend(rule::port_number(&path.child("port"), first));
            if let Some(last) = last {
                if last < first {
                    errors.push(FieldError::invalid(&end_path, end, "must be greater than or equal to `port`"));
                }
                errors.extend(rule::port_number(&end_path, last));
            }
        }
        _ => (),
    }
}

fn check_peer(peer: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let selectors = ["podSelector", "namespaceSelector"];
    let said = selectors.into_iter().filter(|field| present(peer, field));
    let count = said.clone().count();
    for field in said {
        selector::check(&peer[field], &path.child(field), errors);
    }
    let block = present(peer, "ipBlock");
    if block {
        check_block(&peer["ipBlock"], &path.child("ipBlock"), errors);
    }
    match (count, block) {
        (0, false) => errors.push(FieldError::required(path, "must specify a peer")),
        (1.., true) => {
            errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
        }
        _ => (),
    }
}

fn check_block(block: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        errors.push(FieldError::required(path.child("cidr"), ""));
        return;
    }
    errors.extend(rule::cidr(&path.child("cidr"), cidr));
    let Some(whole) = parse(cidr) else { return };
    for (index, except) in items(block, "except").iter().enumerate() {
        let (path, except) = (path.child("except").index(index), except.as_str().unwrap_or_default());
        errors.extend(rule::cidr(&path, except));
        if parse(except).is_some_and(|part| !is_strict_part(part, whole)) {
            errors.push(FieldError::invalid(path, &except.into(), "must be a strict subset of `cidr`"));
        }
    }
}

fn parse(cidr: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = cidr.split_once('/')?;
    Some((address.parse().ok()?, bits.parse().ok()?))
}

fn is_strict_part((address, bits): (IpAddr, u32), (whole, whole_bits): (IpAddr, u32)) -> bool {
    let same = match (address, whole) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.saturating_sub(whole_bits);
            a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128_u32.saturating_sub(whole_bits);
            a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
        }
        _ => false,
    };
    same && bits > whole_bits
}
