//! Version 1, which knows the processor as only metric. All else that version 2 has is in annotations here, as upstream
//! writes them (`pkg/apis/autoscaling/v1/conversion.go`), so that a client of version 1 loses nothing of it.

use serde_json::{Map, Value, json};

use super::{V2, cells, check, usual_metrics};
use crate::resources::path::{default_to, ensure_object, items, object_mut, present, put, remove, text};
use crate::resources::{Conversion, Resource, status_of};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CPU: &str = "targetCPUUtilizationPercentage";
const CURRENT_CPU: &str = "currentCPUUtilizationPercentage";

/// `horizontalpodautoscalers.autoscaling` in version 1; checks and cells are those of version 2.
pub(in crate::resources) const ROW: Resource = Resource {
    version: "v1",
    subresources: &[status_of("autoscaling", "v1", "HorizontalPodAutoscaler")],
    conversion: Some(Conversion { stored: &V2, to_stored, from_stored }),
    default: |scaler| default_to(ensure_object(scaler, "spec"), "minReplicas", 1),
    validate: |scaler| check::validate(&stored(scaler)["spec"], 1),
    validate_update: |new, old| check::validate_update(&stored(new), old),
    cells: |scaler, now| cells::cells(&stored(scaler), now),
    ..V2
};

fn stored(scaler: &Value) -> Value {
    let mut scaler = scaler.clone();
    to_stored(&mut scaler);
    scaler
}

/// Forms of a metric: the source's field, and for each field of version 1 its place in version 2, seen from the source.
const FORMS: [(&str, &[(&str, &str)]); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("targetValue", "target/value"),
            ("averageValue", "target/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("targetAverageValue", "target/averageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("targetAverageUtilization", "target/averageUtilization"),
            ("targetAverageValue", "target/averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("targetAverageUtilization", "target/averageUtilization"),
            ("targetAverageValue", "target/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "metric/name"),
            ("metricSelector", "metric/selector"),
            ("targetValue", "target/value"),
            ("targetAverageValue", "target/averageValue"),
        ],
    ),
];

/// The same for what was measured.
const CURRENT_FORMS: [(&str, &[(&str, &str)]); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("currentValue", "current/value"),
            ("averageValue", "current/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("currentAverageValue", "current/averageValue"),
        ],
    ),
    (
        "resource",
        &[
            ("name", "name"),
            ("currentAverageUtilization", "current/averageUtilization"),
            ("currentAverageValue", "current/averageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", "name"),
            ("container", "container"),
            ("currentAverageUtilization", "current/averageUtilization"),
            ("currentAverageValue", "current/averageValue"),
        ],
    ),
    (
        "external",
        &[
            ("metricName", "metric/name"),
            ("metricSelector", "metric/selector"),
            ("currentValue", "current/value"),
            ("currentAverageValue", "current/averageValue"),
        ],
    ),
];

fn flat(metric: &Value, forms: &[(&str, &[(&str, &str)])]) -> Value {
    let mut result = json!({"type": metric["type"]});
    for (source, fields) in forms.iter().filter(|(source, _)| present(metric, source)) {
        let mut own = json!({});
        for (field, place) in *fields {
            let value = metric[source].pointer(&format!("/{place}")).unwrap_or(&Value::Null);
            put(&mut own, field, value);
        }
        result[source] = own;
    }
    result
}

fn deep(metric: &Value, forms: &[(&str, &[(&str, &str)])]) -> Value {
    let mut result = json!({"type": metric["type"]});
    for (source, fields) in forms.iter().filter(|(source, _)| metric[source].is_object()) {
        let mut own = json!({});
        for (field, place) in *fields {
            match place.split_once('/') {
                None => put(&mut own, place, &metric[source][field]),
                Some((outer, inner)) => put(ensure_object(&mut own, outer), inner, &metric[source][field]),
            }
        }
        result[source] = own;
    }
    result
}

