//! Leases: heartbeats of nodes and leader election.

use super::{BLANK, Resource, WriteBehind};

/// `leases.coordination.k8s.io`.
pub(super) const ROW: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    create_on_update: true,
    unconditional_update: false,
    write_behind: WriteBehind::Namespace("kube-node-lease"),
    ..BLANK
};
