//! The pods that Services and controllers put together: what pods are spread among by default.
//!
//! After `DefaultSelector` of `pkg/scheduler/framework/plugins/helper/spread.go`. Of each object only its selector is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::selector::LabelSelector;
use client::{Client, Key, PartialMetadata, Sink, Tracked, follow};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use task::Tasks;
use tokio::sync::watch;

use super::terms::covers;
use crate::workload::owned::manager;

/// The collections that are followed, by API version and kind.
const KINDS: [(&str, &str, &str); 4] = [
    ("v1", "Service", "/api/v1/services"),
    ("v1", "ReplicationController", "/api/v1/replicationcontrollers"),
    ("apps/v1", "ReplicaSet", "/apis/apps/v1/replicasets"),
    ("apps/v1", "StatefulSet", "/apis/apps/v1/statefulsets"),
];

/// An object that selects pods.
#[derive(Debug, Deserialize)]
pub(super) struct Selecting {
    #[serde(default)]
    metadata: PartialMetadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    selector: Value,
}

impl Tracked for Selecting {
    fn revision(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Selectors by kind, namespace and name.
#[derive(Debug, Default)]
pub(super) struct Families([HashMap<String, HashMap<String, LabelSelector>>; KINDS.len()]);

impl Families {
    pub(super) fn put(&mut self, kind: usize, object: &Selecting) {
        let selector = match KINDS[kind].1 {
            "Service" | "ReplicationController" => plain(&object.spec.selector),
            _ => LabelSelector::from_object(&object.spec.selector).unwrap_or_else(|_| LabelSelector::nothing()),
        };
        let within = self.0[kind].entry(object.metadata.namespace.clone()).or_default();
        within.insert(object.metadata.name.clone(), selector);
    }

    fn remove(&mut self, kind: usize, object: &Selecting) {
        if let Some(within) = self.0[kind].get_mut(&object.metadata.namespace) {
            within.remove(&object.metadata.name);
            if within.is_empty() {
                self.0[kind].remove(&object.metadata.namespace);
            }
        }
    }

    /// What selects the pods that belong together with one; nothing if none do.
    pub(super) fn of(&self, pod: &Pod) -> Option<LabelSelector> {
        let key = Key::of(&pod.metadata);
        let labels = pod.metadata.labels.as_ref()?;
        let services = self.0[0].get(&key.namespace).into_iter().flat_map(HashMap::values);
        let covering = services.filter(|selector| covers(selector, labels));
        let mut family = covering.fold(LabelSelector::everything(), |family, one| family.and(one.clone()));
        if let Some(owner) = manager(&pod.metadata)
            && let Some(kind) =
                KINDS.iter().position(|(version, kind, _)| *version == owner.api_version && *kind == owner.kind)
            && let Some(selector) = self.0[kind].get(&key.namespace).and_then(|within| within.get(&owner.name))
        {
            family = family.and(selector.clone());
        }
        // The same requirement may come from several; in order, so that equal families are known to be so.
        family.requirements.sort_by(|one, other| (&one.key, &one.values).cmp(&(&other.key, &other.values)));
        family.requirements.dedup();
        (!family.is_everything()).then_some(family)
    }
}

/// A plain map of labels; without any it selects no pods.
fn plain(selector: &Value) -> LabelSelector {
    match selector.as_object() {
        Some(labels) if !labels.is_empty() => LabelSelector::from_labels(Some(labels)),
        _ => LabelSelector::nothing(),
    }
}

/// Follows what selects pods.
#[derive(Clone)]
pub(super) struct Following {
    families: Arc<Mutex<Families>>,
    listed: [watch::Receiver<bool>; KINDS.len()],
}

struct OfKind {
    kind: usize,
    families: Arc<Mutex<Families>>,
    listed: watch::Sender<bool>,
}

fn lock(families: &Mutex<Families>) -> MutexGuard<'_, Families> {
    families.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink<Selecting> for OfKind {
    fn replace(&self, objects: Vec<Selecting>) {
        let mut families = lock(&self.families);
        families.0[self.kind].clear();
        objects.iter().for_each(|object| families.put(self.kind, object));
        self.listed.send_replace(true);
    }

    fn put(&self, object: Selecting) {
        lock(&self.families).put(self.kind, &object);
    }

    fn remove(&self, object: Selecting) {
        lock(&self.families).remove(self.kind, &object);
    }
}

impl Following {
    pub(super) fn spawn(client: &Client, tasks: &Tasks) -> Self {
        let families = Arc::<Mutex<Families>>::default();
        let mut kind = 0;
        let listed = KINDS.map(|(_, _, path)| {
            let (announce, listed) = watch::channel(false);
            let sink = OfKind { kind, families: Arc::clone(&families), listed: announce };
            kind += 1;
            follow(client, tasks, path, Arc::new(sink));
            listed
        });
        Self { families, listed }
    }

    /// Waits for the first listings; for ever, if the task group ends before.
    pub(super) async fn synced(&mut self) {
        for listed in &mut self.listed {
            if listed.wait_for(|listed| *listed).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What selects the pods that belong together with one.
    pub(super) fn of(&self, pod: &Pod) -> Option<LabelSelector> {
        lock(&self.families).of(pod)
    }
}
