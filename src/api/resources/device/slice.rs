//! ResourceSlices: which devices a driver has, as a part of a pool of them.

use jiff::Timestamp;
use serde_json::Value;

use super::{GROUP, IDLE, MOST, binding, by_name, counters, each, pool_name, qualified, required_label, set, taint};
use crate::quantity::Quantity;
use crate::resources::cell::{self, column};
use crate::resources::path::{Path, entries, items, number, object_len, present, text};
use crate::resources::pod::affinity;
use crate::resources::{BLANK, Generation, Resource, rule, storage};
use crate::status::FieldError;

/// Most devices of a slice, and most if some of them have taints, counters or lists.
const MOST_DEVICES: usize = 128;
const MOST_SPECIAL_DEVICES: usize = 64;
/// Most sets of counters of a slice, and most that one device draws on.
const MOST_COUNTER_SETS: usize = 8;
const MOST_CONSUMPTIONS: usize = 2;
/// Most taints of a device, and most bytes of an attribute.
const MOST_TAINTS: usize = 16;
const LONGEST_ATTRIBUTE: usize = 64;
/// Most amounts that a request may choose from.
const MOST_OPTIONS: usize = 10;

/// Attributes that are one value, and those that are lists.
const SINGLE: [&str; 4] = ["bool", "int", "string", "version"];
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// `resourceslices`.
pub(in crate::resources) const ROW: Resource = Resource {
    group: GROUP,
    kind: "ResourceSlice",
    list_kind: "ResourceSliceList",
    plural: "resourceslices",
    singular: "resourceslice",
    namespaced: false,
    validate: |slice| validate(&slice["spec"]),
    validate_update,
    warn: |_| vec![IDLE.to_owned()],
    generation: Generation::SPEC,
    columns: &[
        cell::NAME,
        column("Node", "string", "", "The node that has the devices.", 0),
        column("Driver", "string", "", "Who manages them.", 0),
        column("Pool", "string", "", "To which pool they belong.", 0),
        cell::AGE,
    ],
    cells,
    selectable: &[
        ("spec.nodeName", |slice| text(&slice["spec"], "nodeName").to_owned()),
        ("spec.driver", |slice| text(&slice["spec"], "driver").to_owned()),
    ],
    returns_deleted: true,
    ..BLANK
};

fn cells(slice: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &slice["spec"];
    vec![
        cell::name(slice),
        spec["nodeName"].as_str().unwrap_or("<unset>").into(),
        text(spec, "driver").into(),
        text(&spec["pool"], "name").into(),
        cell::age(slice, now),
    ]
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old, path) = (&new["spec"], &old["spec"], Path::new("spec"));
    let mut errors = validate(new);
    errors.extend(rule::immutable(path.child("pool").child("name"), &new["pool"]["name"], &old["pool"]["name"]));
    for field in ["driver", "nodeName"] {
        errors.extend(rule::immutable(path.child(field), &new[field], &old[field]));
    }
    errors
}

/// `validateResourceSliceSpec`.
fn validate(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = storage::check_driver(&path.child("driver"), text(spec, "driver"));
    let (pool, at) = (&spec["pool"], path.child("pool"));
    errors.extend(pool_name(&at.child("name"), text(pool, "name")));
    let (count, generation) = (number(pool, "resourceSliceCount"), number(pool, "generation"));
    if count <= 0 {
        errors.push(FieldError::invalid(at.child("resourceSliceCount"), &count.into(), "must be greater than zero"));
    }
    if generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(at.child("generation"), &generation.into(), detail));
    }
    let is_each = spec["perDeviceNodeSelection"] == true;
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    place(spec, &places, (detail, &format!("{detail}, but multiple fields are set")), &path, &mut errors);
    let terms = items(&spec["nodeSelector"], "nodeSelectorTerms");
    if present(spec, "nodeSelector") && terms.len() != 1 {
        let at = path.child("nodeSelector").child("nodeSelectorTerms");
        let detail = "must have exactly one node selector term";
        errors.push(FieldError::invalid(at, &spec["nodeSelector"]["nodeSelectorTerms"], detail));
    }
    if present(spec, "sharedCounters") && present(spec, "devices") {
        errors.push(FieldError::invalid(&path, &"".into(), "only one of `sharedCounters` or `devices` is allowed"));
    }
    let has_special = items(spec, "devices").iter().any(is_special);
    let most = if has_special { MOST_SPECIAL_DEVICES } else { MOST_DEVICES };
    set(spec, "devices", most, &path, &mut errors, by_name, |one, path, errors| device(one, is_each, path, errors));
    set(spec, "sharedCounters", MOST_COUNTER_SETS, &path, &mut errors, by_name, |own, path, errors| {
        errors.extend(required_label(&path.child("name"), text(own, "name")));
        counters(own, path, errors);
    });
    errors
}

