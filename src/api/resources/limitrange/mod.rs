//! LimitRanges: how much a single pod, container or claim of a namespace may ask for, and what it asks for if it does not
//! say.
//!
//! Follows `ValidateLimitRange` and `SetDefaults_LimitRangeItem` of upstream.

pub mod apply;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::path::{Path, default_to, ensure_object, entries, items, items_mut, object_len, object_mut, present, text};
use super::pod::requests::{Amounts, amounts};
use super::pod::resources::{check_container_name, check_standard, is_overcommitted};
use super::{BLANK, Resource, rule};
use crate::quantity::Quantity;
use crate::status::FieldError;

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];

/// `limitranges`.
pub(super) const ROW: Resource = Resource {
    kind: "LimitRange",
    list_kind: "LimitRangeList",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    default: |range| {
        if let Some(spec) = object_mut(range, "spec") {
            items_mut(spec, "limits").filter(|limit| limit["type"] == "Container").for_each(default_limit);
        }
    },
    validate,
    validate_update: |new, _| validate(new),
    ..BLANK
};

/// What is at most allowed is what a container gets if it does not say, and what it gets or needs at least is what it
/// asks for.
fn default_limit(limit: &mut Value) {
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let amounts: Vec<(String, Value)> =
            entries(limit, from).map(|(name, amount)| (name.clone(), amount.clone())).collect();
        for (name, amount) in amounts {
            default_to(ensure_object(limit, to), &name, amount);
        }
    }
}

fn validate(range: &Value) -> Vec<FieldError> {
    let path = Path::new("spec").child("limits");
    let mut errors = Vec::new();
    let mut types = BTreeSet::new();
    for (index, limit) in items(&range["spec"], "limits").iter().enumerate() {
        let path = path.index(index);
        let kind = text(limit, "type");
        let type_path = path.child("type");
        let wrong = rule::qualified(&type_path, kind);
        if wrong.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(&type_path, &kind.into(), detail));
        }
        errors.extend(wrong);
        if !types.insert(kind) {
            errors.push(FieldError::duplicate(type_path, &kind.into()));
        }
        validate_limit(limit, kind, &path, &mut errors);
    }
    errors
}

fn validate_limit(limit: &Value, kind: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let mut checked = vec!["max", "min"];
    for field in ["default", "defaultRequest"] {
        if kind != "Pod" {
            checked.push(field);
        } else if object_len(limit, field) > 0 {
            let detail = "may not be specified when `type` is 'Pod'";
            errors.push(FieldError::forbidden(path.child(field), detail));
        }
    }
    let sizes = ["min", "max"].into_iter().any(|field| present(&limit[field], "storage"));
    if kind == "PersistentVolumeClaim" && !sizes {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(path.child("limits"), detail));
    }
    checked.push("maxLimitRequestRatio");
    let mut fields: BTreeMap<&str, Amounts> = BTreeMap::new();
    for field in &checked {
        for (name, _) in entries(limit, field) {
            let path = path.child(field).key(name);
            match kind {
                "Pod" | "Container" => check_container_name(&path, name, errors),
                _ => check_standard(&path, name, errors),
            }
        }
        fields.insert(field, amounts(limit, field));
    }
    let names: BTreeSet<String> = fields.values().flat_map(|amounts| amounts.keys().cloned()).collect();
    for name in names {
        let of = |field: &str| fields.get(field).and_then(|amounts| amounts.get(&name)).copied();
        consistent(&name, &of, path, errors);
    }
}

/// What is compared: the lesser, its word, the greater, its word, and the field and amount of the error.
type Order<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

const ORDERS: [Order<'static>; 6] = [
    ("min", "min value", "max", "max value", "min", "min"),
    ("min", "min value", "defaultRequest", "default request value", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default request value", "max", "max value", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default request value", "default", "default limit value", "defaultRequest", "defaultRequest"),
    ("min", "min value", "default", "default value", "default", "min"),
    ("default", "default value", "max", "max value", "default", "max"),
];

fn consistent(name: &str, of: &dyn Fn(&str) -> Option<Quantity>, path: &Path, errors: &mut Vec<FieldError>) {
    let mut invalid = |field: &str, value: Quantity, detail: &str| {
        errors.push(FieldError::invalid(path.child(field).key(name), &value.to_string().into(), detail));
    };
    for (less, less_word, more, more_word, field, shown) in ORDERS {
        if let (Some(less), Some(more), Some(shown)) = (of(less), of(more), of(shown))
            && less > more
        {
            invalid(field, shown, &format!("{less_word} {less} is greater than {more_word} {more}"));
        }
    }
    if let Some(ratio) = of("maxLimitRequestRatio") {
        if ratio < Quantity::from_whole(1) {
            invalid("maxLimitRequestRatio", ratio, &format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (of("min"), of("max")) {
            #[expect(clippy::cast_precision_loss, reason = "a ratio for comparison, computed so by upstream")]
            let most = max.milli_value() as f64 / min.milli_value() as f64;
            #[expect(clippy::cast_precision_loss, reason = "a ratio for comparison, computed so by upstream")]
            let asked = ratio.milli_value() as f64 / 1000.0;
            if asked > most {
                invalid("maxLimitRequestRatio", ratio, &format!("ratio {ratio} is greater than max/min = {most:.6}"));
            }
        }
    }
    if let (Some(limit), Some(request)) = (of("default"), of("defaultRequest"))
        && !is_overcommitted(name)
        && limit != request
    {
        let detail = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        invalid("defaultRequest", request, &detail);
    }
}
