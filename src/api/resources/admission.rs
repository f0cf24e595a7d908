//! What upstream does in admission plugins and every client expects: pure functions for the server's pipeline, which calls
//! them on create, between decoding and defaulting.

use serde_json::{Value, json};

use super::path::{default_text, default_to, ensure_object, items, present, put, text};
use crate::status::ApiError;

const MIRROR: &str = "kubernetes.io/config.mirror";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Classes that exist without anybody having made them.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Gives a pod 300 s on a node that stops answering, unless it says otherwise (`DefaultTolerationSeconds`).
pub fn default_toleration_seconds(pod: &mut Value) {
    let spec = ensure_object(pod, "spec");
    let tolerates = |key: &str| {
        items(spec, "tolerations").iter().any(|toleration| {
            let (own, effect) = (text(toleration, "key"), text(toleration, "effect"));
            (own == key || own.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        })
    };
    let missing: Vec<Value> = [NOT_READY, UNREACHABLE]
        .into_iter()
        .filter(|key| !tolerates(key))
        .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}))
        .collect();
    if missing.is_empty() {
        return;
    }
    let tolerations = &mut spec["tolerations"];
    match tolerations.as_array_mut() {
        Some(list) => list.extend(missing),
        None => *tolerations = Value::Array(missing),
    }
}

/// Gives a pod the account `default`, unless it names one, and returns the name of the account that must exist
/// (`ServiceAccount`). None for mirror pods, which have no account.
pub fn default_service_account(pod: &mut Value) -> Option<String> {
    if present(&pod["metadata"]["annotations"], MIRROR) {
        return None;
    }
    let spec = ensure_object(pod, "spec");
    if text(spec, "serviceAccountName").is_empty() {
        let alias = text(spec, "serviceAccount").to_owned();
        default_text(spec, "serviceAccountName", if alias.is_empty() { "default" } else { &alias });
    }
    let name = text(spec, "serviceAccountName").to_owned();
    spec["serviceAccount"] = name.clone().into();
    Some(name)
}

/// Gives a pod the pull secrets of its account, unless it names some (`ServiceAccount`).
pub fn apply_service_account(pod: &mut Value, account: &Value) {
    let spec = ensure_object(pod, "spec");
    let secrets = items(account, "imagePullSecrets");
    if items(spec, "imagePullSecrets").is_empty() && !secrets.is_empty() {
        put(spec, "imagePullSecrets", &Value::from(secrets));
    }
}

/// The priority of a class, 0 without one; none for a class that does not exist.
pub fn class_priority(class: &str) -> Option<i64> {
    if class.is_empty() {
        return Some(0);
    }
    SYSTEM_CLASSES.into_iter().find(|(name, _)| *name == class).map(|(_, value)| value)
}

/// Computes a pod's priority from its class (`Priority`); only the classes of the system exist.
pub fn priority(pod: &mut Value) -> Result<(), ApiError> {
    let forbidden =
        |pod: &Value, message: &str| ApiError::forbidden("", "pods", text(&pod["metadata"], "name"), message);
    let class = text(&pod["spec"], "priorityClassName").to_owned();
    let unknown = || forbidden(pod, &format!("no PriorityClass with name {class} was found"));
    let value = class_priority(&class).ok_or_else(unknown)?;
    if let Some(own) = pod["spec"]["priority"].as_i64()
        && own != value
    {
        let message = format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        );
        return Err(forbidden(pod, &message));
    }
    let spec = ensure_object(pod, "spec");
    spec["priority"] = value.into();
    default_to(spec, "preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_tolerate_a_silent_node_for_five_minutes() {
        let mut pod = json!({"spec": {}});
        default_toleration_seconds(&mut pod);
        let tolerations = items(&pod["spec"], "tolerations").to_vec();
        assert_eq!(tolerations.len(), 2);
        assert!(tolerations.iter().all(|toleration| toleration["tolerationSeconds"] == 300));
        default_toleration_seconds(&mut pod);
        assert_eq!(items(&pod["spec"], "tolerations"), tolerations);
    }

    #[test]
    fn pods_that_say_how_long_they_tolerate_keep_what_they_say() {
        let mut pod =
            json!({"spec": {"tolerations": [{"key": NOT_READY, "operator": "Exists", "tolerationSeconds": 5}]}});
        default_toleration_seconds(&mut pod);
        let keys: Vec<&str> = items(&pod["spec"], "tolerations").iter().map(|own| text(own, "key")).collect();
        assert_eq!(keys, [NOT_READY, UNREACHABLE]);
        let all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        let mut pod = all.clone();
        default_toleration_seconds(&mut pod);
        assert_eq!(pod, all);
    }

    #[test]
    fn pods_get_an_account_and_its_pull_secrets() {
        let mut pod = json!({"spec": {}});
        assert_eq!(default_service_account(&mut pod).as_deref(), Some("default"));
        assert_eq!(pod["spec"], json!({"serviceAccountName": "default", "serviceAccount": "default"}));
        apply_service_account(&mut pod, &json!({"imagePullSecrets": [{"name": "registry"}]}));
        apply_service_account(&mut pod, &json!({"imagePullSecrets": [{"name": "other"}]}));
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
        let mut named = json!({"spec": {"serviceAccount": "robot"}});
        assert_eq!(default_service_account(&mut named).as_deref(), Some("robot"));
        let mut mirror = json!({"metadata": {"annotations": {MIRROR: "x"}}, "spec": {}});
        assert_eq!(default_service_account(&mut mirror), None);
    }

    #[test]
    fn priority_follows_from_the_class() {
        let mut pod = json!({"spec": {}});
        priority(&mut pod).unwrap();
        assert_eq!(pod["spec"], json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
        let mut critical = json!({"spec": {"priorityClassName": "system-node-critical"}});
        priority(&mut critical).unwrap();
        assert_eq!(critical["spec"]["priority"], 2_000_001_000);
        let mut unknown = json!({"metadata": {"name": "web"}, "spec": {"priorityClassName": "high"}});
        let error = priority(&mut unknown).unwrap_err();
        assert_eq!(error.message, "pods \"web\" is forbidden: no PriorityClass with name high was found");
        let mut own = json!({"spec": {"priority": 7}});
        assert_eq!(priority(&mut own).unwrap_err().code, 403);
    }
}
