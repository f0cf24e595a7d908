//! The nodes and what the pods on them have taken: the snapshot that decisions are made on.
//!
//! Changes with each observation instead of being built for each decision. Nodes have numbers, which another node gets
//! once a node and all its pods are gone. Invariant: what is taken of a node is the sum of what its pods need, and every
//! count that is kept equals counting anew.

mod room;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::amounts::Amounts;
use super::census::{Censuses, Crowd, Held, Pulls};
use super::claims::Claims;
use super::needs::Needs;
use super::nominations::Nominations;
use super::terms::{Labels, Namespaces, ZONE};
pub(super) use room::{NodeRoom, Resident};

/// Nodes and the pods on them.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// What pods use beside nodes.
    pub claims: Claims,
    /// Pods that room is kept for.
    pub nominations: Nominations,
    namespaces: Namespaces,
    rooms: Vec<NodeRoom>,
    numbers: HashMap<String, usize>,
    unused: Vec<usize>,
    /// Known nodes in the order in which they are looked at: zone by zone in turn.
    order: Vec<usize>,
    places: HashMap<Key, Place>,
    censuses: Censuses,
    pulls: Pulls,
    /// How many nodes hold an image of this name.
    images: HashMap<String, usize>,
}

#[derive(Debug, Clone)]
struct Place {
    number: usize,
    /// We have chosen the node, and the API has not confirmed it yet.
    assumed: bool,
}

/// What it means that a pod was seen on a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Placed {
    /// Nothing that decides has changed.
    Same,
    /// It was not known, or is another one.
    New,
    /// It needed this before.
    Changed(Arc<Needs>),
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

