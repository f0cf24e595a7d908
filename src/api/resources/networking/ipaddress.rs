//! IPAddresses: which address of the range of Services belongs to what.

use jiff::Timestamp;
use serde_json::Value;

use super::{GROUP, segments};
use crate::names;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, present, text};
use crate::resources::{BLANK, NameRule, Resource, rule};
use crate::status::FieldError;

/// `ipaddresses`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "IPAddress",
    list_kind: "IPAddressList",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    name_rule: NameRule::Address,
    validate: |address| validate(&address["spec"]),
    validate_update: |new, old| rule::immutable("spec.parentRef", &new["spec"]["parentRef"], &old["spec"]["parentRef"]),
    columns: &[cell::NAME, column("ParentRef", "string", "", "What it belongs to.", 0), cell::AGE],
    cells,
    ..BLANK
};

fn cells(address: &Value, now: Timestamp) -> Vec<Value> {
    let parent = &address["spec"]["parentRef"];
    let resource = match text(parent, "group") {
        "" => text(parent, "resource").to_owned(),
        group => format!("{}.{group}", text(parent, "resource")),
    };
    let shown = match (parent.is_null(), text(parent, "namespace")) {
        (true, _) => "<none>".to_owned(),
        (false, "") => format!("{resource}/{}", text(parent, "name")),
        (false, namespace) => format!("{resource}/{namespace}/{}", text(parent, "name")),
    };
    vec![cell::name(address), shown.into(), cell::age(address, now)]
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let (parent, path) = (&spec["parentRef"], Path::new("spec").child("parentRef"));
    if !present(spec, "parentRef") {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if !text(parent, "group").is_empty() {
        errors.extend(rule::subdomain(&path.child("group"), text(parent, "group")));
    }
    segments(parent, &["resource", "name"], &path, &mut errors);
    let namespace = text(parent, "namespace");
    errors.extend(rule::each(&path.child("namespace"), namespace, names::path_segment(namespace)));
    errors
}
