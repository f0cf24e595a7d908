//! What the RuntimeClass of a pod does to it (`plugin/pkg/admission/runtimeclass` of upstream).

use serde_json::Value;

use crate::resources::path::{ensure_object, entries, items, present, put, text};
use crate::resources::pod::requests::amounts;

/// Gives a pod what its RuntimeClass costs and where it is; the error says why it cannot have it. Without a class a pod
/// costs nothing beside its containers.
pub fn runtime_class(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let own = amounts(&pod["spec"], "overhead");
    let Some(class) = class else { return no_overhead(pod) };
    if !present(class, "overhead") {
        no_overhead(pod)?;
    } else if !own.is_empty() && own != amounts(&class["overhead"], "podFixed") {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
    } else {
        put(ensure_object(pod, "spec"), "overhead", &class["overhead"]["podFixed"]);
    }
    let scheduling = &class["scheduling"];
    for (key, value) in entries(scheduling, "nodeSelector") {
        let selector = ensure_object(ensure_object(pod, "spec"), "nodeSelector");
        let (wanted, own) = (value.as_str().unwrap_or_default(), text(selector, key));
        if present(selector, key) && own != wanted {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        put(selector, key, value);
    }
    let own = items(&pod["spec"], "tolerations");
    let added = items(scheduling, "tolerations").iter().filter(|toleration| !own.contains(toleration));
    let all: Vec<Value> = own.iter().chain(added).cloned().collect();
    if all.len() > own.len() {
        put(ensure_object(pod, "spec"), "tolerations", &all.into());
    }
    Ok(())
}

fn no_overhead(pod: &Value) -> Result<(), String> {
    if amounts(&pod["spec"], "overhead").is_empty() {
        return Ok(());
    }
    Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_gets_the_cost_and_the_place_of_its_class() {
        let class = json!({
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "x"}, {"key": "y"}]},
        });
        let mut pod = json!({"spec": {"nodeSelector": {"c": "d"}, "tolerations": [{"key": "x"}]}});
        runtime_class(&mut pod, Some(&class)).unwrap();
        let expected = json!({
            "nodeSelector": {"a": "b", "c": "d"}, "overhead": {"cpu": "10m"},
            "tolerations": [{"key": "x"}, {"key": "y"}],
        });
        assert_eq!(pod["spec"], expected);
        runtime_class(&mut pod, Some(&class)).unwrap();
        assert_eq!(pod["spec"], expected);
    }

    #[test]
    fn what_contradicts_the_class_is_refused() {
        let class = json!({"overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"a": "b"}}});
        let refused =
            |spec: Value, class: Option<&Value>| runtime_class(&mut json!({"spec": spec}), class).unwrap_err();
        let cost = json!({"overhead": {"cpu": "1"}});
        assert!(refused(cost.clone(), Some(&class)).contains("doesn't match RuntimeClass's defined Overhead"));
        assert!(refused(cost.clone(), None).contains("without corresponding RuntimeClass defined Overhead"));
        assert!(refused(cost, Some(&json!({}))).contains("without corresponding"));
        let elsewhere = refused(json!({"nodeSelector": {"a": "c"}}), Some(&class));
        assert_eq!(elsewhere, "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c");
    }
}
