//! HorizontalPodAutoscalers, in both versions: `autoscaling/v2` is stored, `autoscaling/v1` made of it.
//!
//! Follows `pkg/apis/autoscaling` of upstream.

mod cells;
mod check;
mod v1;

pub(super) use v1::ROW as V1;

use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{default_to, ensure_object, items, object_mut, present, put};
use super::{BLANK, Column, Resource, status_of};

/// `horizontalpodautoscalers.autoscaling` in version 2.
pub(super) const V2: Resource = Resource {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    list_kind: "HorizontalPodAutoscalerList",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[status_of("autoscaling", "v2", "HorizontalPodAutoscaler")],
    default,
    validate: |scaler| check::validate(&scaler["spec"], 1),
    validate_update: check::validate_update,
    validate_status: |new, _| check::validate_status(&new["status"]),
    has_status: true,
    new_status: || json!({ "desiredReplicas": 0 }),
    columns: COLUMNS,
    cells: cells::cells,
    warn: |scaler| unserved(&scaler["spec"]),
    ..BLANK
};

const COLUMNS: &[Column] = &[
    cell::NAME,
    column("Reference", "string", "", "What it scales.", 0),
    column("Targets", "string", "", "What is measured, and what it should be.", 0),
    column("MinPods", "string", "", "How many pods there are at least.", 0),
    column("MaxPods", "string", "", "How many pods there are at most.", 0),
    column("Replicas", "integer", "", "How many pods there are.", 0),
    cell::AGE,
];

/// Metrics that need an adapter, which there is none for here.
fn unserved(spec: &Value) -> Vec<String> {
    let metrics = items(spec, "metrics").iter().enumerate();
    let sources = metrics.flat_map(|(index, metric)| {
        let of = ["external", "object", "pods"].into_iter().filter(|source| present(metric, source));
        of.map(move |source| format!("spec.metrics[{index}].{source}: nothing here serves metrics of this source"))
    });
    sources.collect()
}

/// What is measured when nothing is said: four fifths of the processor time that was asked for.
fn usual_metrics() -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": 80});
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
}

fn default(scaler: &mut Value) {
    let spec = ensure_object(scaler, "spec");
    default_to(spec, "minReplicas", 1);
    if items(spec, "metrics").is_empty() {
        spec["metrics"] = usual_metrics();
    }
    default_behavior(spec);
}

/// Whoever says something about how fast it scales gets the usual for the rest (`GenerateHPAScaleUpRules`).
fn default_behavior(spec: &mut Value) {
    let Some(behavior) = object_mut(spec, "behavior") else { return };
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let double = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let up = ensure_object(behavior, "scaleUp");
    default_to(up, "stabilizationWindowSeconds", 0);
    default_rules(up, json!([pods, double]));
    default_rules(ensure_object(behavior, "scaleDown"), json!([double]));
}

fn default_rules(rules: &mut Value, policies: Value) {
    default_to(rules, "selectPolicy", "Max");
    if !present(rules, "policies") {
        put(rules, "policies", &policies);
    }
}
