//! One pod of a StatefulSet: its name, and what it is made of.

use std::ops::Range;

use client::Key;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::retention;
use crate::workload::members::pod_of;
use crate::workload::owned::managed_by;
use crate::workload::revision::HASH;

/// The label that holds a pod's name, for Services of one pod.
const NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label that holds its number.
const INDEX: &str = "apps.kubernetes.io/pod-index";

fn name_of(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The name of a pod.
pub(super) fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name_of(set))
}

/// The number of a pod, by its name.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, number) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    let number: i32 = number.parse().ok()?;
    (parent == name_of(set) && name(set, number) == pod.metadata.name.as_deref()?).then_some(number)
}

/// The numbers of the pods that should be there.
pub(super) fn ordinals(spec: &StatefulSetSpec) -> Range<i32> {
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    start..start.saturating_add(spec.replicas.unwrap_or(1))
}

/// The revision that a pod is of.
pub(super) fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).map(String::as_str).unwrap_or_default()
}

/// The template that a revision holds.
pub(super) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0["spec"]["template"].clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// A pod of a revision.
pub(super) fn pod(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let mut pod = pod_of(set, template);
    let name = name(set, ordinal);
    (pod.metadata.generate_name, pod.metadata.name) = (None, Some(name.clone()));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME.to_owned(), name.clone());
    labels.insert(INDEX.to_owned(), ordinal.to_string());
    labels.insert(HASH.to_owned(), revision.to_owned());
    if let Some(own) = &mut pod.spec {
        own.hostname = Some(name);
        own.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
        let volumes = own.volumes.get_or_insert_default();
        for claim in claims(set, spec, ordinal) {
            let volume = claim.template;
            volumes.retain(|one| one.name != volume);
            let source = PersistentVolumeClaimVolumeSource { claim_name: claim.key.name, read_only: None };
            volumes.push(Volume { name: volume, persistent_volume_claim: Some(source), ..Volume::default() });
        }
        own.volumes = own.volumes.take().filter(|volumes| !volumes.is_empty());
    }
    pod
}

/// A claim of a pod.
pub(super) struct Claim {
    pub(super) key: Key,
    /// The name of its template and of the pod's volume.
    pub(super) template: String,
    pub(super) object: PersistentVolumeClaim,
}

/// The claims of a pod (`getPersistentVolumeClaims`).
pub(super) fn claims(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<Claim> {
    let owner = (retention::when_deleted(spec) == retention::Policy::Delete).then(|| vec![managed_by(set)]);
    let of = |template: &PersistentVolumeClaim| {
        let from = &template.metadata;
        let volume = from.name.clone().unwrap_or_default();
        let name = format!("{volume}-{}", self::name(set, ordinal));
        let namespace = set.metadata.namespace.clone();
        let mut labels = from.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: namespace.clone(),
            labels: Some(labels),
            annotations: from.annotations.clone(),
            owner_references: owner.clone(),
            ..ObjectMeta::default()
        };
        let object = PersistentVolumeClaim { metadata, spec: template.spec.clone(), status: None };
        Claim { key: Key::namespaced(&namespace.unwrap_or_default(), &name), template: volume, object }
    };
    spec.volume_claim_templates.iter().flatten().map(of).collect()
}
