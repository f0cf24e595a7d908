//! PriorityClasses: which pods go first, and which go when there is too little for all.
//!
//! Follows `pkg/apis/scheduling` of upstream.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, default_to, number, text};
use super::{BLANK, Generation, Resource, admission, rule};
use crate::status::FieldError;

const SYSTEM_PREFIX: &str = "system-";
/// More is for the system.
const HIGHEST: i64 = 1_000_000_000;

/// `priorityclasses.scheduling.k8s.io`.
pub(super) const ROW: Resource = Resource {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    list_kind: "PriorityClassList",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    namespaced: false,
    default: |class| default_to(class, "preemptionPolicy", "PreemptLowerPriority"),
    validate,
    validate_update,
    generation: Generation::Of(&[]),
    columns: &[
        cell::NAME,
        column("Value", "integer", "", "The priority of its pods.", 0),
        column("Global-Default", "boolean", "", "Whether it is that of pods which name none.", 0),
        cell::AGE,
        column("PreemptionPolicy", "string", "", "Whether its pods may make others go.", 0),
    ],
    cells,
    ..BLANK
};

fn cells(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(class),
        number(class, "value").into(),
        (class["globalDefault"] == true).into(),
        cell::age(class, now),
        text(class, "preemptionPolicy").into(),
    ]
}

fn validate(class: &Value) -> Vec<FieldError> {
    let (name, value) = (text(&class["metadata"], "name"), number(class, "value"));
    let mut errors = Vec::new();
    if name.starts_with(SYSTEM_PREFIX) {
        errors.extend(system(name, value, class).map(|error| {
            let detail = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {error}"
            );
            FieldError::forbidden("metadata.name", &detail)
        }));
    } else if value > HIGHEST {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        errors.push(FieldError::forbidden("value", &detail));
    }
    let path = Path::new("preemptionPolicy");
    let known = ["PreemptLowerPriority", "Never"];
    errors.extend(rule::required_one_of(&path, text(class, "preemptionPolicy"), &known));
    errors
}

/// Why a class is none of the system's.
fn system(name: &str, value: i64, class: &Value) -> Option<String> {
    match admission::SYSTEM_CLASSES.iter().find(|known| known.name == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some(known) if known.value != value => Some(format!("value of {name} PriorityClass must be {}", known.value)),
        Some(_) if class["globalDefault"] == true => {
            Some(format!("globalDefault of {name} PriorityClass must be false"))
        }
        Some(_) => None,
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if number(new, "value") != number(old, "value") {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    let path = Path::new("preemptionPolicy");
    errors.extend(rule::immutable(path, &new["preemptionPolicy"], &old["preemptionPolicy"]));
    errors
}

/// The class of the system as it is created at the start.
pub(super) fn of_system(class: &admission::SystemClass) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class.name},
        "value": class.value, "description": class.description,
    })
}
