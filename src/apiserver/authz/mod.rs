//! Authorization: what a user may do.
//!
//! Called for every request before anything else is looked at. Some rules are fixed: `system:masters` may do everything;
//! a node what concerns it; the scheduler and the controllers what they are for; everybody asks for health. Everything
//! else is said by roles ([`rbac`]). [`decide`] is pure; a decision that depends on stored objects is returned as a
//! condition, which [`relations`] checks. What depends on the body of a write (a node that creates some other node, a
//! role that grants more than its author has) is admission's business.

pub(crate) mod escalation;
mod node;
pub(crate) mod rbac;
pub(crate) mod relations;
mod settings;

use api::status::ApiError;
use api::user::{MASTERS, UserInfo};

use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};

/// User name of the scheduler; also the group of a process that schedules among other things.
pub const SCHEDULER: &str = "system:kube-scheduler";
/// User name of the controllers; also the group of a process that runs them among other things.
pub const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";

/// Who keeps network policies on nodes. Nodes may act as this user; what they may themselves is what upstream's may.
pub const NETWORK: &str = "system:node-network";

/// What a decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision<'a> {
    /// Go on.
    Allow,
    /// 403.
    Deny,
    /// Go on if the pod is bound to this node or does not exist.
    IfBoundTo(&'a str),
    /// Go on if a pod bound to this node names the object.
    IfNamedByPodOf(&'a str),
}

/// Whether something is allowed, and why (not).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// Whether a user may do something by the fixed rules.
pub(crate) fn decide<'a>(user: &'a UserInfo, info: &RequestInfo, query: &Query) -> Decision<'a> {
    if user.is_in(MASTERS) {
        return Decision::Allow;
    }
    let allowed = match info {
        RequestInfo::Path { verb, path } => is_health(verb, path),
        RequestInfo::Resource(request) => match user.node_name() {
            Some(node) => return node::decide(node, request, query),
            None => {
                (acts_as(user, SCHEDULER) && may_schedule(request))
                    || (acts_as(user, CONTROLLER_MANAGER) && may_control(request))
            }
        },
    };
    if allowed { Decision::Allow } else { Decision::Deny }
}

/// Whether a user is a component, by name or, for one process that is several of them, by a group of that name.
fn acts_as(user: &UserInfo, component: &str) -> bool {
    user.username == component || user.is_in(component)
}

/// Paths that are always answered, as kube-apiserver's `--authorization-always-allow-paths`.
fn is_health(verb: &str, path: &str) -> bool {
    let is_or_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(verb, "get" | "head") && ["/healthz", "/livez", "/readyz"].into_iter().any(is_or_below)
}

fn is_read(request: &ResourceRequest) -> bool {
    matches!(request.verb.as_str(), "get" | "list" | "watch")
}

fn may_schedule(request: &ResourceRequest) -> bool {
    let r = request;
    match (r.group.as_str(), r.resource.as_str(), r.subresource.as_str()) {
        ("", "pods" | "nodes" | "namespaces" | "services" | "persistentvolumes" | "persistentvolumeclaims", "")
            if is_read(r) =>
        {
            true
        }
        ("storage.k8s.io", "storageclasses", "") if is_read(r) => true,
        // What puts pods together that are to be spread, and what allows only so many of them to go.
        ("", "replicationcontrollers", "")
        | ("apps", "replicasets" | "statefulsets", "")
        | ("policy", "poddisruptionbudgets", "")
            if is_read(r) =>
        {
            true
        }
        // A volume is kept for the claim of a pod, or one is to be made, before the pod is bound.
        ("", "persistentvolumes" | "persistentvolumeclaims", "") => matches!(r.verb.as_str(), "patch" | "update"),
        ("", "pods", "binding") | ("", "bindings", "") => r.verb == "create",
        ("", "pods", "status") => matches!(r.verb.as_str(), "patch" | "update"),
        ("", "pods", "") => r.verb == "delete",
        ("", "events", "") => matches!(r.verb.as_str(), "create" | "patch" | "update"),
        ("coordination.k8s.io", "leases", "") => {
            r.namespace == "kube-system" && matches!(r.verb.as_str(), "create" | "get" | "update" | "patch")
        }
        _ => false,
    }
}

