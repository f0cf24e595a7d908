//! ServiceCIDRs: ranges of addresses for Services. What becomes of them is in [`crate::resources::service::ranges`].

use jiff::Timestamp;
use serde_json::{Value, json};

use super::GROUP;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, items};
use crate::resources::service::ranges::FINALIZER;
use crate::resources::{BLANK, Generation, Resource, rule, status_of};
use crate::status::FieldError;

/// `servicecidrs`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "ServiceCIDR",
    list_kind: "ServiceCIDRList",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    subresources: &[status_of(GROUP, "v1", "ServiceCIDR")],
    prepare: hold,
    validate: |range| validate(&range["spec"]),
    validate_update,
    has_status: true,
    new_status: || json!({}),
    generation: Generation::SPEC,
    columns: &[cell::NAME, column("CIDRs", "string", "", "The ranges.", 0), cell::AGE],
    cells: |range, now: Timestamp| {
        let cidrs: Vec<&str> = items(&range["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
        vec![cell::name(range), cidrs.join(",").into(), cell::age(range, now)]
    },
    ..BLANK
};

/// From its beginning, or it might go while somebody is given an address.
fn hold(range: &mut Value) {
    let mut finalizers = items(&range["metadata"], "finalizers").to_vec();
    if !finalizers.iter().any(|name| name == FINALIZER) {
        finalizers.push(FINALIZER.into());
        range["metadata"]["finalizers"] = finalizers.into();
    }
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let (cidrs, path) = (items(spec, "cidrs"), Path::new("spec").child("cidrs"));
    match cidrs.len() {
        0 => return vec![FieldError::required(path, "at least one CIDR required")],
        1 | 2 => (),
        _ => return vec![FieldError::invalid(path, spec, "may only hold up to 2 values")],
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut errors: Vec<FieldError> = Vec::new();
    for (index, cidr) in cidrs.iter().enumerate() {
        errors.extend(rule::cidr(&path.index(index), &text(cidr)));
    }
    if let [one, other] = cidrs
        && errors.is_empty()
        && text(one).contains(':') == text(other).contains(':')
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(path, &spec["cidrs"], detail));
    }
    errors
}

/// A range may get a second one of the other family, and nothing else.
fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (cidrs, old) = (items(&new["spec"], "cidrs"), items(&old["spec"], "cidrs"));
    let path = Path::new("spec").child("cidrs");
    if cidrs.len() != old.len() && (old.len(), cidrs.len()) != (1, 2) {
        return vec![FieldError::invalid(path, &new["spec"]["cidrs"], "field is immutable")];
    }
    let pairs = cidrs.iter().zip(old).enumerate();
    let mut errors: Vec<FieldError> =
        pairs.flat_map(|(index, (new, old))| rule::immutable(path.index(index), new, old)).collect();
    if cidrs.len() > old.len() {
        errors.extend(validate(&new["spec"]));
    }
    errors
}
