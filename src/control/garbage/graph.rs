//! Who owns whom, as far as has been seen.
//!
//! [`Graph`] is told what informers see and says what is to be looked at; it asks nobody. An owner that it has not seen
//! is no evidence of anything: the dependent is then to be looked at, and the server is asked about the owner.
//! Invariant: whenever an object may have become garbage, or may have become free of what blocks it, it has been named in
//! the [`Effects`] of some call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use client::{Owner, Partial};

use super::memory::Recent;
use crate::kinds::Kind;

/// Holds an owner until its blocking dependents are gone.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Holds an owner until its dependents are cut off.
pub(super) const ORPHAN: &str = "orphan";
/// Uids of gone owners that are remembered, as many as upstream does (`absentOwnerCache`).
const REMEMBERED: usize = 500;

/// Identity of an object over all kinds and times.
pub(super) type Uid = String;

/// Who an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Uid,
}

impl Identity {
    pub(super) fn path(&self) -> String {
        self.kind.object(&self.namespace, &self.name)
    }
}

/// An object as it was last seen.
#[derive(Debug, Clone)]
struct Node {
    who: Identity,
    owners: Vec<Owner>,
    is_deleting: bool,
    /// It is being deleted, and waits for its blocking dependents.
    foreground: bool,
    /// It is being deleted, and waits for its dependents to be cut off.
    orphan: bool,
}

/// What is to be done about a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Effects {
    /// Objects that may be garbage, or owners that may be free to go.
    pub(super) look: BTreeSet<Uid>,
    /// Owners whose dependents are to be cut off.
    pub(super) orphan: BTreeSet<Uid>,
    /// Objects that name an owner which lives in another namespace, and that reference.
    pub(super) misplaced: Vec<(Identity, Owner)>,
}

/// What is known of an object that is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// There is nothing to do about it.
    Nothing,
    /// It waits for these dependents, none if it may go; true for those that wait for theirs in turn.
    Foreground(Identity, Vec<(Uid, bool)>),
    /// Its owners must be asked for; true if somebody depends on it.
    Owners(Identity, bool),
}

/// What the graph can say of an owner without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was seen to go.
    Gone,
    /// It was seen to go, after its dependents were to be cut off.
    Released,
    /// Nothing certain.
    Unknown,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    /// Who names each uid as owner, whether or not it has been seen.
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    gone: Recent<Uid>,
    released: Recent<Uid>,
}

impl Default for Graph {
    fn default() -> Self {
        let recent = || Recent::new(REMEMBERED);
        Self { nodes: HashMap::new(), dependents: HashMap::new(), gone: recent(), released: recent() }
    }
}