fn is_special(device: &Value) -> bool {
    let mut attributes = entries(device, "attributes");
    !items(device, "taints").is_empty()
        || !items(device, "consumesCounters").is_empty()
        || attributes.any(|(_, attribute)| LISTS.iter().any(|list| present(attribute, list)))
}

/// Where devices are, which must be said in one way: what is told if it is in none, and if in several.
fn place(parent: &Value, fields: &[&str], (none, several): (&str, &str), path: &Path, errors: &mut Vec<FieldError>) {
    let mut said = Vec::new();
    for field in fields {
        let (value, at) = (&parent[*field], path.child(field));
        match value {
            Value::Null => continue,
            Value::String(name) if name.is_empty() => {
                errors.push(FieldError::invalid(at, value, "must be either unset or set to a non-empty string"));
                continue;
            }
            Value::Bool(false) => {
                errors.push(FieldError::invalid(at, value, "must be either unset or set to true"));
                continue;
            }
            Value::String(name) => errors.extend(rule::subdomain(&at, name)),
            Value::Object(_) => affinity::check_node_selector(value, &at, errors),
            _ => (),
        }
        said.push(format!("`{field}`"));
    }
    match said.len() {
        0 => errors.push(FieldError::required(path, none)),
        1 => (),
        _ => errors.push(FieldError::invalid(path, &format!("{{{}}}", said.join(", ")).into(), several)),
    }
}

