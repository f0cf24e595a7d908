//! Claims and Ingresses that name no class get the default one (`DefaultStorageClass`, `DefaultIngressClass`).

use std::cmp::Reverse;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::resources::networking::{ingress, ingressclass};
use crate::resources::path::{ensure_object, present, put, text};
use crate::resources::storage;

/// Whether a new claim needs the default class.
pub fn lacks_storage_class(claim: &Value) -> bool {
    !storage::has_class(claim)
}

/// Whether a new Ingress needs the default class.
pub fn lacks_ingress_class(ingress: &Value) -> bool {
    !ingress::has_class(ingress)
}

/// Gives a claim the default of these classes, if there is one.
pub fn default_storage_class(claim: &mut Value, classes: &[Value]) {
    if let Some(class) = newest(classes, storage::class::is_default) {
        put(ensure_object(claim, "spec"), "storageClassName", &class["metadata"]["name"]);
    }
}

/// Gives an Ingress the default of these classes, if there is one.
pub fn default_ingress_class(ingress: &mut Value, classes: &[Value]) {
    if let Some(class) = newest(classes, ingressclass::is_default) {
        put(ensure_object(ingress, "spec"), "ingressClassName", &class["metadata"]["name"]);
    }
}

/// Whether a bound claim may ask for what it asks for now: more only if its class says so
/// (`PersistentVolumeClaimResize`). The error says why not.
pub fn may_grow(new: &Value, old: &Value, classes: &[Value]) -> Result<(), &'static str> {
    let size = |claim: &Value| {
        Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO)
    };
    if size(new) <= size(old) {
        return Ok(());
    }
    if text(&old["status"], "phase") != "Bound" {
        return Err("Only bound persistent volume claims can be expanded");
    }
    let class = classes.iter().find(|class| text(&class["metadata"], "name") == storage::class_of(new));
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    Err(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

/// Of several defaults the one that was made last, and of those made at once the one whose name comes first.
fn newest(classes: &[Value], is_default: fn(&Value) -> bool) -> Option<&Value> {
    let own = |class: &Value, field: &str| text(&class["metadata"], field).to_owned();
    let defaults = classes.iter().filter(|class| is_default(class) && present(&class["metadata"], "name"));
    defaults.min_by_key(|class| (Reverse(own(class, "creationTimestamp")), own(class, "name")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(name: &str, second: u8, default: &str) -> Value {
        json!({"metadata": {
            "name": name, "creationTimestamp": format!("2026-01-02T03:04:0{second}Z"),
            "annotations": {
                "storageclass.kubernetes.io/is-default-class": default,
                "ingressclass.kubernetes.io/is-default-class": default,
            },
        }})
    }

    #[test]
    fn the_newest_default_is_taken() {
        let classes =
            [class("old", 1, "true"), class("b", 2, "true"), class("a", 2, "true"), class("other", 3, "false")];
        let mut claim = json!({"spec": {}});
        default_storage_class(&mut claim, &classes);
        assert_eq!(claim["spec"], json!({"storageClassName": "a"}));
        let mut ingress = json!({"spec": {}});
        default_ingress_class(&mut ingress, &classes[..1]);
        assert_eq!(ingress["spec"], json!({"ingressClassName": "old"}));
        let mut claim = json!({"spec": {}});
        default_storage_class(&mut claim, &classes[3..]);
        assert_eq!(claim["spec"], json!({}));
    }

    #[test]
    fn only_bound_claims_of_classes_that_permit_it_grow() {
        let claim = |size: &str, phase: &str| {
            json!({
                "spec": {"storageClassName": "a", "resources": {"requests": {"storage": size}}},
                "status": {"phase": phase},
            })
        };
        let mut fixed = class("a", 1, "true");
        let (old, new) = (claim("1Gi", "Bound"), claim("2Gi", "Bound"));
        assert_eq!(may_grow(&old, &new, &[]), Ok(()));
        assert!(may_grow(&new, &claim("1Gi", "Pending"), &[]).unwrap_err().starts_with("Only bound"));
        assert!(may_grow(&new, &old, std::slice::from_ref(&fixed)).unwrap_err().contains("must support resize"));
        fixed["allowVolumeExpansion"] = json!(true);
        assert_eq!(may_grow(&new, &old, &[fixed]), Ok(()));
    }

    #[test]
    fn whoever_names_a_class_even_none_at_all_needs_no_default() {
        assert!(lacks_storage_class(&json!({"spec": {}})));
        assert!(!lacks_storage_class(&json!({"spec": {"storageClassName": ""}})));
        let annotated = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "x"}}});
        assert!(!lacks_storage_class(&annotated));
        assert!(lacks_ingress_class(&json!({"spec": {}})));
        assert!(!lacks_ingress_class(&json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}})));
    }
}
