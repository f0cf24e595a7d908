//! The pods that other pods were made to go for: until they are bound, room is kept for them.
//!
//! After upstream's `backend/queue/nominator.go`; the API knows the node as `status.nominatedNodeName`. Room is kept from
//! pods of lower priority only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Pod;

use super::needs::Needs;

/// A pod that room is kept for.
#[derive(Debug, Clone)]
pub struct Nominee {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// What it needs.
    pub needs: Arc<Needs>,
}

/// Pods that room is kept for.
#[derive(Debug, Clone, Default)]
pub struct Nominations {
    /// The node of each, and whether the API has said so.
    nodes: HashMap<Key, (String, bool)>,
    on: HashMap<String, BTreeMap<Key, Nominee>>,
}

/// The node that the API has room kept on for a pod.
pub(super) fn nominated_node(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref().filter(|node| !node.is_empty())
}

impl Nominations {
    /// Keeps room for a pod on a node.
    pub fn nominate(&mut self, pod: &Arc<Pod>, needs: &Arc<Needs>, node: &str) {
        let is_confirmed = nominated_node(pod) == Some(node);
        let key = Key::of(&pod.metadata);
        self.remove(&key);
        self.nodes.insert(key.clone(), (node.to_owned(), is_confirmed));
        let nominee = Nominee { pod: Arc::clone(pod), needs: Arc::clone(needs) };
        self.on.entry(node.to_owned()).or_default().insert(key, nominee);
    }

    /// Takes in what the API says of a pod that has no node yet. That it names none means something only if it did before:
    /// it may not know ours yet.
    pub fn observe(&mut self, pod: &Arc<Pod>, needs: &Arc<Needs>) {
        let key = Key::of(&pod.metadata);
        match (nominated_node(pod), self.nodes.get(&key)) {
            (Some(node), _) => self.nominate(pod, needs, node),
            (None, Some((_, true))) => drop(self.remove(&key)),
            (None, _) => {}
        }
    }

    /// Keeps no more room for a pod; says where it did.
    pub fn remove(&mut self, key: &Key) -> Option<String> {
        let (node, _) = self.nodes.remove(key)?;
        if let Some(on) = self.on.get_mut(&node) {
            on.remove(key);
            if on.is_empty() {
                self.on.remove(&node);
            }
        }
        Some(node)
    }

    /// Where room is kept for a pod.
    pub fn node_of(&self, key: &Key) -> Option<&str> {
        self.nodes.get(key).map(|(node, _)| node.as_str())
    }

    /// The pods that room is kept for on a node.
    pub fn on(&self, node: &str) -> impl Iterator<Item = (&Key, &Nominee)> {
        self.on.get(node).into_iter().flatten()
    }
}
