//! What is to be done for a claim or a volume, as data.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Patch;
use client::events::reference;
use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::volumes::{PROVISIONED_BY, PROVISIONER as ASKED, SELECTED_NODE, annotation, phase, said_class};

/// Who makes the volumes, as classes name it.
pub const PROVISIONER: &str = "coracle.dev/local-path";
/// The class.
pub const CLASS: &str = "local-path";
/// Keeps a volume until its data are removed; the name is that of all external provisioners (KEP-2644).
pub(super) const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// On a volume: the node that has it.
const NODE: &str = "coracle.dev/node";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Longest name of a directory.
const LONGEST: usize = 255;

/// What a claim wants.
#[derive(Debug, PartialEq)]
pub(super) enum OfClaim<'a> {
    /// Nothing that is made here, or not yet.
    NotOurs,
    /// What cannot be had, and why.
    Refused(String),
    /// A volume on a node.
    Wanted { node: String, class: &'a StorageClass },
}

/// What is to become of a volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OfVolume {
    /// It is none of ours, or in use.
    Stays,
    /// It is to have these finalizers.
    Keep(Vec<String>),
    /// It is to be deleted, but its data are not those that were made for it; why.
    Strange(String),
    /// Its data are to be removed, and then itself, which has these finalizers in the end.
    Remove { node: String, directory: String, finalizers: Vec<String> },
}

/// The class as it is made. Where another is the default, this is not: of two the younger would win.
pub(super) fn class(others: &[Arc<StorageClass>]) -> StorageClass {
    let is_default = |class: &Arc<StorageClass>| annotation(&class.metadata, IS_DEFAULT) == Some("true");
    let value = if others.iter().any(is_default) { "false" } else { "true" };
    StorageClass {
        metadata: ObjectMeta {
            name: Some(CLASS.to_owned()),
            annotations: Some(BTreeMap::from([(IS_DEFAULT.to_owned(), value.to_owned())])),
            ..ObjectMeta::default()
        },
        provisioner: PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    }
}

/// The class that a claim names.
pub(super) fn class_of<'a>(
    claim: &PersistentVolumeClaim,
    classes: &'a [Arc<StorageClass>],
) -> Option<&'a StorageClass> {
    let name = said_class(claim)?;
    classes.iter().find(|class| class.metadata.name.as_deref() == Some(name)).map(|class| &**class)
}

/// Decides for a claim, after `shouldProvision` and the checks of local-path-provisioner.
pub(super) fn of_claim<'a>(claim: &PersistentVolumeClaim, class: Option<&'a StorageClass>) -> OfClaim<'a> {
    let spec = claim.spec.clone().unwrap_or_default();
    let is_asked = ASKED.into_iter().any(|name| annotation(&claim.metadata, name) == Some(PROVISIONER));
    let has_volume = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
    let Some(class) = class.filter(|class| class.provisioner == PROVISIONER) else { return OfClaim::NotOurs };
    if !is_asked || has_volume || claim.metadata.deletion_timestamp.is_some() {
        return OfClaim::NotOurs;
    }
    let refused = |text: &str| OfClaim::Refused(text.to_owned());
    let node = annotation(&claim.metadata, SELECTED_NODE).filter(|node| !node.is_empty());
    let Some(node) = node else {
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        return if waits { OfClaim::NotOurs } else { refused("configuration error, no node was specified") };
    };
    let is_single = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
    if spec.selector.is_some() {
        refused("claim.Spec.Selector is not supported")
    } else if spec.volume_mode.as_deref() == Some("Block") {
        refused("block volumes are not supported")
    } else if !spec.access_modes.iter().flatten().all(is_single) {
        refused("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes")
    } else {
        OfClaim::Wanted { node: node.to_owned(), class }
    }
}

/// The name of a claim's volume.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// The name of its directory, which tells people whose it is.
pub(super) fn directory(claim: &PersistentVolumeClaim) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let mut name = format!("{}_{}_{}", volume_name(claim), text(&claim.metadata.namespace), text(&claim.metadata.name));
    // The uid, which comes first, keeps names apart; they are ASCII.
    name.truncate(LONGEST);
    name
}

/// The volume of a claim at a path of a node.
pub(super) fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node, path: &str) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let node_name = node.metadata.name.clone().unwrap_or_default();
    let hostname = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOSTNAME)).unwrap_or(&node_name).clone();
    let annotations = [(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned()), (NODE.to_owned(), node_name)];
    let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned());
    let here = NodeSelectorTerm {
        match_expressions: Some(vec![NodeSelectorRequirement {
            key: HOSTNAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![hostname]),
        }]),
        match_fields: None,
    };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(claim)),
            annotations: Some(annotations.into()),
            finalizers: (policy == "Delete").then(|| vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            capacity: spec.resources.and_then(|resources| resources.requests),
            access_modes: spec.access_modes,
            claim_ref: Some(reference(claim)),
            local: Some(LocalVolumeSource { path: path.to_owned(), fs_type: None }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![here] }),
            }),
            persistent_volume_reclaim_policy: Some(policy),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// The change after which the scheduler chooses another node.
pub(super) fn elsewhere(claim: &PersistentVolumeClaim) -> Patch {
    Patch::Merge(json!({"metadata": {
        "resourceVersion": claim.metadata.resource_version, "annotations": {SELECTED_NODE: null},
    }}))
}

/// Decides for a volume, after `shouldDelete` and `syncVolume` of the library.
pub(super) fn of_volume(volume: &PersistentVolume) -> OfVolume {
    let metadata = &volume.metadata;
    if annotation(metadata, PROVISIONED_BY) != Some(PROVISIONER) {
        return OfVolume::Stays;
    }
    let Some(spec) = &volume.spec else { return OfVolume::Stays };
    let finalizers = metadata.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|name| name == FINALIZER);
    let others = || finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
    let is_going = metadata.deletion_timestamp.is_some();
    match spec.persistent_volume_reclaim_policy.as_deref() {
        Some("Delete") if phase(volume) == "Released" && (has || !is_going) => {
            let path = spec.local.as_ref().map(|local| local.path.as_str()).unwrap_or_default();
            let directory = path.rsplit('/').next().unwrap_or_default().to_owned();
            // Who may write volumes may not thereby remove the data of others.
            let own = format!("{}_", metadata.name.as_deref().unwrap_or_default());
            if !directory.starts_with(&own) {
                return OfVolume::Strange(format!("{path:?} was not made for this volume: it does not end in /{own}…"));
            }
            let node = annotation(metadata, NODE).unwrap_or_default().to_owned();
            OfVolume::Remove { node, directory, finalizers: others() }
        }
        Some("Delete") if !has && !is_going => {
            OfVolume::Keep(finalizers.iter().cloned().chain([FINALIZER.to_owned()]).collect())
        }
        Some("Delete") => OfVolume::Stays,
        // The data stay whatever becomes of the volume.
        _ if has => OfVolume::Keep(others()),
        _ => OfVolume::Stays,
    }
}