/// `validateDevice`; `is_each` if every device says where it is.
fn device(device: &Value, is_each: bool, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::label(&path.child("name"), text(device, "name")));
    let count = object_len(device, "attributes") + object_len(device, "capacity");
    if count > MOST {
        let detail = format!("the total number of attributes and capacities must not exceed {MOST}");
        errors.push(FieldError::invalid(path, &count.into(), &detail));
    }
    let at = path.child("attributes");
    for (name, value) in entries(device, "attributes") {
        errors.extend(qualified(&at, name));
        attribute(value, &at.key(name), errors);
    }
    let (at, is_shared) = (path.child("capacity"), device["allowMultipleAllocations"] == true);
    for (name, amount) in entries(device, "capacity") {
        errors.extend(qualified(&at, name));
        let (policy, at) = (&amount["requestPolicy"], at.key(name).child("requestPolicy"));
        match policy {
            Value::Null => (),
            _ if is_shared => request_policy(&amount["value"], policy, &at, errors),
            _ => errors.push(FieldError::forbidden(at, "allowMultipleAllocations must be true")),
        }
    }
    each(device, "taints", MOST_TAINTS, path, errors, taint);
    let by_set = |own: &Value| text(own, "counterSet").to_owned();
    set(device, "consumesCounters", MOST_CONSUMPTIONS, path, errors, by_set, |own, path, errors| {
        errors.extend(required_label(&path.child("counterSet"), text(own, "counterSet")));
        counters(own, path, errors);
    });
    let places = ["nodeName", "nodeSelector", "allNodes"];
    if is_each {
        let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
                      `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        place(device, &places, (detail, detail), path, errors);
    } else if places.iter().any(|field| present(device, field)) {
        let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                      true in the ResourceSlice spec";
        errors.push(FieldError::invalid(path, &Value::Null, detail));
    }
    binding(device, path, errors);
}

/// `validateDeviceAttribute`.
fn attribute(attribute: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (single, list) in SINGLE.into_iter().zip(LISTS) {
        if present(attribute, single) {
            attribute_value(single, &attribute[single], &path.child(single), errors);
        }
        if present(attribute, list) && items(attribute, list).is_empty() {
            errors.push(FieldError::invalid(path.child(list), &attribute[list], "must not be empty if specified"));
        }
        for (index, value) in items(attribute, list).iter().enumerate() {
            attribute_value(single, value, &path.child(list).index(index), errors);
        }
    }
    let said = SINGLE.into_iter().chain(LISTS).filter(|field| present(attribute, field)).count();
    if said != 1 {
        let shown = if said == 0 { "".into() } else { attribute.clone() };
        errors.push(FieldError::invalid(path, &shown, "exactly one value must be specified"));
    }
}

fn attribute_value(kind: &str, value: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let word = value.as_str().unwrap_or_default();
    if kind == "version" && !is_version(word) {
        errors.push(FieldError::invalid(path, value, "must be a string compatible with semver.org spec 2.0.0"));
    }
    if word.len() > LONGEST_ATTRIBUTE {
        errors.push(FieldError::too_long(path, LONGEST_ATTRIBUTE));
    }
}

/// Whether a word is a version of semver.org 2.0.0.
fn is_version(word: &str) -> bool {
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let (rest, build) = word.split_once('+').map_or((word, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let is_prerelease =
        |part: &str| is_word(part) && (is_number(part) || part.bytes().any(|byte| !byte.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && before.is_none_or(|before| before.split('.').all(is_prerelease))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

/// How much of a capacity a request may take (`validateRequestPolicy`).
fn request_policy(capacity: &Value, policy: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (options, range) = (items(policy, "validValues"), &policy["validRange"]);
    let field = match (options.is_empty(), range.is_null()) {
        (true, true) => return,
        (false, true) => "validValues",
        (true, false) => "validRange",
        (false, false) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
                          same time";
            errors.push(FieldError::forbidden(path, detail));
            return;
        }
    };
    let (Some(most), Some(default)) = (amount(capacity), amount(&policy["default"])) else {
        errors.push(FieldError::required(path.child("default"), &format!("required when {field} is defined")));
        return;
    };
    let path = path.child(field);
    if options.is_empty() {
        request_range(range, most, default, &path, errors);
        return;
    }
    if options.len() > MOST_OPTIONS {
        errors.push(FieldError::too_many(&path, options.len(), MOST_OPTIONS));
    }
    let options: Vec<Quantity> = options.iter().filter_map(amount).collect();
    for (index, pair) in options.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        errors.push(wrong(path.index(index + 1), pair[1], "values must be sorted in ascending order"));
    }
    for (index, option) in options.iter().enumerate().filter(|(_, option)| **option > most) {
        let detail = format!("option is larger than capacity value: {most}");
        errors.push(wrong(path.index(index), *option, &detail));
    }
    if !options.contains(&default) {
        errors.push(wrong(path, default, "default value is not valid according to the requestPolicy"));
    }
}

/// Amounts between two bounds, in steps from the lower one (`validateRequestPolicyRange`).
fn request_range(range: &Value, most: Quantity, default: Quantity, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(least) = amount(&range["min"]) else {
        errors.push(FieldError::required(path.child("min"), "required when validRange is defined"));
        return;
    };
    let (top, step) = (amount(&range["max"]), amount(&range["step"]));
    let mut refuse_if = |is_wrong: bool, field: &str, value: Quantity, detail: String| {
        if is_wrong {
            errors.push(wrong(path.child(field), value, &detail));
        }
    };
    refuse_if(least > most, "min", least, format!("min is larger than capacity value: {most}"));
    refuse_if(default < least, "default", default, format!("default is less than min: {least}"));
    if let Some(top) = top {
        refuse_if(least > top, "max", least, format!("min is larger than max: {top}"));
        refuse_if(top > most, "max", top, format!("max is larger than capacity value: {most}"));
        refuse_if(default > top, "default", default, format!("default is more than max: {top}"));
    }
    let Some(step) = step else { return };
    if step.is_negative() || step.is_zero() {
        refuse_if(true, "step", step, "must be greater than zero".to_owned());
        return;
    }
    let first = least.plus(step);
    refuse_if(first > most, "step", step, format!("one step {first} is larger than capacity value: {most}"));
    for value in [Some(default), top].into_iter().flatten() {
        let is_off = (i128::from(value.milli_value()) - i128::from(least.milli_value()))
            .checked_rem(i128::from(step.milli_value()))
            .is_none_or(|rest| rest != 0);
        refuse_if(is_off, "step", value, format!("value is not a multiple of a given step ({step}) from ({least})"));
    }
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::from_value(value).ok()
}

fn wrong(path: Path, value: Quantity, detail: &str) -> FieldError {
    FieldError::invalid(path, &value.to_string().into(), detail)
}
