//! What upstream does in admission plugins and every client expects: pure functions for the server's pipeline.

use serde_json::{Value, json};

use super::path::{ensure_object, items};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Gives a pod 300 s on a node that stops answering, unless it says otherwise (`DefaultTolerationSeconds`).
pub fn default_toleration_seconds(pod: &mut Value) {
    let spec = ensure_object(pod, "spec");
    let tolerates = |key: &str| {
        items(spec, "tolerations").iter().any(|toleration| {
            let own = toleration["key"].as_str().unwrap_or_default();
            let effect = toleration["effect"].as_str().unwrap_or_default();
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
