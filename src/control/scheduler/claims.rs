//! The claims that pods use, and the volumes that these are or shall be bound to.
//!
//! After the plugins `VolumeBinding` and `VolumeRestrictions`. A claim that waits for its first consumer gets its volume
//! here, as [`Bindings`], which the shell writes before it binds the pod; one that does not wait must have it already. It
//! does not look at `CSIStorageCapacity`, nor at limits of volumes on a node. Invariant: a volume that a decision has
//! promised to a claim is promised to no other until that has come to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use super::filter::Refusal;
use crate::volumes::{self, SELECTED_NODE};
use crate::workload::owned::manager;

/// Says that a class makes no volumes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Claims, volumes and classes as last seen.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    claims: HashMap<Key, Arc<PersistentVolumeClaim>>,
    volumes: BTreeMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    /// What has been decided and is not seen yet: which claim a volume is for, and on which node a claim's is to be made.
    promised: BTreeMap<String, Key>,
    selected: HashMap<Key, String>,
}

/// What is to be written before a pod is bound to its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Claims and the volumes that they get.
    pub volumes: Vec<(Key, String)>,
    /// Claims whose volumes are to be made for the node.
    pub provision: Vec<Key>,
}

impl Bindings {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.provision.is_empty()
    }
}

/// The claims of one pod.
#[derive(Debug, Default)]
pub(super) struct Used<'a> {
    bound: Vec<Option<&'a PersistentVolume>>,
    /// Those that wait for their first consumer, the smallest first.
    waiting: Vec<(Key, &'a PersistentVolumeClaim)>,
    /// Those that only one pod may use.
    pub(super) exclusive: Vec<Key>,
}

fn put<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

impl Claims {
    /// Takes in a claim, or that it is gone.
    pub fn set_claim(&mut self, key: &Key, claim: Option<Arc<PersistentVolumeClaim>>) {
        put(&mut self.claims, key.clone(), claim);
    }