/// Version 1 does not say of what type a target is: it follows from which there is.
fn with_target_type(mut metric: Value) -> Value {
    for (source, _) in FORMS {
        if let Some(target) = object_mut(&mut metric, source).and_then(|source| object_mut(source, "target")) {
            let kind = match () {
                () if present(target, "averageUtilization") => "Utilization",
                () if present(target, "averageValue") => "AverageValue",
                () => "Value",
            };
            target["type"] = kind.into();
        }
    }
    metric
}

fn is_cpu(metric: &Value, part: &str) -> bool {
    let resource = &metric["resource"];
    metric["type"] == "Resource" && resource["name"] == "cpu" && present(&resource[part], "averageUtilization")
}

/// The keys of a value with their first letters in the case that `change` gives them: what upstream keeps in the
/// annotation is written from types that have no names for JSON.
fn recased(value: &Value, change: fn(char) -> char) -> Value {
    match value {
        Value::Object(map) => {
            let rename = |key: &String| {
                let mut letters = key.chars();
                letters.next().map(change).into_iter().chain(letters).collect::<String>()
            };
            Value::Object(map.iter().map(|(key, value)| (rename(key), recased(value, change))).collect::<Map<_, _>>())
        }
        Value::Array(list) => list.iter().map(|value| recased(value, change)).collect(),
        other => other.clone(),
    }
}

fn from_stored(scaler: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    let spec = ensure_object(scaler, "spec");
    let metrics = items(spec, "metrics").to_vec();
    let (cpu, others): (Vec<_>, Vec<_>) = metrics.iter().partition(|metric| is_cpu(metric, "target"));
    if let Some(cpu) = cpu.last() {
        spec[CPU] = cpu["resource"]["target"]["averageUtilization"].clone();
    }
    if !others.is_empty() {
        notes.push((METRICS, others.into_iter().map(|metric| flat(metric, &FORMS)).collect()));
    }
    if present(spec, "behavior") {
        notes.push((BEHAVIOR, recased(&spec["behavior"], |letter| letter.to_ascii_uppercase())));
    }
    ["metrics", "behavior"].into_iter().for_each(|field| remove(spec, field));
    if let Some(status) = object_mut(scaler, "status") {
        let current = items(status, "currentMetrics").to_vec();
        if let Some(cpu) = current.iter().rfind(|metric| is_cpu(metric, "current")) {
            status[CURRENT_CPU] = cpu["resource"]["current"]["averageUtilization"].clone();
        }
        if !current.is_empty() {
            notes.push((CURRENT, current.iter().map(|metric| flat(metric, &CURRENT_FORMS)).collect()));
        }
        if !items(status, "conditions").is_empty() {
            notes.push((CONDITIONS, status["conditions"].clone()));
        }
        ["currentMetrics", "conditions"].into_iter().for_each(|field| remove(status, field));
    }
    for (key, value) in notes {
        let annotations = ensure_object(ensure_object(scaler, "metadata"), "annotations");
        annotations[key] = value.to_string().into();
    }
}

