//! Nodes.

use super::{BLANK, Resource, STATUS_VERBS, Subresource, WriteBehind};

/// `nodes`.
pub(super) const ROW: Resource = Resource {
    kind: "Node",
    list_kind: "NodeList",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[Subresource { name: "status", group: "", version: "v1", kind: "Node", verbs: STATUS_VERBS }],
    has_status: true,
    write_behind: WriteBehind::Heartbeats,
    ..BLANK
};