impl Cluster {
    /// Known nodes, in the order in which they are looked at.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeRoom> {
        self.order.iter().map(|number| &self.rooms[*number])
    }

    /// How many nodes are known.
    pub fn size(&self) -> usize {
        self.order.len()
    }

    /// The known node at a place in the order.
    pub(super) fn at(&self, place: usize) -> &NodeRoom {
        &self.rooms[self.order[place]]
    }

    /// A known node.
    pub fn room(&self, name: &str) -> Option<&NodeRoom> {
        self.numbers.get(name).map(|number| &self.rooms[*number]).filter(|room| room.is_known())
    }

    /// The number of a name, new if need be.
    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.unused.pop().unwrap_or_else(|| {
            self.rooms.push(NodeRoom::default());
            self.rooms.len() - 1
        });
        name.clone_into(&mut self.rooms[number].name);
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// Gives a number back if there is neither node nor pod.
    fn tidy(&mut self, number: usize) {
        let room = &mut self.rooms[number];
        if !room.is_known() && room.pods.is_empty() {
            self.numbers.remove(&room.name);
            *room = NodeRoom::default();
            self.unused.push(number);
        }
    }

    /// Takes in a node as it is now.
    pub fn set_node(&mut self, name: &str, node: &Arc<Node>) {
        let number = self.number(name);
        let room = &self.rooms[number];
        let is_elsewhere = !room.is_known() || label(&room.node, ZONE) != label(node, ZONE);
        let holds_others = !room.is_known() || !room.holds_same_images(node);
        if holds_others {
            self.count_images(number, false);
        }
        self.rooms[number].set_node(node, number);
        if holds_others {
            self.count_images(number, true);
        }
        if is_elsewhere {
            self.sort();
        }
    }

    /// Forgets a node; pods on it stay known in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(number) = self.numbers.get(name).copied() else { return };
        self.count_images(number, false);
        self.rooms[number].forget_node();
        self.tidy(number);
        self.sort();
    }

    fn count_images(&mut self, number: usize, comes: bool) {
        for image in self.rooms[number].images.keys() {
            if comes {
                *self.images.entry(image.clone()).or_default() += 1;
            } else if let Some(count) = self.images.get_mut(image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    /// How many nodes hold an image.
    pub(super) fn holders(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// One node of each zone in turn, as upstream's `nodeTree`, so that the first few are of many zones.
    fn sort(&mut self) {
        let mut zones: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for (name, number) in &self.numbers {
            let room = &self.rooms[*number];
            if room.is_known() {
                zones.entry(label(&room.node, ZONE).unwrap_or_default()).or_default().insert(name, *number);
            }
        }
        let mut zones: VecDeque<_> = zones.into_values().map(BTreeMap::into_values).collect();
        let mut order = Vec::with_capacity(self.numbers.len());
        while let Some(mut zone) = zones.pop_front() {
            if let Some(number) = zone.next() {
                order.push(number);
                zones.push_back(zone);
            }
        }
        self.order = order;
    }

    /// Takes in the labels of a namespace, or that it is gone; says whether that may decide something.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) -> bool {
        if self.namespaces.get(name) == labels {
            return false;
        }
        self.censuses.forget_namespaces();
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels.clone())),
            None => drop(self.namespaces.remove(name)),
        }
        true
    }

    /// The labels of all namespaces.
    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Takes in a pod that has a node.
    pub fn place(&mut self, pod: &Arc<Pod>, node: &str) -> Placed {
        let key = Key::of(&pod.metadata);
        let known = self.places.get_mut(&key).map(|place| (place, &mut self.rooms));
        let mut before = None;
        if let Some((place, rooms)) = known
            && let room = &mut rooms[place.number]
            && let Some(resident) = room.pods.get_mut(&key)
        {
            let is_it = resident.pod.metadata.uid == pod.metadata.uid;
            let is_same = Needs::are_same_on_node(&resident.pod, pod);
            if room.name == node && is_it && is_same {
                place.assumed = false;
                resident.pod = Arc::clone(pod);
                return Placed::Same;
            }
            before = Some(Arc::clone(&resident.needs)).filter(|_| is_it);
        }
        self.put(Resident::new(pod, &Arc::new(Needs::of(pod))), node, false);
        before.map_or(Placed::New, Placed::Changed)
    }

    /// Gives a pod its room before the API knows of it.
    pub fn assume(&mut self, pod: &Arc<Pod>, needs: &Arc<Needs>, node: &str) {
        self.put(Resident::new(pod, needs), node, true);
    }

    /// Whether exactly this pod has been given a node that the API has not confirmed yet.
    pub fn is_assumed(&self, key: &Key, uid: &str) -> bool {
        let place = self.places.get(key).filter(|place| place.assumed);
        let resident = place.and_then(|place| self.rooms[place.number].pods.get(key));
        resident.is_some_and(|resident| resident.pod.metadata.uid.as_deref().unwrap_or_default() == uid)
    }

    fn put(&mut self, resident: Resident, node: &str, assumed: bool) {
        let key = Key::of(&resident.pod.metadata);
        self.remove(&key);
        let number = self.number(node);
        self.censuses.count(&resident.needs, number, true, &self.namespaces);
        self.pulls.count(&resident.needs, number, true);
        self.rooms[number].admit(key.clone(), resident);
        self.places.insert(key, Place { number, assumed });
    }

    /// Frees a pod's room; says what it had, and on which node.
    pub fn remove(&mut self, key: &Key) -> Option<(Resident, String)> {
        let number = self.places.remove(key)?.number;
        let resident = self.rooms[number].release(key)?;
        self.censuses.count(&resident.needs, number, false, &self.namespaces);
        self.pulls.count(&resident.needs, number, false);
        let node = self.rooms[number].name.clone();
        self.tidy(number);
        Some((resident, node))
    }

    /// Notes that a pod is made to go for another one, or that this has failed.
    pub fn set_preempted(&mut self, key: &Key, is_preempted: bool) {
        if let Some(place) = self.places.get(key)
            && let Some(resident) = self.rooms[place.number].pods.get_mut(key)
        {
            resident.is_preempted = is_preempted;
        }
    }

    /// How many pods on any node use one of the claims.
    pub fn users_of(&self, claims: &[Key]) -> usize {
        if claims.is_empty() {
            return 0;
        }
        let pods = self.rooms.iter().flat_map(|room| room.pods.values());
        pods.filter(|resident| resident.needs.uses_any(claims)).count()
    }

    /// Counts sorts of pods that are to be asked for, unless they are kept already.
    pub fn get_ready(&mut self, crowds: Vec<Crowd>) {
        for crowd in crowds {
            if !self.censuses.touch(&crowd) {
                let counts = self.count_anew(&crowd);
                self.censuses.keep(crowd, counts);
            }
        }
    }

    fn count_anew(&self, crowd: &Crowd) -> Vec<u32> {
        let count = |room: &NodeRoom| {
            let pods = room.pods.values().filter(|resident| crowd.has(&resident.needs, &self.namespaces));
            u32::try_from(pods.count()).unwrap_or(u32::MAX)
        };
        self.rooms.iter().map(count).collect()
    }

    /// How many pods of a sort there are, by number of the node; nodes beyond the end have none.
    pub(super) fn counts(&self, crowd: &Crowd) -> Cow<'_, [u32]> {
        match self.censuses.find(crowd) {
            Some(counts) => Cow::Borrowed(counts),
            None => Cow::Owned(self.count_anew(crowd)),
        }
    }

    /// What pods that have a node mean for this one.
    pub(super) fn pulls_on<'a>(&'a self, pod: &'a Needs) -> impl Iterator<Item = &'a Held> {
        self.pulls.about(pod, &self.namespaces)
    }

    /// What is there on a number.
    pub(super) fn numbered(&self, number: usize) -> Option<&NodeRoom> {
        self.rooms.get(number).filter(|room| room.is_known())
    }

    /// What a node has for pods, if it is known.
    pub fn allocatable(&self, name: &str) -> Option<&Amounts> {
        self.room(name).map(|room| &room.allocatable)
    }
}

#[cfg(test)]
mod tests;