fn may_control(request: &ResourceRequest) -> bool {
    let r = request;
    let writes = matches!(r.verb.as_str(), "create" | "update" | "patch");
    match (r.group.as_str(), r.resource.as_str(), r.subresource.as_str()) {
        // The namespace controller removes whatever there is in a namespace, of any kind; the garbage collector
        // changes references to owners and finalizers of any kind.
        (_, _, "") if is_read(r) || matches!(r.verb.as_str(), "delete" | "deletecollection" | "patch") => true,
        // A volume that lives with one pod gets a claim of its own.
        ("", "persistentvolumeclaims", "") => writes,
        // What workloads are made of.
        ("", "pods", "") | ("apps", "replicasets" | "controllerrevisions", "") | ("batch", "jobs", "") => writes,
        ("apps" | "batch", _, "status") | ("", "replicationcontrollers", "status") => r.verb == "update",
        // Budgets count by the scales of whatever has one, and scalers change them.
        (_, _, "scale") => matches!(r.verb.as_str(), "get" | "update"),
        ("autoscaling", "horizontalpodautoscalers", "status") => r.verb == "update",
        ("", "serviceaccounts" | "configmaps" | "events", "") | ("coordination.k8s.io", "leases", "") => writes,
        ("", "namespaces", "finalize" | "status")
        | ("", "nodes", "" | "status")
        | ("", "pods" | "services", "status")
        | ("policy", "poddisruptionbudgets", "status")
        | ("", "persistentvolumes", "status")
        | ("", "persistentvolumeclaims", "status") => {
            matches!(r.verb.as_str(), "update" | "patch")
        }
        // Volumes of the nodes' own disks are made for claims, with their class and their directories.
        ("", "persistentvolumes", "") | ("storage.k8s.io", "storageclasses", "") => writes,
        ("", "nodes", "proxy") => matches!(r.verb.as_str(), "update" | "delete"),
        ("certificates.k8s.io", "certificatesigningrequests", "approval" | "status") => r.verb == "update",
        // Nodes' own certificates are approved, if others confirm that; the built-in signers sign.
        ("certificates.k8s.io", "signers", "") => match r.name.strip_prefix("kubernetes.io/") {
            Some("kube-apiserver-client-kubelet" | "kubelet-serving") => matches!(r.verb.as_str(), "approve" | "sign"),
            Some("kube-apiserver-client") => r.verb == "sign",
            _ => false,
        },
        ("authorization.k8s.io", "subjectaccessreviews", "") => r.verb == "create",
        // The Service of the cluster's DNS.
        ("", "services", "") => writes && r.namespace == "kube-system",
        // Who answers for Services.
        ("", "endpoints", "" | "restricted") | ("discovery.k8s.io", "endpointslices", "" | "restricted") => writes,
        // Roles that are made of others have what these have, which nobody else could give them.
        (api::resources::rbac::GROUP, "clusterroles", "") => matches!(r.verb.as_str(), "update" | "escalate"),
        _ => false,
    }
}

/// The 403 for a request, in upstream's words; `reason` may be empty.
pub(crate) fn forbidden(user: &UserInfo, info: &RequestInfo, reason: &str) -> ApiError {
    let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let who = &user.username;
    match info {
        RequestInfo::Path { verb, path } => {
            let text = format!("forbidden: User {who:?} cannot {verb} path {path:?}{tail}");
            ApiError::new(403, "Forbidden", text)
        }
        RequestInfo::Resource(r) => {
            let resource =
                if r.subresource.is_empty() { r.resource.clone() } else { format!("{}/{}", r.resource, r.subresource) };
            let scope = if r.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", r.namespace)
            };
            let text = format!(
                "User {who:?} cannot {} resource {resource:?} in API group {:?} {scope}{tail}",
                r.verb, r.group
            );
            ApiError::forbidden(&r.group, &r.resource, &r.name, &text)
        }
    }
}

#[cfg(test)]
mod tests;
