//! Node selectors and node affinity (`k8s.io/component-helpers/scheduling/corev1/nodeaffinity`).

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

fn node_affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether the node has what the pod requires.
pub fn admits(spec: &PodSpec, node: &Node) -> bool {
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let selected = spec.node_selector.iter().flatten().all(|(name, value)| label(name) == Some(value));
    let required = node_affinity(spec).and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| selects(selector, node))
}

/// Whether one of the terms of a selector matches the node.
pub fn selects(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| matches(term, node))
}

/// The sum of the weights of the preferences that the node meets.
pub fn preference(spec: &PodSpec, node: &Node) -> i64 {
    let preferred = node_affinity(spec).and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let met = preferred.into_iter().flatten().filter(|preference| matches(&preference.preference, node));
    met.map(|preference| i64::from(preference.weight)).sum()
}

/// A term without any requirement matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.metadata.name.as_ref();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|requirement| holds(requirement, labels.and_then(|l| l.get(&requirement.key))))
        && fields.iter().all(|requirement| holds(requirement, name.filter(|_| requirement.key == "metadata.name")))
}

fn holds(requirement: &NodeSelectorRequirement, actual: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = actual.is_some_and(|actual| values.contains(actual));
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => numbers(actual, values).is_some_and(|(actual, bound)| actual > bound),
        "Lt" => numbers(actual, values).is_some_and(|(actual, bound)| actual < bound),
        _ => false,
    }
}

fn numbers(actual: Option<&String>, values: &[String]) -> Option<(i64, i64)> {
    let [bound] = values else { return None };
    Some((actual?.parse().ok()?, bound.parse().ok()?))
}
