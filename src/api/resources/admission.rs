//! What upstream does in admission plugins and every client expects: pure functions for the server's pipeline, which gives
//! them objects with their defaults filled in.

mod classes;
pub mod mutation;
pub mod podsecurity;
pub mod policy;
mod runtimeclass;

pub use classes::{default_ingress_class, default_storage_class, lacks_ingress_class, lacks_storage_class, may_grow};
pub use runtimeclass::runtime_class;

use serde_json::{Value, json};

use super::path::{default_text, ensure_object, items, items_mut, number, present, put, text};
use super::priorityclass;
use crate::status::ApiError;

const MIRROR: &str = "kubernetes.io/config.mirror";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A PriorityClass that exists without anybody having made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemClass {
    /// Its name.
    pub name: &'static str,
    /// The priority of its pods.
    pub value: i64,
    /// For people.
    pub description: &'static str,
}

/// Classes that exist without anybody having made them.
pub const SYSTEM_CLASSES: [SystemClass; 2] = [
    SystemClass {
        name: "system-cluster-critical",
        value: 2_000_000_000,
        description: "Used for system critical pods that must run in the cluster, but can be moved to another node if \
                      necessary.",
    },
    SystemClass {
        name: "system-node-critical",
        value: 2_000_001_000,
        description: "Used for system critical pods that must not be moved from their current node.",
    },
];

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
    default_text(spec, "serviceAccountName", "default");
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

/// Where programs look for the account that they run as (`rest.InClusterConfig` of client-go).
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Gives every container of a pod the token of its account, unless pod or account do not want that (`ServiceAccount`,
/// `mountServiceAccountToken`). `suffix` ends the name of the volume.
pub fn mount_token(pod: &mut Value, account: &Value, suffix: &str) {
    const FIELD: &str = "automountServiceAccountToken";
    let spec = ensure_object(pod, "spec");
    let wanted = spec[FIELD].as_bool().or_else(|| account[FIELD].as_bool()).unwrap_or(true);
    if !wanted {
        return;
    }
    let own = items(spec, "volumes").iter().map(|volume| text(volume, "name"));
    let known = own.into_iter().find(|name| name.starts_with(TOKEN_VOLUME)).map(str::to_owned);
    let name = known.clone().unwrap_or_else(|| format!("{TOKEN_VOLUME}{suffix}"));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            if !container.is_object()
                || items(container, "volumeMounts").iter().any(|own| text(own, "mountPath") == TOKEN_PATH)
            {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            mounted = true;
        }
    }
    if mounted && known.is_none() {
        push(spec, "volumes", token_volume(&name));
    }
}

/// `TokenVolumeSource` of the same plugin.
fn token_volume(name: &str) -> Value {
    let own_namespace =
        json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 60 * 60 + 7, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [own_namespace]}},
    ]}})
}

fn push(object: &mut Value, list: &str, element: Value) {
    match object[list].as_array_mut() {
        Some(elements) => elements.push(element),
        None => object[list] = json!([element]),
    }
}

/// The PriorityClasses that exist without anybody having made them, as objects.
pub fn system_classes() -> Vec<Value> {
    SYSTEM_CLASSES.iter().map(priorityclass::of_system).collect()
}

/// The class that a pod's priority follows from when it names none: of the global defaults the one with the lowest value
/// (`Priority`, `getDefaultPriorityClass`).
pub fn global_default(classes: &[Value]) -> Option<&Value> {
    let defaults = classes.iter().filter(|class| class["globalDefault"] == true);
    defaults.min_by_key(|class| number(class, "value"))
}

