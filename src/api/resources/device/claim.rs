//! ResourceClaims: that somebody asks for devices, which ones were allocated, and who may use them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{GROUP, IDLE, MOST, binding, by_word, configuration, each, pool_name, raw, request, set, tolerations};
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, items, object_mut, present, text};
use crate::resources::pod::affinity;
use crate::resources::{BLANK, Generation, Resource, rule, status_of, storage};
use crate::status::FieldError;

/// Most users of a claim.
const MOST_USERS: usize = 256;
/// Most conditions and addresses of an allocated device, and most bytes of its names in the network.
const MOST_CONDITIONS: usize = 8;
const MOST_ADDRESSES: usize = 16;
const LONGEST_INTERFACE: usize = 256;
const LONGEST_HARDWARE_ADDRESS: usize = 128;

/// `resourceclaims`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "ResourceClaim",
    list_kind: "ResourceClaimList",
    plural: "resourceclaims",
    singular: "resourceclaim",
    subresources: &[status_of(GROUP, "v1", "ResourceClaim")],
    default: |claim| {
        if let Some(spec) = object_mut(claim, "spec") {
            request::default(spec);
        }
    },
    validate: |claim| {
        let mut errors = Vec::new();
        request::check(&claim["spec"], &Path::new("spec"), &mut errors);
        errors
    },
    validate_update: |new, old| rule::immutable("spec", &new["spec"], &old["spec"]),
    validate_status,
    warn: |_| vec![IDLE.to_owned()],
    has_status: true,
    generation: Generation::None,
    columns: &[cell::NAME, column("State", "string", "", "Whether it is allocated and used.", 0), cell::AGE],
    cells: |claim, now: Timestamp| vec![cell::name(claim), state(claim).into(), cell::age(claim, now)],
    status_keeps: &["labels", "annotations", "finalizers", "ownerReferences"],
    returns_deleted: true,
    ..BLANK
};

/// The state of a claim in words (`resourceClaimState` of the printers).
fn state(claim: &Value) -> String {
    let is_deleted = present(&claim["metadata"], "deletionTimestamp");
    let mut words = Vec::from_iter(is_deleted.then_some("deleted"));
    match (present(&claim["status"], "allocation"), items(&claim["status"], "reservedFor").is_empty()) {
        (false, _) if is_deleted => (),
        (false, _) => words.push("pending"),
        (true, false) => words.extend(["allocated", "reserved"]),
        (true, true) => words.push("allocated"),
    }
    words.join(",")
}

fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let (status, before, path) = (&new["status"], &old["status"], Path::new("status"));
    let mut errors = Vec::new();
    let uid = |user: &Value| text(user, "uid").to_owned();
    set(status, "reservedFor", MOST_USERS, &path, &mut errors, uid, |user, path, errors| {
        let fields = ["resource", "name", "uid"];
        errors.extend(fields.into_iter().filter_map(|field| rule::not_empty(&path.child(field), text(user, field))));
    });
    let allocated: BTreeSet<_> = items(&status["allocation"]["devices"], "results").iter().map(device_key).collect();
    set(status, "devices", usize::MAX, &path, &mut errors, device_key, |device, path, errors| {
        check_device(device, &allocated, path, errors);
    });
    let users = items(status, "reservedFor");
    let path_of_users = path.child("reservedFor");
    if !users.is_empty() && !present(status, "allocation") {
        errors.push(FieldError::forbidden(&path_of_users, "may not be specified when `allocated` is not set"));
    }
    let known = items(before, "reservedFor");
    if present(&new["metadata"], "deletionTimestamp") && users.iter().any(|user| !known.contains(user)) {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.push(FieldError::forbidden(&path_of_users, detail));
    }
    let path = path.child("allocation");
    match (present(before, "allocation"), present(status, "allocation")) {
        (true, true) => errors.extend(rule::immutable(path, &status["allocation"], &before["allocation"])),
        (false, true) => check_allocation(&status["allocation"], &request::names(&new["spec"]), &path, &mut errors),
        (_, false) => (),
    }
    errors
}

/// Which device something is about, with the share of it.
fn device_key(device: &Value) -> String {
    let named = ["driver", "pool", "device"].map(|field| text(device, field)).join("/");
    device["shareID"].as_str().map_or(named.clone(), |share| format!("{named}/{share}"))
}

/// Driver, pool and name of a device, and its share.
fn identity(device: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(storage::check_driver(&path.child("driver"), text(device, "driver")));
    errors.extend(pool_name(&path.child("pool"), text(device, "pool")));
    errors.extend(rule::label(&path.child("device"), text(device, "device")));
    if let Some(share) = device["shareID"].as_str() {
        let is_uid = share.len() == 36
            && share.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            });
        if !is_uid {
            let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                          hexadecimal characters";
            errors.push(FieldError::invalid(path.child("shareID"), &share.into(), detail));
        }
    }
}

/// What a driver says of an allocated device (`validateDeviceStatus`).
fn check_device(device: &Value, allocated: &BTreeSet<String>, path: &Path, errors: &mut Vec<FieldError>) {
    identity(device, path, errors);
    let key = device_key(device);
    if !allocated.contains(&key) {
        errors.push(FieldError::invalid(path, &key.into(), "must be an allocated device in the claim"));
    }
    each(device, "conditions", MOST_CONDITIONS, path, errors, |_, _, _| ());
    if present(device, "data") {
        raw(&device["data"], &path.child("data"), errors);
    }
    let (network, path) = (&device["networkData"], path.child("networkData"));
    let lengths = [("interfaceName", LONGEST_INTERFACE), ("hardwareAddress", LONGEST_HARDWARE_ADDRESS)];
    for (field, longest) in lengths.into_iter().filter(|(field, longest)| text(network, field).len() > *longest) {
        errors.push(FieldError::too_long(path.child(field), longest));
    }
    set(network, "ips", MOST_ADDRESSES, &path, errors, by_word, |address, path, errors| {
        errors.extend(rule::cidr(path, address.as_str().unwrap_or_default()));
    });
}

/// What a scheduler allocated (`validateAllocationResult`).
fn check_allocation(allocation: &Value, known: &request::Names<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    let (devices, at) = (&allocation["devices"], path.child("devices"));
    each(devices, "results", MOST, &at, errors, |result, path, errors| {
        request::reference(text(result, "request"), known, &path.child("request"), errors);
        identity(result, path, errors);
        binding(result, path, errors);
        tolerations(result, path, errors);
    });
    // Those of the class and those of the claim.
    each(devices, "config", 2 * MOST, &at, errors, |config, path, errors| {
        let sources = ["FromClaim", "FromClass"];
        errors.extend(rule::required_one_of(&path.child("source"), text(config, "source"), &sources));
        request::references(config, known, path, errors);
        configuration(config, path, errors);
    });
    if present(allocation, "nodeSelector") {
        affinity::check_node_selector(&allocation["nodeSelector"], &path.child("nodeSelector"), errors);
    }
}