fn to_stored(scaler: &mut Value) {
    let note = |scaler: &Value, key: &str| -> Value {
        serde_json::from_str(text(&scaler["metadata"]["annotations"], key)).unwrap_or_default()
    };
    let list = |scaler: &Value, key: &str| note(scaler, key).as_array().cloned().unwrap_or_default();
    let percent = scaler["spec"][CPU].clone();
    let mut metrics = Vec::new();
    if !percent.is_null() {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    metrics.extend(list(scaler, METRICS).iter().map(|metric| with_target_type(deep(metric, &FORMS))));
    let behavior = recased(&note(scaler, BEHAVIOR), |letter| letter.to_ascii_lowercase());
    let current: Vec<Value> = list(scaler, CURRENT).iter().map(|metric| deep(metric, &CURRENT_FORMS)).collect();
    let conditions = list(scaler, CONDITIONS);
    let spec = ensure_object(scaler, "spec");
    remove(spec, CPU);
    spec["metrics"] = if metrics.is_empty() { usual_metrics() } else { metrics.into() };
    if behavior.is_object() {
        spec["behavior"] = behavior;
        super::default_behavior(spec);
    }
    if let Some(status) = object_mut(scaler, "status") {
        remove(status, CURRENT_CPU);
    }
    for (field, list) in [("currentMetrics", current), ("conditions", conditions)] {
        if !list.is_empty() {
            ensure_object(scaler, "status")[field] = list.into();
        }
    }
    forget_notes(scaler);
}

fn forget_notes(scaler: &mut Value) {
    let Some(metadata) = object_mut(scaler, "metadata") else { return };
    if let Some(annotations) = object_mut(metadata, "annotations") {
        [METRICS, CURRENT, CONDITIONS, BEHAVIOR].into_iter().for_each(|key| remove(annotations, key));
        if annotations.as_object().is_some_and(Map::is_empty) {
            remove(metadata, "annotations");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Value {
        let metric = |kind: &str, source: &str, of: Value| {
            let mut metric = json!({"type": kind});
            metric[source] = of;
            metric
        };
        let average = json!({"type": "AverageValue", "averageValue": "5"});
        json!({
            "metadata": {"name": "web", "annotations": {"a": "b"}},
            "spec": {
                "minReplicas": 1, "maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                "metrics": [
                    metric("Resource", "resource", json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}})),
                    metric("Resource", "resource", json!({"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}})),
                    metric("Pods", "pods", json!({"metric": {"name": "p"}, "target": average})),
                    metric("Object", "object", json!({
                        "describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "o", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "Value", "value": "3"}})),
                    metric("External", "external", json!({"metric": {"name": "e"}, "target": average})),
                    metric("ContainerResource", "containerResource", json!({
                        "name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 9}})),
                ],
                "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                        {"type": "Pods", "value": 4, "periodSeconds": 15}]},
                    "scaleDown": {"selectPolicy": "Disabled", "policies": [{"type": "Percent", "value": 1, "periodSeconds": 5}]},
                },
            },
            "status": {
                "currentReplicas": 1, "desiredReplicas": 2,
                "currentMetrics": [metric("Resource", "resource", json!({
                    "name": "cpu", "current": {"averageUtilization": 7, "averageValue": "70m"}}))],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        })
    }

    #[test]
    fn what_version_1_does_not_know_survives_it() {
        let mut scaler = full();
        from_stored(&mut scaler);
        assert_eq!((&scaler["spec"][CPU], &scaler["status"][CURRENT_CPU]), (&json!(50), &json!(7)));
        assert_eq!((scaler["spec"].get("metrics"), scaler["spec"].get("behavior")), (None, None));
        let metrics: Value = serde_json::from_str(text(&scaler["metadata"]["annotations"], METRICS)).unwrap();
        assert_eq!(
            metrics[0],
            json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}})
        );
        assert!(text(&scaler["metadata"]["annotations"], BEHAVIOR).contains("\"ScaleUp\":{"));
        to_stored(&mut scaler);
        assert_eq!(scaler, full());
    }

    #[test]
    fn a_target_of_version_1_is_a_metric() {
        let mut scaler = json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, CPU: 60}});
        let before = scaler.clone();
        to_stored(&mut scaler);
        assert_eq!(scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
        from_stored(&mut scaler);
        assert_eq!(scaler, before);
        let mut silent = json!({"spec": {"maxReplicas": 3}});
        to_stored(&mut silent);
        from_stored(&mut silent);
        assert_eq!(silent["spec"], json!({"maxReplicas": 3, CPU: 80}));
    }

    #[test]
    fn annotations_that_cannot_be_read_are_dropped() {
        let mut scaler = json!({"metadata": {"annotations": {METRICS: "{", CURRENT: "7", BEHAVIOR: "[]"}}, "spec": {}});
        to_stored(&mut scaler);
        assert_eq!(scaler, json!({"metadata": {}, "spec": {"metrics": usual_metrics()}}));
    }
}
