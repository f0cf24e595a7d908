//! Pods and their bindings.

pub(super) mod affinity;
mod cells;
mod container;
mod default;
mod env;
mod idle;
mod label_keys;
mod part;
mod probe;
pub mod requests;
pub(super) mod resources;
mod restart;
mod security;
pub(super) mod spec;
mod template;
mod update;
pub(super) mod volume;

pub use idle::idle_fields;
pub(super) use idle::warn as warn_of_idle_fields;
pub use resources::is_extended;
pub(super) use template::{default_template, validate_template};

use serde_json::Value;

use super::cell::{self, column};
use super::path::text;
use super::{BLANK, Field, Generation, Resource, STATUS_VERBS, Subresource, Verb, proxy_of};

/// Something for which a connection changes its protocol.
const fn connection(name: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, group: "", version: "v1", kind, verbs: &[Verb::Create, Verb::Get] }
}

/// `pods`.
pub(super) const ROW: Resource = Resource {
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        connection("attach", "PodAttachOptions"),
        Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: &[Verb::Create] },
        part::EPHEMERAL,
        Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &[Verb::Create] },
        connection("exec", "PodExecOptions"),
        Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &[Verb::Get] },
        connection("portforward", "PodPortForwardOptions"),
        proxy_of("PodProxyOptions"),
        part::RESIZE,
        Subresource { name: "status", group: "", version: "v1", kind: "Pod", verbs: STATUS_VERBS },
    ],
    parts: part::PARTS,
    default: default::default,
    prepare: default::prepare,
    prepare_update: default::prepare_update,
    validate: spec::validate,
    validate_update: update::validate,
    validate_status: update::validate_status,
    warn: |pod| idle::warn(&pod["spec"], "spec"),
    has_status: true,
    generation: Generation::SPEC,
    status_keeps: &["ownerReferences"],
    returns_deleted: true,
    graceful_deletion: true,
    columns: &[
        cell::NAME,
        column("Ready", "string", "", "How many of its containers are ready.", 0),
        column("Status", "string", "", "What it is doing, in one word.", 0),
        column("Restarts", "string", "", "How often its containers have been restarted.", 0),
        cell::AGE,
        column("IP", "string", "", "Its first address.", 1),
        column("Node", "string", "", "The node that it is bound to.", 1),
        column("Nominated Node", "string", "", "The node where room is being made for it.", 1),
        column("Readiness Gates", "string", "", "How many of its readiness gates are open.", 1),
    ],
    cells: cells::cells,
    completion: cells::completion,
    selectable: SELECTABLE,
    ..BLANK
};

const SELECTABLE: &[(&str, Field)] = &[
    ("spec.nodeName", |pod| text(&pod["spec"], "nodeName").to_owned()),
    ("spec.restartPolicy", |pod| text(&pod["spec"], "restartPolicy").to_owned()),
    ("spec.schedulerName", |pod| text(&pod["spec"], "schedulerName").to_owned()),
    ("spec.serviceAccountName", |pod| text(&pod["spec"], "serviceAccountName").to_owned()),
    ("spec.hostNetwork", |pod| (pod["spec"]["hostNetwork"] == true).to_string()),
    ("status.phase", |pod| text(&pod["status"], "phase").to_owned()),
    ("status.podIP", |pod| first_ip(pod).to_owned()),
    ("status.nominatedNodeName", |pod| text(&pod["status"], "nominatedNodeName").to_owned()),
];

/// The first of `status.podIPs`, empty if there is none.
fn first_ip(pod: &Value) -> &str {
    text(&pod["status"]["podIPs"][0], "ip")
}

/// Whether an init container goes on running beside the others (a sidecar).
fn is_restartable(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// `bindings`: created only, never stored.
pub(super) const BINDING: Resource = Resource {
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    verbs: &[Verb::Create],
    validate: update::validate_binding,
    ..BLANK
};
