//! Claims and Ingresses that name no class get the default one (`DefaultStorageClass`, `DefaultIngressClass`).

use std::cmp::Reverse;

use serde_json::Value;

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
    fn whoever_names_a_class_even_none_at_all_needs_no_default() {
        assert!(lacks_storage_class(&json!({"spec": {}})));
        assert!(!lacks_storage_class(&json!({"spec": {"storageClassName": ""}})));
        let annotated = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "x"}}});
        assert!(!lacks_storage_class(&annotated));
        assert!(lacks_ingress_class(&json!({"spec": {}})));
        assert!(!lacks_ingress_class(&json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}})));
    }
}
