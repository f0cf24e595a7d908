//! What a kubelet may do, as `plugin/pkg/auth/authorizer/node` and the role `system:node` have it.

use super::{Decision, is_read};
use crate::query::Query;
use crate::request::ResourceRequest;

/// Namespace of the leases by which nodes say that they are alive.
const LEASES: &str = "kube-node-lease";

pub(super) fn decide<'a>(node: &'a str, request: &ResourceRequest, query: &Query) -> Decision<'a> {
    let r = request;
    let own = r.name == node;
    let allowed = match (r.group.as_str(), r.resource.as_str(), r.subresource.as_str(), r.verb.as_str()) {
        ("", "pods", "", "list" | "watch") => selects_node(query, node),
        ("", "pods", "" | "status", "get")
        | ("", "pods", "", "delete")
        | ("", "pods", "status", "update" | "patch") => {
            return Decision::IfBoundTo(node);
        }
        // Mirrors of static pods, and the node itself; admission looks at what they are.
        ("", "pods" | "nodes", "", "create") => true,
        ("", "nodes", "" | "status", "update" | "patch") => own,
        ("", "nodes" | "services", "", _) if is_read(r) => true,
        ("discovery.k8s.io", "endpointslices", "", _) | ("node.k8s.io", "runtimeclasses", "", _) if is_read(r) => true,
        // As `system:node-proxier`: where Services are.
        ("networking.k8s.io", "servicecidrs", "", _) if is_read(r) => true,
        ("", "events", "", "create" | "update" | "patch") => true,
        // The namespace is part of what a pod names: one name in all namespaces would be the secrets of others.
        ("", "secrets" | "configmaps", "", _) if is_read(r) && !r.name.is_empty() && !r.namespace.is_empty() => {
            return Decision::IfNamedByPodOf(node);
        }
        ("", "serviceaccounts", "", "get") | ("", "serviceaccounts", "token", "create") => {
            return Decision::IfNamedByPodOf(node);
        }
        ("", "persistentvolumeclaims" | "persistentvolumes", "", "get") => return Decision::IfNamedByPodOf(node),
        ("coordination.k8s.io", "leases", "", "create") => r.namespace == LEASES,
        ("coordination.k8s.io", "leases", "", "get" | "update" | "patch" | "delete") => own && r.namespace == LEASES,
        // Who asks the node for something, and whether he may.
        ("authentication.k8s.io", "tokenreviews", "", "create")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "", "create") => true,
        ("certificates.k8s.io", "certificatesigningrequests", "", "create" | "get" | "list" | "watch") => true,
        _ => false,
    };
    if allowed { Decision::Allow } else { Decision::Deny }
}

/// Whether the field selector asks for pods of this node only.
fn selects_node(query: &Query, node: &str) -> bool {
    let selector = query.get("fieldSelector").unwrap_or_default();
    selector.split(',').any(|condition| {
        let value = condition.trim().strip_prefix("spec.nodeName=");
        value.is_some_and(|value| value.strip_prefix('=').unwrap_or(value) == node)
    })
}
