//! Taints and tolerations (`k8s.io/component-helpers/scheduling/corev1`).

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Taint of nodes with `spec.unschedulable`.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Whether one of the tolerations tolerates the taint.
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first taint with such an effect that none of the tolerations tolerates.
pub fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    has_effect: impl Fn(&str) -> bool,
) -> Option<&'a Taint> {
    taints.iter().filter(|taint| has_effect(&taint.effect)).find(|taint| !is_tolerated(taint, tolerations))
}

/// Whether a toleration tolerates a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn text(field: Option<&String>) -> &str {
        field.map_or("", String::as_str)
    }
    let (effect, key) = (text(toleration.effect.as_ref()), text(toleration.key.as_ref()));
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => !key.is_empty() && text(toleration.value.as_ref()) == text(taint.value.as_ref()),
        _ => false,
    }
}
