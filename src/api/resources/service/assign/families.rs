//! Which families of addresses a Service has: `initIPFamilyFields` of `pkg/registry/core/service/storage/alloc.go`.
//!
//! A Service goes from one family to two, and back, by a change of its policy alone; when the ranges of the cluster change,
//! it stays as it is. One without addresses and without pods of its own may have both families everywhere: its endpoints are
//! somebody else's.

use serde_json::{Value, json};

use super::{Family, Network};
use crate::resources::path::{Path, ensure_object, items, object_len, present, text};
use crate::resources::service::is_headless;
use crate::status::FieldError;

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";
const ADDRESSES: &str = "clusterIPs";
const FAMILIES: &str = "ipFamilies";

/// Fills in policy and families of a Service that has addresses.
pub(super) fn settle(service: &mut Value, old: Option<&Value>, network: &Network) -> Vec<FieldError> {
    let is_free = is_headless(service) && object_len(&service["spec"], "selector") == 0;
    let spec = ensure_object(service, "spec");
    if !present(spec, "ipFamilyPolicy") {
        spec["ipFamilyPolicy"] = if is_free { REQUIRE } else { SINGLE }.into();
    }
    let old = old.map(|old| &old["spec"]).filter(|old| present(old, FAMILIES));
    if old.is_some_and(|old| prefers_as_before(spec, old)) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if let Some(old) = old {
        release(spec, old, &mut errors);
    }
    only_what_fits(spec, &mut errors);
    infer(spec, network, &mut errors);
    if !errors.is_empty() {
        return errors;
    }
    if items(spec, FAMILIES).is_empty() && is_free {
        spec[FAMILIES] = json!([Family::V4.name()]);
    }
    if !is_free {
        errors = only_what_is_there(spec, network);
        if !errors.is_empty() {
            return errors;
        }
        if items(spec, FAMILIES).is_empty() {
            spec[FAMILIES] = json!([Family::V4.name()]);
        }
    }
    let is_single = text(spec, "ipFamilyPolicy") == SINGLE;
    if let ([only], false) = (items(spec, FAMILIES), is_single || (!is_free && network.v6.is_none()))
        && let Some(first) = only.as_str().and_then(Family::named)
    {
        spec[FAMILIES] = json!([first.name(), first.other().name()]);
    }
    errors
}

/// `isMatchingPreferDualStackClusterIPFields`: it was content with what there was, and is.
fn prefers_as_before(spec: &Value, old: &Value) -> bool {
    let same = |field: &str| spec[field] == old[field];
    text(spec, "ipFamilyPolicy") == PREFER
        && same("ipFamilyPolicy")
        && same("type")
        && same(ADDRESSES)
        && same(FAMILIES)
        && !items(spec, ADDRESSES).is_empty()
}

/// The second address and family go if the policy says so, and only then.
fn release(spec: &mut Value, old: &Value, errors: &mut Vec<FieldError>) {
    let is_single = text(spec, "ipFamilyPolicy") == SINGLE;
    for (field, what) in [(ADDRESSES, "clusterIP"), (FAMILIES, "ipFamily")] {
        let (now, before) = (items(spec, field), items(old, field));
        if is_single && now.len() > 1 && now == before {
            spec[field] = json!([now[0]]);
        } else if !is_single && !now.is_empty() && now.len() < before.len() {
            let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
            errors.push(FieldError::invalid(policy_path(), &spec["ipFamilyPolicy"], &detail));
        }
    }
}

fn only_what_fits(spec: &Value, errors: &mut Vec<FieldError>) {
    if text(spec, "ipFamilyPolicy") != SINGLE {
        return;
    }
    for (field, what) in [(ADDRESSES, "cluster IPs"), (FAMILIES, "IP families")] {
        if items(spec, field).len() == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(FieldError::invalid(policy_path(), &spec["ipFamilyPolicy"], &detail));
        }
    }
}

/// Addresses say their families.
fn infer(spec: &mut Value, network: &Network, errors: &mut Vec<FieldError>) {
    let mut families = items(spec, FAMILIES).to_vec();
    for (index, address) in items(spec, ADDRESSES).iter().enumerate().skip(families.len()) {
        let Some(address) = address.as_str().and_then(|text| text.parse().ok()) else { break };
        let family = Family::of(address);
        if network.block(family).is_none() {
            let path = Path::new("spec").child(ADDRESSES).index(index);
            let detail = format!("{} is not configured on this cluster", family.name());
            errors.push(FieldError::invalid(path, &spec[ADDRESSES], &detail));
        } else {
            families.push(family.name().into());
        }
    }
    if !families.is_empty() {
        spec[FAMILIES] = families.into();
    }
}

fn only_what_is_there(spec: &Value, network: &Network) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(spec, "ipFamilyPolicy") == REQUIRE && network.v6.is_none() {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(policy_path(), &spec["ipFamilyPolicy"], detail));
    }
    for (index, family) in items(spec, FAMILIES).iter().enumerate() {
        let is_there = family.as_str().and_then(Family::named).is_some_and(|family| network.block(family).is_some());
        if !is_there {
            let path = Path::new("spec").child(FAMILIES).index(index);
            errors.push(FieldError::invalid(path, family, "not configured on this cluster"));
        }
    }
    errors
}

fn policy_path() -> Path {
    Path::new("spec").child("ipFamilyPolicy")
}
