//! Pods and their bindings.

use super::{BLANK, Generation, Resource, STATUS_VERBS, Subresource, Verb};

/// `pods`.
pub(super) const ROW: Resource = Resource {
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: &[Verb::Create] },
        Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &[Verb::Get] },
        Subresource { name: "status", group: "", version: "v1", kind: "Pod", verbs: STATUS_VERBS },
    ],
    has_status: true,
    generation: Generation::Spec,
    graceful_deletion: true,
    ..BLANK
};

/// `bindings`: created only, never stored.
pub(super) const BINDING: Resource =
    Resource { kind: "Binding", plural: "bindings", singular: "binding", verbs: &[Verb::Create], ..BLANK };
