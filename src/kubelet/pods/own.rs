//! Pods of manifests, and the objects that show them to others.
//!
//! After `pkg/kubelet/{pod_workers,kubelet}.go` upstream: a pod whose manifest has changed begins when nothing is left of the
//! one before; a mirror that somebody deletes is made again, and the pod never notices.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Pod;

use super::Table;
use crate::pod::{Assignment, Target, Wish};
use crate::sources::{SOURCE, StaticPod, mirror};

impl Table {
    /// A mirror pod shows the status of a pod of the manifests; one without such a pod is removed, and so is one that
    /// somebody has asked to delete: another one takes its place.
    pub(super) fn look_at_mirror(&mut self, hash: &str, object: &Arc<Pod>) {
        let own = self.own.get(hash).cloned().filter(|_| object.metadata.deletion_timestamp.is_none());
        let Some(own) = own else {
            mirror::remove(&self.shared, object);
            return;
        };
        if self.workers.contains_key(hash) {
            let target =
                Target { key: Key::of(&object.metadata), uid: object.metadata.uid.clone().unwrap_or_default() };
            self.assign(assignment(&own, Some(target)));
        }
    }

    /// There is no object of this name any more. If it was a mirror, there has to be one again.
    pub(super) fn mirror_gone(&mut self, key: &Key) {
        let own = self.own.values().find(|own| Key::of(&own.pod.metadata) == *key).cloned();
        if let Some(own) = own.filter(|own| self.workers.contains_key(&own.uid)) {
            mirror::create(&self.shared, &own);
            self.assign(assignment(&own, None));
        }
    }

    pub(super) fn take_manifests(&mut self, pods: Vec<StaticPod>) {
        let new: BTreeMap<String, StaticPod> = pods.into_iter().map(|own| (own.uid.clone(), own)).collect();
        for (uid, own) in std::mem::replace(&mut self.own, new) {
            if !self.own.contains_key(&uid) {
                if self.workers.contains_key(&uid) {
                    self.assign(Assignment::gone(Arc::clone(&own.pod)));
                }
                if let Some(object) = self.object_of(&own).filter(|object| mirror::is_of(object, &uid)) {
                    mirror::remove(&self.shared, &object);
                }
            }
        }
        for own in self.own.values().cloned().collect::<Vec<_>>() {
            self.begin_own(&own);
        }
    }

    /// Begins a pod of a manifest, unless something is left of another one of its name.
    fn begin_own(&mut self, own: &StaticPod) {
        self.unclaimed.remove(&own.uid);
        let key = Key::of(&own.pod.metadata);
        let is_static = |pod: &Pod| pod.metadata.annotations.as_ref().is_some_and(|notes| notes.contains_key(SOURCE));
        let former = self.workers.iter().filter(|(uid, _)| **uid != own.uid).any(|(_, handle)| {
            let pod = &handle.assignment.borrow().pod;
            is_static(pod) && Key::of(&pod.metadata) == key
        });
        if former {
            return;
        }
        let object = self.object_of(own).filter(|object| mirror::is_of(object, &own.uid));
        let target = object.map(|object| Target { key, uid: object.metadata.uid.clone().unwrap_or_default() });
        if target.is_none() {
            mirror::create(&self.shared, own);
        }
        self.assign(assignment(own, target));
    }

    /// Begins what has waited for the end of a pod of that name.
    pub(super) fn begin_waiting(&mut self, key: &Key) {
        let waiting = self.own.values().find(|own| Key::of(&own.pod.metadata) == *key).cloned();
        if let Some(own) = waiting.filter(|own| !self.workers.contains_key(&own.uid)) {
            tracing::info!(uid = own.uid, "static pod starts anew");
            self.begin_own(&own);
        }
    }

    fn object_of(&self, own: &StaticPod) -> Option<Arc<Pod>> {
        self.api.as_ref().and_then(|api| api.get(&Key::of(&own.pod.metadata)))
    }
}

fn assignment(own: &StaticPod, report_to: Option<Target>) -> Assignment {
    let pod = Arc::clone(&own.pod);
    Assignment { pod, wish: Wish::Keep, report_to, delete_object: false, resize_pending: None }
}
