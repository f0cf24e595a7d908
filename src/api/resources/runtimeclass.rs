//! RuntimeClasses: by which runtime the containers of a pod run, what that costs and where it is.
//!
//! Follows `pkg/apis/node` of upstream.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{Path, items, present, text};
use super::{BLANK, Resource, pod, rule};
use crate::status::FieldError;

/// `runtimeclasses.node.k8s.io`.
pub(super) const ROW: Resource = Resource {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    list_kind: "RuntimeClassList",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    namespaced: false,
    validate,
    validate_update: |new, old| {
        let mut errors = rule::immutable("handler", &new["handler"], &old["handler"]);
        errors.extend(validate_rest(new));
        errors
    },
    columns: &[cell::NAME, column("Handler", "string", "", "What nodes call the runtime.", 0), cell::AGE],
    cells: |class, now: Timestamp| vec![cell::name(class), text(class, "handler").into(), cell::age(class, now)],
    ..BLANK
};

fn validate(class: &Value) -> Vec<FieldError> {
    let mut errors = rule::label(&Path::new("handler"), text(class, "handler"));
    errors.extend(validate_rest(class));
    errors
}

fn validate_rest(class: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if present(class, "overhead") {
        let resources = json!({"limits": class["overhead"]["podFixed"]});
        pod::resources::check_container(&resources, &Path::new("overhead"), &mut errors);
    }
    let (scheduling, path) = (&class["scheduling"], Path::new("scheduling"));
    errors.extend(rule::labels(&path.child("nodeSelector"), scheduling, "nodeSelector"));
    let path = path.child("tolerations");
    pod::spec::tolerations(scheduling, &path, &mut errors);
    let tolerations = items(scheduling, "tolerations");
    for (index, toleration) in tolerations.iter().enumerate() {
        if tolerations[..index].contains(toleration) {
            errors.push(FieldError::duplicate(path.index(index), toleration));
        }
    }
    errors
}
