//! What is said of a Service and not done by any node here.

use serde_json::Value;

use crate::resources::path::{present, text};

/// Asks for hints by the size of zones (KEP-2433).
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// What its writer is to know.
pub(super) fn warn(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let facts = [
        (present(spec, "loadBalancerClass"), "spec.loadBalancerClass: no load balancer here looks at it"),
        (!text(spec, "loadBalancerIP").is_empty(), "spec.loadBalancerIP: no load balancer here looks at it"),
        (
            matches!(text(&service["metadata"]["annotations"], TOPOLOGY_MODE), "Auto" | "auto"),
            "metadata.annotations[service.kubernetes.io/topology-mode]: zones are not weighed by their nodes; \
             spec.trafficDistribution keeps connections close",
        ),
    ];
    facts.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text.to_owned()).collect()
}
