//! What evictions and the controller of PodDisruptionBudgets have in common.

use serde_json::{Value, json};

/// Whether a pod counts as healthy (`IsPodReady`).
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Makes the condition `DisruptionAllowed` of a budget's status say what its numbers say; the time of transition stays
/// while the answer is the same (`UpdateDisruptionAllowedCondition` of `k8s.io/component-helpers`).
pub fn allow_condition(status: &mut Value, now: &str) {
    let is_allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0) > 0;
    let (word, reason) = if is_allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let observed = status["observedGeneration"].clone();
    set_condition(status, word, reason, "", &observed, now);
}

/// Makes the condition `DisruptionAllowed` say that a budget could not be worked out.
pub fn failed_condition(status: &mut Value, message: &str, now: &str) {
    let observed = status["observedGeneration"].clone();
    set_condition(status, "False", "SyncFailed", message, &observed, now);
}

fn set_condition(status: &mut Value, word: &str, reason: &str, message: &str, observed: &Value, now: &str) {
    let conditions = &mut status["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let former = list.iter().position(|condition| condition["type"] == "DisruptionAllowed");
    let since =
        former.filter(|index| list[*index]["status"] == word).map(|index| list[index]["lastTransitionTime"].clone());
    let mut condition = json!({
        "type": "DisruptionAllowed", "status": word, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| now.into()),
    });
    if !observed.is_null() {
        condition["observedGeneration"] = observed.clone();
    }
    match former {
        Some(index) => list[index] = condition,
        None => list.push(condition),
    }
}
