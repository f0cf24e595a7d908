//! The nodes and what the pods on them have taken: the snapshot that decisions are made on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Node;

use super::amounts::Amounts;
use super::claims::Claims;
use super::needs::Needs;

/// One node with what is taken of it.
#[derive(Debug, Clone, Default)]
pub struct NodeRoom {
    /// The node; absent while only pods on it are known.
    pub node: Option<Arc<Node>>,
    /// What the node has for pods.
    pub allocatable: Amounts,
    /// What its pods have requested.
    pub requested: Amounts,
    /// The same with usual amounts where a container names none.
    pub usual: Amounts,
    /// The needs of each pod.
    pub pods: HashMap<Key, Arc<Needs>>,
}

/// Nodes and the pods on them. Changes with each observation instead of being built for each decision.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// What pods use beside nodes.
    pub claims: Claims,
    nodes: BTreeMap<String, NodeRoom>,
    places: HashMap<Key, Place>,
}

#[derive(Debug, Clone)]
struct Place {
    uid: String,
    node: String,
    /// We have chosen the node, and the API has not confirmed it yet.
    assumed: bool,
}

impl Cluster {
    /// Known nodes, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, &NodeRoom)> {
        self.nodes.values().filter_map(|room| room.node.as_ref().map(|node| (node, room)))
    }

    /// Takes in a node as it is now.
    pub fn set_node(&mut self, name: &str, node: &Arc<Node>) {
        let room = self.nodes.entry(name.to_owned()).or_default();
        room.allocatable = Amounts::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        room.node = Some(Arc::clone(node));
    }

    /// Forgets a node; pods on it stay known in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(room) = self.nodes.get_mut(name) {
            room.node = None;
            if room.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Whether a pod on any node uses one of the claims.
    pub fn uses_any(&self, claims: &[Key]) -> bool {
        let mut pods = self.nodes.values().flat_map(|room| room.pods.values());
        !claims.is_empty() && pods.any(|pod| pod.claims.iter().any(|claim| claims.contains(claim)))
    }

    /// The node as last taken in.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)?.node.as_ref()
    }

    /// Takes in a pod that has a node.
    pub fn place(&mut self, key: &Key, uid: &str, node: &str, needs: &Arc<Needs>) {
        self.put(key, Place { uid: uid.to_owned(), node: node.to_owned(), assumed: false }, needs);
    }

    /// Gives a pod its room before the API knows of it.
    pub fn assume(&mut self, key: &Key, uid: &str, node: &str, needs: &Arc<Needs>) {
        self.put(key, Place { uid: uid.to_owned(), node: node.to_owned(), assumed: true }, needs);
    }

    /// Whether exactly this pod has been given a node that the API has not confirmed yet.
    pub fn is_assumed(&self, key: &Key, uid: &str) -> bool {
        self.places.get(key).is_some_and(|place| place.assumed && place.uid == uid)
    }

    fn put(&mut self, key: &Key, place: Place, needs: &Arc<Needs>) {
        self.remove(key);
        let room = self.nodes.entry(place.node.clone()).or_default();
        room.requested.add(&needs.requests);
        room.usual.add(&needs.usual);
        room.pods.insert(key.clone(), Arc::clone(needs));
        self.places.insert(key.clone(), place);
    }

    /// Frees a pod's room; says whether it had any.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(place) = self.places.remove(key) else { return false };
        let Some(room) = self.nodes.get_mut(&place.node) else { return false };
        if let Some(needs) = room.pods.remove(key) {
            room.requested.subtract(&needs.requests);
            room.usual.subtract(&needs.usual);
        }
        if room.node.is_none() && room.pods.is_empty() {
            self.nodes.remove(&place.node);
        }
        true
    }
}

#[cfg(test)]
mod tests;
