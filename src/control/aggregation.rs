//! Keeps ClusterRoles that are made of others: those with an `aggregationRule` have the rules of all that it selects.
//!
//! After `pkg/controller/clusterroleaggregation`. [`decide`] is pure. Invariant: a role never takes in its own rules, and
//! one whose rules are right already is not written.

use std::sync::Arc;

use api::selector::LabelSelector;
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Scope, unless_overtaken};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::Value;
use task::Tasks;

/// Starts the controller.
pub fn spawn(client: &Client, tasks: &Tasks) {
    let roles: Informer<ClusterRole> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let queue = Queue::default();
    tasks.spawn("aggregation-roles", feed(roles.clone(), queue.clone()));
    let client = client.clone();
    tasks.spawn("aggregation-controller", async move {
        roles.synced().await;
        reconcile::run(queue, 1, move |key| sync(client.clone(), roles.clone(), key)).await;
    });
}

/// Each role may be part of any that is made of others.
async fn feed(roles: Informer<ClusterRole>, queue: Queue<Key>) {
    let mut dirty = roles.subscribe();
    loop {
        dirty.batch().await;
        let made = roles.snapshot().into_iter().filter(|role| role.aggregation_rule.is_some());
        made.for_each(|role| queue.add(Key::of(&role.metadata)));
    }
}

async fn sync(client: Client, roles: Informer<ClusterRole>, key: Key) -> Result<Outcome, ClientError> {
    let Some(role) = roles.get(&key) else { return Ok(Outcome::Done) };
    let Some(rules) = decide(&role, &roles.snapshot()) else { return Ok(Outcome::Done) };
    let replaced = client.replace(&ClusterRole { rules: Some(rules), ..(*role).clone() }).await;
    unless_overtaken(replaced).map(|_| Outcome::Done)
}

/// The rules that a role should have, if it has others.
pub fn decide(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let selectors: Vec<LabelSelector> = selectors
        .iter()
        .filter_map(|selector| LabelSelector::from_object(&serde_json::to_value(selector).ok()?).ok())
        .collect();
    let selects = |other: &&Arc<ClusterRole>| {
        let labels = serde_json::to_value(&other.metadata.labels).unwrap_or(Value::Null);
        other.metadata.name != role.metadata.name
            && selectors.iter().any(|selector| selector.matches(labels.as_object()))
    };
    let mut parts: Vec<&Arc<ClusterRole>> = all.iter().filter(selects).collect();
    parts.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.into_iter().flat_map(|part| part.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(name: &str, into: &[&str], rules: Value, takes: &[&str]) -> Arc<ClusterRole> {
        let labels: serde_json::Map<String, Value> =
            into.iter().map(|word| ((*word).to_owned(), "true".into())).collect();
        let mut role = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
        if !takes.is_empty() {
            let selectors: Vec<Value> = takes.iter().map(|word| json!({"matchLabels": {*word: "true"}})).collect();
            role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        }
        Arc::new(serde_json::from_value(role).unwrap())
    }

    fn rule(resource: &str) -> Value {
        json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]})
    }

    fn decided(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Value {
        json!(decide(role, all))
    }

    #[test]
    fn a_role_has_the_rules_of_those_it_selects_once_and_in_the_order_of_their_names() {
        let made = role("made", &["view"], json!([rule("pods")]), &["view", "edit"]);
        let all = [
            Arc::clone(&made),
            role("z", &["view"], json!([rule("services"), rule("secrets")]), &[]),
            role("a", &["edit"], json!([rule("secrets")]), &[]),
            role("other", &["admin"], json!([rule("nodes")]), &[]),
        ];
        assert_eq!(decided(&made, &all), json!([rule("secrets"), rule("services")]));
    }

    #[test]
    fn a_role_that_is_right_or_not_made_of_others_is_left_alone() {
        let plain = role("plain", &["view"], json!([rule("pods")]), &[]);
        let right = role("right", &[], json!([rule("pods")]), &["view"]);
        let all = [Arc::clone(&plain), Arc::clone(&right)];
        assert_eq!((decided(&plain, &all), decided(&right, &all)), (Value::Null, Value::Null));
        let empty = role("empty", &[], json!([rule("pods")]), &["nothing"]);
        assert_eq!(decided(&empty, &all), json!([]), "nothing is left of what it selected before");
    }
}
