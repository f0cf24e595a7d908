//! Selectors of a pod that are completed with its own labels: `matchLabelKeys` and `mismatchLabelKeys`.
//!
//! Done once, when the pod is made, so that whoever selects need not know (`pkg/registry/core/pod/strategy.go`,
//! KEP-3633 and KEP-3243). A template keeps its keys and is not touched. A term without a selector selects nothing and stays
//! so; keys of labels that the pod has not are ignored.

use serde_json::{Value, json};

use crate::resources::path::{items_mut, object_mut};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Completes the selectors of affinity and of spread constraints.
pub(super) fn merge(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = pod.get_mut("spec") else { return };
    items_mut(spec, "topologySpreadConstraints").for_each(|constraint| complete(constraint, &labels));
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.get_mut("affinity").and_then(|affinity| affinity.get_mut(kind)) else { continue };
        items_mut(affinity, REQUIRED).for_each(|term| complete(term, &labels));
        let preferred = items_mut(affinity, PREFERRED).filter_map(|one| one.get_mut("podAffinityTerm"));
        preferred.for_each(|term| complete(term, &labels));
    }
}

fn complete(term: &mut Value, labels: &Value) {
    let mut expressions = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        let known = keys.filter_map(|key| labels.get(key).map(|value| (key, value)));
        expressions.extend(known.map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]})));
    }
    let Some(selector) = object_mut(term, "labelSelector").filter(|_| !expressions.is_empty()) else { return };
    match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
        Some(own) => own.extend(expressions),
        None => selector["matchExpressions"] = expressions.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_conditions_with_the_values_that_the_pod_has() {
        let term = json!({"labelSelector": {}, "matchLabelKeys": ["a", "none"], "mismatchLabelKeys": ["b"]});
        let own = json!({"key": "x", "operator": "Exists"});
        let mut pod = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}},
            "spec": {
                "affinity": {
                    "podAffinity": {REQUIRED: [term]},
                    "podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": {"matchLabelKeys": ["a"]}}]},
                },
                "topologySpreadConstraints": [
                    {"labelSelector": {"matchExpressions": [own]}, "matchLabelKeys": ["a"]},
                    {"labelSelector": {"matchLabels": {"x": "y"}}},
                ],
            },
        });
        merge(&mut pod);
        let is = |key: &str, operator: &str, value: &str| json!({"key": key, "operator": operator, "values": [value]});
        let affinity = &pod["spec"]["affinity"];
        let merged = &affinity["podAffinity"][REQUIRED][0]["labelSelector"];
        assert_eq!(*merged, json!({"matchExpressions": [is("a", "In", "1"), is("b", "NotIn", "2")]}));
        let bare = &affinity["podAntiAffinity"][PREFERRED][0]["podAffinityTerm"];
        assert_eq!(*bare, json!({"matchLabelKeys": ["a"]}));
        let spread = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(spread[0]["labelSelector"], json!({"matchExpressions": [own, is("a", "In", "1")]}));
        assert_eq!(spread[1]["labelSelector"], json!({"matchLabels": {"x": "y"}}));
    }
}
