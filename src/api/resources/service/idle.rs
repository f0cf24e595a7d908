//! What is said of a Service and not done by any node here.

use serde_json::Value;

use crate::resources::path::{present, text};

/// What its writer is to know.
pub(super) fn warn(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let facts = [
        (present(spec, "loadBalancerClass"), "spec.loadBalancerClass: no load balancer here looks at it"),
        (!text(spec, "loadBalancerIP").is_empty(), "spec.loadBalancerIP: no load balancer here looks at it"),
        (present(spec, "trafficDistribution"), "spec.trafficDistribution: endpoints are not chosen by where they are"),
    ];
    facts.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text.to_owned()).collect()
}
