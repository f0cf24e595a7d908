//! What nodes and pods use: `metrics.k8s.io/v1beta1`, asked of the nodes whenever somebody wants to know, stored by nobody.
//!
//! As `k8s.io/metrics` and metrics-server have it, columns included.

use jiff::Timestamp;
use serde_json::Value;

use super::cell::{self, column};
use super::path::{items, text};
use super::{BLANK, Column, Resource, Verb};
use crate::quantity::Quantity;

/// The group of both kinds.
pub const GROUP: &str = "metrics.k8s.io";

const COLUMNS: &[Column] = &[
    cell::NAME,
    column("cpu", "string", "quantity", "CPU in use, on the average of the window.", 0),
    column("memory", "string", "quantity", "Working set.", 0),
    column("Window", "string", "duration", "The span of the average.", 0),
];

const BASE: Resource = Resource {
    group: GROUP,
    version: "v1beta1",
    singular: "",
    verbs: &[Verb::Get, Verb::List],
    columns: COLUMNS,
    ..BLANK
};

/// `nodes.metrics.k8s.io`.
pub(super) const NODE: Resource = Resource {
    kind: "NodeMetrics",
    list_kind: "NodeMetricsList",
    plural: "nodes",
    namespaced: false,
    cells: |object, _| row(object, &[&object["usage"]]),
    ..BASE
};

/// `pods.metrics.k8s.io`.
pub(super) const POD: Resource =
    Resource { kind: "PodMetrics", list_kind: "PodMetricsList", plural: "pods", namespaced: true, cells: pod, ..BASE };

fn pod(object: &Value, _: Timestamp) -> Vec<Value> {
    let usages: Vec<&Value> = items(object, "containers").iter().map(|container| &container["usage"]).collect();
    row(object, &usages)
}

fn row(object: &Value, usages: &[&Value]) -> Vec<Value> {
    let sum = |resource: &str| {
        let amounts = usages.iter().filter_map(|usage| Quantity::from_value(&usage[resource]).ok());
        amounts.reduce(Quantity::plus).map_or_else(String::new, |sum| sum.to_string())
    };
    vec![cell::name(object), sum("cpu").into(), sum("memory").into(), text(object, "window").into()]
}

/// Billionths of a processor as a quantity.
pub fn cpu(nano_cores: u64) -> String {
    Quantity::parse(&format!("{nano_cores}n")).map_or_else(|_| "0".to_owned(), |amount| amount.to_string())
}

/// Bytes as a quantity.
pub fn memory(bytes: u64) -> String {
    Quantity::from_bytes(i64::try_from(bytes).unwrap_or(i64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_written_as_metrics_server_writes_them() {
        assert_eq!((cpu(12_345_678), cpu(2_000_000), cpu(0)), ("12345678n".into(), "2m".into(), "0".into()));
        assert_eq!((memory(12 << 10), memory(3 << 20), memory(0)), ("12Ki".into(), "3Mi".into(), "0".into()));
    }

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let usage = |cpu: &str, memory: &str| json!({ "usage": { "cpu": cpu, "memory": memory } });
        let metrics = json!({
            "metadata": { "name": "web" }, "window": "15s", "containers": [usage("1500n", "12Ki"), usage("2m", "1Mi")],
        });
        assert_eq!(Value::from(pod(&metrics, Timestamp::UNIX_EPOCH)), json!(["web", "2001500n", "1036Ki", "15s"]));
        let node = json!({ "metadata": { "name": "n1" }, "window": "15s", "usage": { "cpu": "1", "memory": "1Gi" } });
        assert_eq!(Value::from((NODE.cells)(&node, Timestamp::UNIX_EPOCH)), json!(["n1", "1", "1Gi", "15s"]));
    }
}
