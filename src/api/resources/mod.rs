//! The resource table: one declarative row per kind, and everything that differs between kinds.
//!
//! The API server routes, serves discovery, prints tables and checks objects by these rows; kubectl's view of the server
//! derives from them. No kind has a handler of its own: there is one create, one update, one patch, one delete, one list
//! and one watch, and they ask the row. A kind has a row only if what its users expect of it is true.
//!
//! Everything is pure and total: functions of a row take objects of any shape that the schema admits, never panic, and
//! read no clock. The order in which the server uses them is written down in [`write`].

pub mod admission;
pub mod apiservice;
mod apps;
mod batch;
mod cell;
pub mod certificate;
pub mod componentstatus;
mod configmap;
pub mod custom;
mod device;
pub mod disruption;
mod endpoints;
mod endpointslice;
mod event;
pub mod flowcontrol;
mod horizontalpodautoscaler;
mod lease;
pub mod limitrange;
mod metadata;
pub mod metrics;
mod namespace;
mod networking;
mod node;
mod path;
pub mod pod;
mod poddisruptionbudget;
mod podtemplate;
mod priorityclass;
pub mod quota;
pub mod rbac;
mod registration;
mod replicationcontroller;
mod review;
mod row;
mod rule;
mod runtimeclass;
pub mod scale;
mod secret;
mod selector;
pub mod service;
mod serviceaccount;
mod storage;
pub mod tokenrequest;
mod workload;
pub mod write;

use row::{ALL_VERBS, BLANK, SCALE, STATUS_VERBS, proxy_of, status_of};
pub use row::{
    Column, Conversion, Dependents, Field, Generation, NameRule, Part, Resource, Subresource, Verb, WriteBehind,
};

static ROWS: &[&Resource] = &[
    &pod::BINDING,
    &componentstatus::ROW,
    &configmap::ROW,
    &endpoints::ROW,
    &event::ROW,
    &limitrange::ROW,
    &namespace::ROW,
    &node::ROW,
    &storage::volume::ROW,
    &storage::claim::ROW,
    &pod::ROW,
    &podtemplate::ROW,
    &replicationcontroller::ROW,
    &quota::ROW,
    &secret::ROW,
    &service::ROW,
    &serviceaccount::ROW,
    &apps::controllerrevision::ROW,
    &apps::daemonset::ROW,
    &apps::deployment::ROW,
    &apps::replicaset::ROW,
    &apps::statefulset::ROW,
    &horizontalpodautoscaler::V2,
    &horizontalpodautoscaler::V1,
    &batch::cronjob::ROW,
    &batch::job::ROW,
    &certificate::ROW,
    &poddisruptionbudget::ROW,
    &custom::definition::ROW,
    &apiservice::ROW,
    &priorityclass::ROW,
    &lease::ROW,
    &endpointslice::ROW,
    &event::V1,
    &flowcontrol::FLOW_SCHEMA,
    &flowcontrol::PRIORITY_LEVEL,
    &networking::ingress::ROW,
    &networking::ingressclass::ROW,
    &networking::ipaddress::ROW,
    &networking::networkpolicy::ROW,
    &networking::servicecidr::ROW,
    &runtimeclass::ROW,
    &storage::class::ROW,
    &storage::attributesclass::ROW,
    &storage::volumeattachment::ROW,
    &storage::csidriver::ROW,
    &storage::csinode::ROW,
    &storage::capacity::ROW,
    &device::CLASS,
    &device::CLAIM,
    &device::TEMPLATE,
    &device::SLICE,
    &registration::MUTATING,
    &registration::VALIDATING,
    &registration::POLICY,
    &registration::POLICY_BINDING,
    &registration::MUTATING_POLICY,
    &registration::MUTATING_BINDING,
    &rbac::ROLE,
    &rbac::CLUSTER_ROLE,
    &rbac::ROLE_BINDING,
    &rbac::CLUSTER_ROLE_BINDING,
    &review::TOKEN,
    &review::SELF_SUBJECT,
    &review::SUBJECT_ACCESS,
    &review::SELF_SUBJECT_ACCESS,
    &review::LOCAL_SUBJECT_ACCESS,
    &review::SELF_SUBJECT_RULES,
    &metrics::NODE,
    &metrics::POD,
];

/// All rows. Groups are discovered in the order of their first row, versions of a group likewise: the first is preferred.
pub fn all() -> &'static [&'static Resource] {
    ROWS
}

/// The row of a path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    all().iter().copied().find(|row| row.group == group && row.version == version && row.plural == plural)
}

/// The row of a kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    all().iter().copied().find(|row| row.group == group && row.version == version && row.kind == kind)
}

#[cfg(test)]
mod tests;
