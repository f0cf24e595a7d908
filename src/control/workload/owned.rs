//! Objects by the controller that manages them, and telling controllers when one of theirs changes.
//!
//! After `pkg/controller/controller_ref_manager.go` and the handlers of pods of each controller upstream. An object that
//! nobody manages may be anybody's: every controller of its namespace is told and looks at its labels.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::reconcile::Queue;
use client::{Client, ClientError, Informer, Key, Object, Patch};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use super::is_deleting;
use api::selector::LabelSelector;

/// Objects of one kind with their managers.
pub(super) struct Owned<K> {
    informer: Informer<K>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    place_of: HashMap<Key, Place>,
    members: HashMap<Group, BTreeSet<Key>>,
    /// Uids of the managers of a name, whatever their kinds: one may come after the other.
    namesakes: HashMap<Key, BTreeSet<String>>,
}

impl Index {
    fn join(&mut self, key: &Key, place: &Place) {
        self.members.entry(place.group.clone()).or_default().insert(key.clone());
        if let Some(manager) = &place.manager {
            let name = Key::namespaced(&key.namespace, &manager.name);
            self.namesakes.entry(name).or_default().insert(manager.uid.clone());
        }
    }

    fn leave(&mut self, key: &Key, place: &Place) {
        let Some(members) = self.members.get_mut(&place.group) else { return };
        members.remove(key);
        if !members.is_empty() {
            return;
        }
        self.members.remove(&place.group);
        let Some(manager) = &place.manager else { return };
        let name = Key::namespaced(&key.namespace, &manager.name);
        if let Some(uids) = self.namesakes.get_mut(&name) {
            uids.remove(&manager.uid);
            if uids.is_empty() {
                self.namesakes.remove(&name);
            }
        }
    }
}

/// Who manages an object.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    manager: Option<OwnerReference>,
    group: Group,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Group {
    /// Those of the manager with this uid.
    Managed(String),
    /// Those of this namespace that nobody manages.
    Free(String),
}

/// The controllers that are told.
#[derive(Default)]
pub(super) struct Routes(Vec<Route>);

struct Route {
    /// Group and kind of the objects that the controller works on.
    kind: (&'static str, &'static str),
    queue: Queue<Key>,
    /// All of them in a namespace.
    inside: Inside,
}

/// Lists the keys of a namespace.
type Inside = Box<dyn Fn(&str) -> Vec<Key> + Send + Sync>;