    /// Takes in a volume, or that it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>) {
        match volume {
            Some(volume) => drop(self.volumes.insert(name.to_owned(), volume)),
            None => drop(self.volumes.remove(name)),
        }
    }

    /// Takes in a class, or that it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        put(&mut self.classes, name.to_owned(), class);
    }

    /// A claim as last seen.
    pub fn claim(&self, key: &Key) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(key)
    }

    /// A volume as last seen.
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }

    /// Keeps what a decision has chosen until [`Self::release`].
    pub fn promise(&mut self, bindings: &Bindings, node: &str) {
        for (claim, volume) in &bindings.volumes {
            self.promised.insert(volume.clone(), claim.clone());
        }
        for claim in &bindings.provision {
            self.selected.insert(claim.clone(), node.to_owned());
        }
    }

    /// Forgets what was kept: it is written, or has failed.
    pub fn release(&mut self, bindings: &Bindings) {
        for (_, volume) in &bindings.volumes {
            self.promised.remove(volume);
        }
        for claim in &bindings.provision {
            self.selected.remove(claim);
        }
    }

    /// The claims of a pod, or why it can run nowhere yet.
    pub(super) fn of(&self, pod: &Pod) -> Result<Used<'_>, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut used = Used::default();
        for (name, is_own) in volumes::claims_of(pod) {
            let key = Key::namespaced(namespace, &name);
            let Some(claim) = self.claims.get(&key) else {
                return Err(if is_own {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            if let Some(objection) = objection(claim, pod, is_own) {
                return Err(objection);
            }
            if volumes::is_exclusive(claim) {
                used.exclusive.push(key.clone());
            }
            let volume = volumes::volume_name(claim);
            if volumes::is_bound(claim) {
                used.bound.push(self.volumes.get(volume).map(|volume| &**volume));
            } else if volume.is_empty() && self.waits(claim) {
                used.waiting.push((key, &**claim));
            } else {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        used.waiting.sort_by_cached_key(|(key, claim)| (volumes::requested(claim), key.clone()));
        Ok(used)
    }

    fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<&StorageClass> {
        self.classes.get(volumes::said_class(claim)?).map(|class| &**class)
    }

    fn waits(&self, claim: &PersistentVolumeClaim) -> bool {
        let mode = self.class_of(claim).and_then(|class| class.volume_binding_mode.as_deref());
        mode == Some("WaitForFirstConsumer")
    }

    /// What is to be bound if the pod runs on a node, or why it cannot run there.
    pub(super) fn on(&self, used: &Used<'_>, node: &Node) -> Result<Bindings, Vec<Refusal>> {
        let mut refusals = Vec::new();
        if used.bound.iter().any(Option::is_none) {
            refusals.push(Refusal::VolumeGone);
        }
        if used.bound.iter().flatten().any(|volume| !is_usable_on(volume, node)) {
            refusals.push(Refusal::VolumeAffinity);
        }
        let bindings = self.bindings(used, node);
        match bindings {
            Some(bindings) if refusals.is_empty() => Ok(bindings),
            Some(_) => Err(refusals),
            None => {
                refusals.push(Refusal::NoVolume);
                Err(refusals)
            }
        }
    }

    /// A volume for each claim that waits; none if one gets none.
    fn bindings(&self, used: &Used<'_>, node: &Node) -> Option<Bindings> {
        let mut bindings = Bindings::default();
        for (key, claim) in &used.waiting {
            let selected = self.selected.get(key).map(String::as_str);
            if let Some(selected) = selected.or_else(|| volumes::annotation(&claim.metadata, SELECTED_NODE)) {
                if Some(selected) != node.metadata.name.as_deref() {
                    return None;
                }
                bindings.provision.push(key.clone());
                continue;
            }
            let kept = self.kept_for(key, claim);
            let found = match kept {
                Some(volume) => Some(volume).filter(|volume| is_usable_on(volume, node)),
                None => {
                    let taken: Vec<&String> = bindings.volumes.iter().map(|(_, volume)| volume).collect();
                    let is_free = |name: &String| !self.promised.contains_key(name) && !taken.contains(&name);
                    let free = self.volumes.iter().filter(|(name, volume)| is_free(name) && is_usable_on(volume, node));
                    volumes::find(claim, free.map(|(_, volume)| &**volume), false)
                }
            };
            match found {
                Some(volume) => {
                    bindings.volumes.push((key.clone(), volume.metadata.name.clone().unwrap_or_default()));
                }
                None if kept.is_none() && self.makes_volumes_on(claim, node) => bindings.provision.push(key.clone()),
                None => return None,
            }
        }
        Some(bindings)
    }

    /// The one volume that a claim may get, because a decision or a user has kept it for the claim.
    fn kept_for(&self, key: &Key, claim: &PersistentVolumeClaim) -> Option<&PersistentVolume> {
        let promised = self.promised.iter().find(|(_, to)| *to == key);
        match promised.and_then(|(name, _)| self.volumes.get(name)) {
            Some(volume) => Some(volume),
            None => volumes::find(claim, self.volumes.values().map(|volume| &**volume), true),
        }
    }

    fn makes_volumes_on(&self, claim: &PersistentVolumeClaim, node: &Node) -> bool {
        let Some(class) = self.class_of(claim) else { return false };
        let label = |name: &String| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        let mut terms = class.allowed_topologies.iter().flatten().peekable();
        let is_allowed = terms.peek().is_none()
            || terms.any(|term| {
                let mut expressions = term.match_label_expressions.iter().flatten();
                expressions.all(|one| label(&one.key).is_some_and(|value| one.values.contains(value)))
            });
        !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER && is_allowed
    }
}

/// Why a claim keeps its pod from running anywhere.
fn objection(claim: &PersistentVolumeClaim, pod: &Pod, is_own: bool) -> Option<String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        let volume = volumes::volume_name(claim);
        return Some(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Some(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let is_owned = manager(&claim.metadata).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    (is_own && !is_owned).then(|| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let (namespace, own) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        format!("PVC {namespace}/{name} was not created for pod {namespace}/{own} (pod is not owner)")
    })
}

/// Whether a volume can be used on a node.
fn is_usable_on(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|selector| api::placement::selects(selector, node))
}
