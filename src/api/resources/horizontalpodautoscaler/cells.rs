//! The table row (`printHorizontalPodAutoscaler`, `formatHPAMetrics`).

use jiff::Timestamp;
use serde_json::Value;

use crate::resources::cell;
use crate::resources::path::{items, number, present, text};

/// How many metrics are shown.
const SHOWN: usize = 2;

/// The cells of an autoscaler of version 2.
pub(super) fn cells(scaler: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&scaler["spec"], &scaler["status"]);
    let target = &spec["scaleTargetRef"];
    let least = spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |least| least.to_string());
    vec![
        cell::name(scaler),
        format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
        metrics(items(spec, "metrics"), items(status, "currentMetrics")).into(),
        least.into(),
        number(spec, "maxReplicas").to_string().into(),
        number(status, "currentReplicas").into(),
        cell::age(scaler, now),
    ]
}

fn metrics(wanted: &[Value], found: &[Value]) -> String {
    if wanted.is_empty() {
        return "<none>".to_owned();
    }
    let list = wanted.iter().enumerate().map(|(index, wanted)| metric(wanted, found.get(index)));
    let shown = list.take(SHOWN).collect::<Vec<_>>().join(", ");
    match wanted.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn metric(wanted: &Value, found: Option<&Value>) -> String {
    let source = match text(wanted, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let target = &wanted[source]["target"];
    let current = found.map_or(&Value::Null, |found| &found[source]["current"]);
    let shown = |value: &Value, instead: &str| value.as_str().unwrap_or(instead).to_owned();
    let is_average = present(target, "averageValue");
    let field = if is_average || source == "pods" { "averageValue" } else { "value" };
    if source == "resource" || source == "containerResource" {
        let name = text(&wanted[source], "name");
        if is_average {
            let current = shown(&current[field], "<unknown>");
            return format!("{name}: {current}/{}", shown(&target[field], ""));
        }
        let percent = |value: &Value, instead: &str| {
            value["averageUtilization"].as_i64().map_or_else(|| instead.to_owned(), |percent| format!("{percent}%"))
        };
        return format!("{name}: {}/{}", percent(current, "<unknown>"), percent(target, "<auto>"));
    }
    let suffix = if is_average && source != "pods" { " (avg)" } else { "" };
    format!("{}/{}{suffix}", shown(&current[field], "<unknown>"), shown(&target[field], ""))
}