/// Gives a pod the priority of its class, which is that which it names or the global default; without either it has
/// priority 0 (`Priority`).
pub fn priority(pod: &mut Value, class: Option<&Value>) -> Result<(), ApiError> {
    let forbidden =
        |pod: &Value, message: &str| ApiError::forbidden("", "pods", text(&pod["metadata"], "name"), message);
    let (value, policy) = match class {
        Some(class) => (number(class, "value"), text(class, "preemptionPolicy")),
        None => (0, ""),
    };
    let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
    if let Some(own) = pod["spec"]["priority"].as_i64()
        && own != value
    {
        let message = format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        );
        return Err(forbidden(pod, &message));
    }
    if let Some(own) = pod["spec"]["preemptionPolicy"].as_str()
        && own != policy
    {
        let message = format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(forbidden(pod, &message));
    }
    let spec = ensure_object(pod, "spec");
    spec["priority"] = value.into();
    spec["preemptionPolicy"] = policy.into();
    if let Some(class) = class {
        default_text(spec, "priorityClassName", text(&class["metadata"], "name"));
    }
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
        let mut named = json!({"spec": {"serviceAccountName": "robot"}});
        assert_eq!(default_service_account(&mut named).as_deref(), Some("robot"));
        let mut mirror = json!({"metadata": {"annotations": {MIRROR: "x"}}, "spec": {}});
        assert_eq!(default_service_account(&mut mirror), None);
    }

    #[test]
    fn every_container_gets_the_token_of_the_account() {
        let elsewhere = json!({"name": "own", "mountPath": TOKEN_PATH});
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [elsewhere]}],
        }});
        mount_token(&mut pod, &json!({}), "abcde");
        let mount = json!({"name": "kube-api-access-abcde", "readOnly": true, "mountPath": TOKEN_PATH});
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"], json!([mount]));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], json!([mount]));
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"], json!([elsewhere]));
        assert_eq!(pod["spec"]["volumes"][0]["name"], "kube-api-access-abcde");
        let before = pod.clone();
        mount_token(&mut pod, &json!({}), "other");
        assert_eq!(pod, before);
    }

    #[test]
    fn nobody_gets_a_token_who_does_not_want_one() {
        let bare = json!({"spec": {"containers": [{"name": "a"}]}});
        let no = json!({"automountServiceAccountToken": false});
        let check = |pod: Value, account: &Value, wanted: bool| {
            let mut pod = pod;
            mount_token(&mut pod, account, "x");
            assert_eq!(present(&pod["spec"], "volumes"), wanted, "{pod}");
        };
        let mut asks = bare.clone();
        asks["spec"]["automountServiceAccountToken"] = json!(true);
        let mut refuses = bare.clone();
        refuses["spec"]["automountServiceAccountToken"] = json!(false);
        check(bare.clone(), &json!({}), true);
        check(bare.clone(), &no, false);
        check(asks, &no, true);
        check(refuses, &json!({}), false);
    }

    #[test]
    fn priority_follows_from_the_class() {
        let mut pod = json!({"spec": {}});
        priority(&mut pod, None).unwrap();
        assert_eq!(pod["spec"], json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
        let classes = [
            json!({"metadata": {"name": "high"}, "value": 9, "preemptionPolicy": "Never", "globalDefault": true}),
            json!({"metadata": {"name": "low"}, "value": 7, "globalDefault": true}),
        ];
        let mut critical = json!({"spec": {"priorityClassName": "high"}});
        priority(&mut critical, Some(&classes[0])).unwrap();
        let expected = json!({"priorityClassName": "high", "priority": 9, "preemptionPolicy": "Never"});
        assert_eq!(critical["spec"], expected);
        let mut usual = json!({"spec": {"priority": 7}});
        priority(&mut usual, global_default(&classes)).unwrap();
        assert_eq!((&usual["spec"]["priorityClassName"], &usual["spec"]["priority"]), (&json!("low"), &json!(7)));
        let mut own = json!({"metadata": {"name": "web"}, "spec": {"priority": 8}});
        let error = priority(&mut own, Some(&classes[1])).unwrap_err();
        assert!(error.message.starts_with("pods \"web\" is forbidden: the integer value of priority (8) must not be"));
        let mut own = json!({"spec": {"preemptionPolicy": "Never"}});
        assert_eq!(priority(&mut own, None).unwrap_err().code, 403);
        assert_eq!(global_default(&[]), None);
    }
}