impl Graph {
    /// An object is there in this state.
    pub(super) fn put(&mut self, kind: &Arc<Kind>, object: Partial) -> Effects {
        let node = Node::new(kind, object);
        let uid = node.who.uid.clone();
        let mut effects = Effects::default();
        let former = self.nodes.remove(&uid);
        let before: &[Owner] = former.as_ref().map_or(&[], |node| &node.owners);
        self.unblock(before, &node.owners, &mut effects);
        if before != node.owners {
            self.reindex(&uid, before, &node.owners);
            self.doubt(&node, &mut effects);
        }
        if former.is_none() {
            self.check_references_to(&node, &mut effects);
        }
        if node.orphan && former.as_ref().is_none_or(|former| !former.orphan) {
            effects.orphan.insert(uid.clone());
        } else if node.foreground && former.as_ref().is_none_or(|former| !former.foreground) {
            effects.look.extend(self.dependents_of(&uid).cloned());
            effects.look.insert(uid.clone());
        }
        self.nodes.insert(uid, node);
        effects
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Effects {
        let mut effects = Effects::default();
        let Some(node) = self.nodes.remove(uid) else { return effects };
        self.reindex(uid, &node.owners, &[]);
        self.gone.insert(uid.to_owned());
        effects.look.extend(self.dependents_of(uid).cloned());
        let waiting = |owner: &&Owner| self.nodes.get(&owner.uid).is_some_and(|node| node.foreground);
        effects.look.extend(node.owners.iter().filter(waiting).map(|owner| owner.uid.clone()));
        effects
    }

    /// These are all objects of a kind.
    pub(super) fn replace(&mut self, kind: &Arc<Kind>, objects: Vec<Partial>) -> Vec<Effects> {
        let listed: BTreeSet<Uid> = objects.iter().map(|object| object.metadata.uid.clone()).collect();
        let is_missing = |node: &&Node| node.who.kind.is_same(kind) && !listed.contains(&node.who.uid);
        let missing: Vec<Uid> = self.nodes.values().filter(is_missing).map(|node| node.who.uid.clone()).collect();
        let removed: Vec<Effects> = missing.iter().map(|uid| self.remove(uid)).collect();
        removed.into_iter().chain(objects.into_iter().map(|object| self.put(kind, object))).collect()
    }

    /// A kind is not served any more. What became of its objects is not known, so nothing follows from it.
    pub(super) fn forget(&mut self, kind: &Kind) {
        let of_kind = |node: &&Node| node.who.kind.is_same(kind);
        let forgotten: Vec<Uid> = self.nodes.values().filter(of_kind).map(|node| node.who.uid.clone()).collect();
        for uid in forgotten {
            if let Some(node) = self.nodes.remove(&uid) {
                self.reindex(&uid, &node.owners, &[]);
            }
        }
    }

    /// Whether an owner of an object has not been seen, so that nobody will tell of its end.
    pub(super) fn has_unseen_owner(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.owners.iter().any(|owner| !self.nodes.contains_key(&owner.uid)))
    }

    /// What is to be done about an object that was named in some effect.
    pub(super) fn look(&self, uid: &str) -> Look {
        let Some(node) = self.nodes.get(uid) else { return Look::Nothing };
        if node.foreground {
            // Objects that wait for each other in a circle would do so for ever: they do not count.
            let in_circle = |other: &&Node| other.foreground && self.waits_for(&other.who.uid, uid);
            let blocking = self.blocking(uid).filter(|other| !in_circle(other));
            let blocking = blocking.map(|other| (other.who.uid.clone(), other.foreground)).collect();
            return Look::Foreground(node.who.clone(), blocking);
        }
        let is_safe = node.owners.iter().all(|owner| self.vouches(owner, &node.who) && !self.waits(owner));
        if node.is_deleting || is_safe {
            return Look::Nothing;
        }
        Look::Owners(node.who.clone(), self.dependents_of(uid).next().is_some())
    }

    /// The dependents that an owner waits for, if it waits for any.
    fn blocking<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Node> {
        let blocks = move |node: &&Node| node.owners.iter().any(|owner| owner.uid == uid && owner.is_blocked());
        self.dependent_nodes(uid).filter(blocks)
    }

