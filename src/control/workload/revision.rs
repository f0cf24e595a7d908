//! Templates that were: ControllerRevisions, by which a workload's pods are told apart and one can go back.
//!
//! After `pkg/controller/history` and `constructHistory` upstream. Pure. What a revision holds is a strategic merge patch,
//! as kubectl expects it.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use client::Object;

use super::hash;
use super::owned::managed_by;

/// The label of pods and revisions that says which template they are of.
pub(super) const HASH: &str = "controller-revision-hash";

/// What is to become of the revisions of a workload.
#[derive(Debug, PartialEq)]
pub(super) struct History {
    /// The present template's.
    pub(super) present: ControllerRevision,
    /// It is to be made.
    pub(super) is_new: bool,
    /// It is to be written, because it is the newest again.
    pub(super) is_raised: bool,
    /// The others, oldest first.
    pub(super) former: Vec<ControllerRevision>,
}

/// What a revision of a template holds.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// Finds the revision of the present template, or makes one.
pub(super) fn history<O: Object>(
    owner: &O,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    mut known: Vec<ControllerRevision>,
) -> History {
    known.sort_by_key(|one| (one.revision, one.metadata.name.clone()));
    let wanted = data(template);
    let newest = known.last().map_or(0, |one| one.revision);
    let is_it = |one: &ControllerRevision| one.data.as_ref().is_some_and(|data| data.0 == wanted);
    if let Some(place) = known.iter().rposition(is_it) {
        let mut present = known.remove(place);
        let is_raised = present.revision < newest;
        if is_raised {
            present.revision = newest + 1;
        }
        return History { present, is_new: false, is_raised, former: known };
    }
    let hash = hash::of(template, collisions);
    let mut labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let name = owner.metadata().name.as_deref().unwrap_or_default();
    let present = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: owner.metadata().namespace.clone(),
            labels: Some(labels),
            annotations: owner.metadata().annotations.clone(),
            owner_references: Some(vec![managed_by(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(wanted)),
        revision: newest + 1,
    };
    History { present, is_new: true, is_raised: false, former: known }
}

/// The hash of a revision.
pub(super) fn hash_of(revision: &ControllerRevision) -> String {
    let label = revision.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).cloned();
    label.unwrap_or_default()
}

/// The oldest revisions beyond the limit that no pod is of.
pub(super) fn surplus(
    former: &[ControllerRevision],
    limit: Option<i32>,
    is_live: impl Fn(&str) -> bool,
) -> Vec<&ControllerRevision> {
    let dead: Vec<_> = former.iter().filter(|one| !is_live(&hash_of(one))).collect();
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let surplus = dead.len().saturating_sub(limit);
    dead.into_iter().take(surplus).collect()
}