/// The controller among the owners of an object.
pub(crate) fn manager(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A reference to a manager.
pub(crate) fn managed_by<K: Object>(owner: &K) -> OwnerReference {
    let metadata = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

impl Routes {
    /// Has the controller of `owners` told.
    pub(super) fn add<O: Object>(&mut self, queue: &Queue<Key>, owners: &Informer<O>) {
        let owners = owners.clone();
        let inside = move |namespace: &str| {
            let keys = owners.snapshot().into_iter().map(|owner| Key::of(owner.metadata()));
            keys.filter(|key| key.namespace == namespace).collect()
        };
        self.0.push(Route { kind: (O::GROUP, O::KIND), queue: queue.clone(), inside: Box::new(inside) });
    }

    fn tell(&self, namespace: &str, place: &Place) {
        match &place.manager {
            Some(manager) => {
                let group = manager.api_version.split_once('/').map_or("", |(group, _)| group);
                let concerned = self.0.iter().filter(|route| route.kind == (group, manager.kind.as_str()));
                concerned.for_each(|route| route.queue.add(Key::namespaced(namespace, &manager.name)));
            }
            None => {
                for route in &self.0 {
                    (route.inside)(namespace).into_iter().for_each(|key| route.queue.add(key));
                }
            }
        }
    }
}

/// Keeps the index and tells the controllers, for ever.
pub(super) async fn follow<K: Object>(owned: Arc<Owned<K>>, routes: Routes) {
    let mut dirty = owned.informer.subscribe();
    loop {
        let key = dirty.next().await;
        let (former, present) = owned.note(&key);
        if let Some(former) = former.filter(|former| present.as_ref() != Some(former)) {
            routes.tell(&key.namespace, &former);
        }
        if let Some(present) = present {
            routes.tell(&key.namespace, &present);
        }
    }
}

impl<K: Object> Owned<K> {
    pub(super) fn new(informer: Informer<K>) -> Self {
        Self { informer, index: Mutex::default() }
    }

    pub(super) fn informer(&self) -> &Informer<K> {
        &self.informer
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an object as it is now: who managed it and who manages it.
    fn note(&self, key: &Key) -> (Option<Place>, Option<Place>) {
        let mut index = self.index();
        // Looked at under the lock, so that no older state is noted after a newer one.
        let present = self.informer.get(key).map(|object| place(key, object.metadata()));
        let former = match &present {
            Some(place) => index.place_of.insert(key.clone(), place.clone()),
            None => index.place_of.remove(key),
        };
        if former.as_ref().map(|place| &place.group) != present.as_ref().map(|place| &place.group) {
            former.iter().for_each(|place| index.leave(key, place));
            present.iter().for_each(|place| index.join(key, place));
        }
        (former, present)
    }

    /// An object as it is now, under its present manager: what is seen here is among the members as well.
    pub(super) fn look(&self, key: &Key) -> Option<Arc<K>> {
        self.note(key);
        self.informer.get(key)
    }

    /// What the owner with this uid manages.
    pub(super) fn managed(&self, uid: &str) -> Vec<Arc<K>> {
        self.of(&Group::Managed(uid.to_owned()))
    }

    /// What owners of a name manage, or managed while they were there, but for the one with this uid.
    pub(super) fn of_others(&self, owner: &Key, uid: Option<&str>) -> Vec<Arc<K>> {
        let index = self.index();
        let uids: Vec<String> = index.namesakes.get(owner).into_iter().flatten().cloned().collect();
        drop(index);
        uids.iter().filter(|other| Some(other.as_str()) != uid).flat_map(|other| self.managed(other)).collect()
    }

    fn of(&self, group: &Group) -> Vec<Arc<K>> {
        let keys: Vec<Key> = self.index().members.get(group).into_iter().flatten().cloned().collect();
        keys.iter().filter_map(|key| self.informer.get(key)).collect()
    }

    /// What an owner manages after this: what it has and its selector still covers, and what it can have of what nobody
    /// manages. The owner is asked for once more before it takes anything, because it may be on its way out.
    /// What is let go loses the owner's finalizer, if it has one.
    ///
    /// # Errors
    /// When the API server refuses for any other reason than that somebody was faster.
    pub(super) async fn claim<O: Object>(
        &self,
        client: &Client,
        owner: &O,
        selector: &LabelSelector,
        finalizer: Option<&str>,
    ) -> Result<Vec<Arc<K>>, ClientError> {
        let key = Key::of(owner.metadata());
        let uid = owner.metadata().uid.clone().unwrap_or_default();
        let covers = |object: &Arc<K>| is_covered(selector, object.metadata());
        let (mut members, strangers): (Vec<_>, Vec<_>) =
            self.of(&Group::Managed(uid.clone())).into_iter().partition(covers);
        if is_deleting(owner.metadata()) {
            members.extend(strangers);
            return Ok(members);
        }
        for stranger in strangers.iter().filter(|object| !is_deleting(object.metadata())) {
            release(client, &**stranger, &uid, finalizer).await?;
        }
        let free = self.of(&Group::Free(key.namespace.clone()));
        let free: Vec<_> =
            free.into_iter().filter(|object| covers(object) && !is_deleting(object.metadata())).collect();
        let may_adopt = !free.is_empty()
            && client
                .get_opt::<O>(&key)
                .await?
                .is_some_and(|fresh| fresh.metadata().uid == owner.metadata().uid && !is_deleting(fresh.metadata()));
        for object in free.iter().filter(|_| may_adopt) {
            if let Some(adopted) = adopt(client, &**object, &managed_by(owner)).await? {
                members.push(Arc::new(adopted));
            }
        }
        Ok(members)
    }
}

fn place(key: &Key, metadata: &ObjectMeta) -> Place {
    let manager = manager(metadata).cloned();
    let group = match &manager {
        Some(manager) => Group::Managed(manager.uid.clone()),
        None => Group::Free(key.namespace.clone()),
    };
    Place { manager, group }
}

fn is_covered(selector: &LabelSelector, metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    selector.matches(Some(&labels))
}

async fn release<K: Object>(
    client: &Client,
    object: &K,
    owner: &str,
    finalizer: Option<&str>,
) -> Result<(), ClientError> {
    let mut patch = json!({ "metadata": {
        "uid": object.metadata().uid, "ownerReferences": [{ "$patch": "delete", "uid": owner }],
    }});
    if let Some(finalizer) = finalizer {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
    }
    match client.patch::<K>(&Key::of(object.metadata()), &Patch::Strategic(patch)).await {
        // It is gone, or no longer the owner's.
        Err(error) if error.is_overtaken() || error.is_invalid() => Ok(()),
        result => result.map(drop),
    }
}

async fn adopt<K: Object>(client: &Client, object: &K, by: &OwnerReference) -> Result<Option<K>, ClientError> {
    let patch = json!({ "metadata": { "uid": object.metadata().uid, "ownerReferences": [by] } });
    match client.patch::<K>(&Key::of(object.metadata()), &Patch::Strategic(patch)).await {
        // It is gone, or somebody else was faster.
        Err(error) if error.is_overtaken() || error.is_invalid() => Ok(None),
        result => result.map(Some),
    }
}
