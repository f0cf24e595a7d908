//! One node with what is taken of it.

use std::collections::HashMap;
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::scheduler::amounts::Amounts;
use crate::scheduler::needs::Needs;

/// A pod that has a node.
#[derive(Debug, Clone)]
pub struct Resident {
    /// The pod as last seen.
    pub pod: Arc<Pod>,
    /// What it needs.
    pub needs: Arc<Needs>,
    /// We make it go for another one.
    pub is_preempted: bool,
}

impl Resident {
    /// A pod that nobody makes go.
    pub fn new(pod: &Arc<Pod>, needs: &Arc<Needs>) -> Self {
        Self { pod: Arc::clone(pod), needs: Arc::clone(needs), is_preempted: false }
    }
}

/// One node with what is taken of it.
#[derive(Debug, Clone, Default)]
pub struct NodeRoom {
    /// Its name.
    pub name: String,
    /// Its number.
    pub(in crate::scheduler) number: usize,
    /// The node as last seen; an empty one while only pods on it are known.
    pub node: Arc<Node>,
    known: bool,
    /// What the node has for pods.
    pub allocatable: Amounts,
    /// What its pods have requested.
    pub requested: Amounts,
    /// The same with usual amounts where a container names none.
    pub usual: Amounts,
    /// Its pods.
    pub pods: HashMap<Key, Resident>,
    /// The images that it holds: size by name.
    pub images: HashMap<String, i64>,
}

fn images(node: &Node) -> Option<&Vec<k8s_openapi::api::core::v1::ContainerImage>> {
    node.status.as_ref()?.images.as_ref()
}

impl NodeRoom {
    /// Whether the node is known.
    pub fn is_known(&self) -> bool {
        self.known
    }

    pub(super) fn holds_same_images(&self, node: &Node) -> bool {
        images(&self.node) == images(node)
    }

    pub(super) fn set_node(&mut self, node: &Arc<Node>, number: usize) {
        if !self.known || !self.holds_same_images(node) {
            self.images.clear();
            for image in images(node).into_iter().flatten() {
                for name in image.names.iter().flatten() {
                    self.images.insert(name.clone(), image.size_bytes.unwrap_or(0));
                }
            }
        }
        self.allocatable = Amounts::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        self.node = Arc::clone(node);
        self.number = number;
        self.known = true;
    }

    pub(super) fn forget_node(&mut self) {
        self.node = Arc::default();
        self.known = false;
        self.allocatable = Amounts::default();
        self.images.clear();
    }

    /// A pod gets its room.
    pub(in crate::scheduler) fn admit(&mut self, key: Key, resident: Resident) {
        self.requested.add(&resident.needs.requests);
        self.usual.add(&resident.needs.usual);
        self.pods.insert(key, resident);
    }

    /// A pod gives its room back.
    pub(in crate::scheduler) fn release(&mut self, key: &Key) -> Option<Resident> {
        let resident = self.pods.remove(key)?;
        self.requested.subtract(&resident.needs.requests);
        self.usual.subtract(&resident.needs.usual);
        Some(resident)
    }

    /// The value of a label of the node.
    pub(in crate::scheduler) fn label(&self, key: &str) -> Option<&str> {
        super::label(&self.node, key)
    }
}