    /// Whether one object waits for another, directly or through others that wait.
    fn waits_for(&self, start: &str, wanted: &str) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(uid) = open.pop() {
            if uid == wanted {
                return true;
            }
            if seen.insert(uid) {
                let waiting = self.blocking(uid).filter(|node| node.foreground);
                open.extend(waiting.map(|node| node.who.uid.as_str()));
            }
        }
        false
    }

    /// An object that waits for its dependents to be cut off, with these; none if it does not.
    pub(super) fn orphans(&self, uid: &str) -> Option<(Identity, Vec<Identity>)> {
        let owner = self.nodes.get(uid).filter(|node| node.orphan)?;
        Some((owner.who.clone(), self.dependent_nodes(uid).map(|node| node.who.clone()).collect()))
    }

    /// Remembers that whoever names this owner is to be cut off and not to be deleted, also if he is seen only later.
    pub(super) fn release(&mut self, uid: &str) {
        self.released.insert(uid.to_owned());
    }

    /// What is known of an owner.
    pub(super) fn known(&self, uid: &str) -> Known {
        match (self.gone.contains(uid), self.released.contains(uid)) {
            (true, true) => Known::Released,
            (true, false) => Known::Gone,
            (false, _) => Known::Unknown,
        }
    }

    /// How many objects have been seen, and how many uids are named as owners.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.nodes.len(), self.dependents.len())
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &Uid> {
        self.dependents.get(uid).into_iter().flatten()
    }

    fn dependent_nodes(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.dependents_of(uid).filter_map(|dependent| self.nodes.get(dependent))
    }

    fn reindex(&mut self, uid: &str, before: &[Owner], after: &[Owner]) {
        for owner in before {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        for owner in after {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
        }
    }

    /// Owners that are not blocked any more may be free to go.
    fn unblock(&self, before: &[Owner], after: &[Owner], effects: &mut Effects) {
        let still = |uid: &str| after.iter().any(|owner| owner.uid == uid && owner.is_blocked());
        let freed = before.iter().filter(|owner| owner.is_blocked() && !still(&owner.uid));
        effects.look.extend(freed.map(|owner| owner.uid.clone()));
    }

    /// A node with new owners is to be looked at if one of them is not known to live.
    fn doubt(&self, node: &Node, effects: &mut Effects) {
        for owner in &node.owners {
            if !self.vouches(owner, &node.who) || self.waits(owner) {
                effects.look.insert(node.who.uid.clone());
            }
            if self.nodes.get(&owner.uid).is_some_and(|seen| is_elsewhere(&seen.who, &node.who)) {
                effects.misplaced.push((node.who.clone(), owner.clone()));
            }
        }
    }

    /// Of an owner that is seen for the first time: whoever named it by its uid may have meant something else.
    fn check_references_to(&self, owner: &Node, effects: &mut Effects) {
        for dependent in self.dependent_nodes(&owner.who.uid) {
            let Some(reference) = dependent.owners.iter().find(|named| named.uid == owner.who.uid) else { continue };
            if !is_named(reference, &owner.who, &dependent.who) {
                effects.look.insert(dependent.who.uid.clone());
            }
            if is_elsewhere(&owner.who, &dependent.who) {
                effects.misplaced.push((dependent.who.clone(), reference.clone()));
            }
        }
    }

    /// Whether an owner has been seen, and is what the reference says that it is.
    fn vouches(&self, owner: &Owner, dependent: &Identity) -> bool {
        self.nodes.get(&owner.uid).is_some_and(|node| is_named(owner, &node.who, dependent))
    }

    fn waits(&self, owner: &Owner) -> bool {
        self.nodes.get(&owner.uid).is_some_and(|node| node.foreground)
    }
}

/// Whether an owner lives in another namespace than its dependent, where it cannot own it.
fn is_elsewhere(owner: &Identity, dependent: &Identity) -> bool {
    owner.kind.namespaced && owner.namespace != dependent.namespace
}

/// Whether a reference of a dependent names an object in every respect.
fn is_named(reference: &Owner, object: &Identity, dependent: &Identity) -> bool {
    let (group, _) = reference.api_version.split_once('/').unwrap_or(("", &reference.api_version));
    group == object.kind.group
        && reference.kind == object.kind.kind
        && reference.name == object.name
        && !is_elsewhere(object, dependent)
}

impl Node {
    fn new(kind: &Arc<Kind>, object: Partial) -> Self {
        let metadata = object.metadata;
        let is_deleting = !metadata.deletion_timestamp.is_empty();
        let has = |name: &str| is_deleting && metadata.finalizers.iter().any(|finalizer| finalizer == name);
        let (foreground, orphan) = (has(FOREGROUND), has(ORPHAN));
        let who =
            Identity { kind: Arc::clone(kind), namespace: metadata.namespace, name: metadata.name, uid: metadata.uid };
        Self { who, owners: metadata.owner_references, is_deleting, foreground, orphan }
    }
}

#[cfg(test)]
mod tests;
