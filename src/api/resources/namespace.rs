//! Namespaces.

use super::{BLANK, NameRule, Resource, STATUS_VERBS, Subresource, Verb};

/// `namespaces`.
pub(super) const ROW: Resource = Resource {
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    name_rule: NameRule::Label,
    verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch],
    subresources: &[
        Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &[Verb::Update] },
        Subresource { name: "status", group: "", version: "v1", kind: "Namespace", verbs: STATUS_VERBS },
    ],
    has_status: true,
    ..BLANK
};
