//! Endpoints and EndpointSlices: who answers for a Service.
//!
//! Pods that a Service selects are in its slices ([`slices`]) and, for old readers, in an Endpoints object ([`subsets`]);
//! an Endpoints object that somebody wrote for a Service without selector is said in slices too ([`mirror`]). Those three,
//! what a pod offers ([`members`]) and for whom ([`places`]) are pure. Everything with one name is worked out together. Slices of a Service that
//! is gone are the garbage collector's; its Endpoints object, which has no owner, is removed here. Not kept: the
//! annotation `endpoints.kubernetes.io/last-change-trigger-time`.

mod members;
mod mirror;
mod places;
mod slices;
mod subsets;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, ListOptions, Scope};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use task::Tasks;

use crate::workload::owned::managed_by;
use crate::workload::unseen::{PATIENCE, Unseen};
use members::Labels;
pub(crate) use slices::SERVICE;
use slices::{Changes, Frame, Group};

/// Services worked on at a time, as upstream's `--concurrent-endpoint-syncs`.
const WORKERS: usize = 5;

struct Shell {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    /// Slices that were made or removed, by the Service.
    unseen: Unseen,
    mirrored: Unseen,
}

/// Starts the controller.
pub fn spawn(
    client: &Client,
    tasks: &Tasks,
    (pods, nodes): (&Informer<Pod>, &Informer<Node>),
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
) {
    let shell = Arc::new(Shell {
        client: client.clone(),
        services: services.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        endpoints: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        slices: slices.clone(),
        unseen: Unseen::default(),
        mirrored: Unseen::default(),
    });
    let (queue, leftovers) = (Queue::default(), Queue::default());
    tasks.spawn("endpoints-services", feed_by_services(Arc::clone(&shell), queue.clone(), leftovers.clone()));
    tasks.spawn("endpoints-pods", feed_by_pods(Arc::clone(&shell), queue.clone()));
    tasks.spawn("endpoints-nodes", feed_by_nodes(Arc::clone(&shell), queue.clone()));
    tasks.spawn("endpoints-objects", reconcile::feed(shell.endpoints.subscribe(), queue.clone()));
    tasks.spawn("endpoints-slices", feed_by_slices(Arc::clone(&shell), queue.clone()));
    let own = Arc::clone(&shell);
    tasks.spawn("endpoints-leftovers", async move {
        own.synced().await;
        own.find_leftovers(&leftovers);
        reconcile::run(leftovers, 1, move |key| remove_leftover(Arc::clone(&own), key)).await;
    });
    tasks.spawn("endpoints-controller", async move {
        shell.synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn feed_by_services(shell: Arc<Shell>, queue: Queue<Key>, leftovers: Queue<Key>) {
    let mut dirty = shell.services.subscribe();
    loop {
        let key = dirty.next().await;
        if shell.services.get(&key).is_none() {
            leftovers.add(key.clone());
        }
        queue.add(key);
    }
}

/// A pod concerns the Services that select it, and those that did before its labels changed.
async fn feed_by_pods(shell: Arc<Shell>, queue: Queue<Key>) {
    shell.services.synced().await;
    let mut dirty = shell.pods.subscribe();
    let mut labels_of: HashMap<Key, Option<Labels>> = HashMap::new();
    loop {
        let key = dirty.next().await;
        let present = shell.pods.get(&key).map(|pod| pod.metadata.labels.clone());
        let former = match present.clone() {
            Some(labels) => labels_of.insert(key.clone(), labels),
            None => labels_of.remove(&key),
        };
        for service in shell.services.snapshot() {
            let Some(selector) = members::selector(&service) else { continue };
            let selects = |labels: &Option<Labels>| members::is_selected(selector, labels.as_ref());
            let is_inside = service.metadata.namespace.as_deref() == Some(&key.namespace);
            if is_inside && (present.iter().any(selects) || former.iter().any(selects)) {
                queue.add(Key::of(&service.metadata));
            }
        }
    }
}

/// A node that comes, goes or moves to another zone concerns all Services; most changes of nodes are others.
async fn feed_by_nodes(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.nodes.subscribe();
    let mut zone_of: HashMap<Key, Option<String>> = HashMap::new();
    loop {
        let key = dirty.next().await;
        let zone = shell.nodes.get(&key).map(|node| places::zone(&node));
        let former = match zone.clone() {
            Some(zone) => zone_of.insert(key, zone),
            None => zone_of.remove(&key),
        };
        if former != zone {
            shell.services.snapshot().iter().for_each(|service| queue.add(Key::of(&service.metadata)));
        }
    }
}

/// A slice that somebody else changes or removes is put right.
async fn feed_by_slices(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.slices.subscribe();
    let mut service_of: HashMap<Key, Key> = HashMap::new();
    loop {
        let key = dirty.next().await;
        let slice = shell.slices.get(&key);
        let name = slice.as_ref().and_then(|slice| slice.metadata.labels.as_ref()?.get(slices::SERVICE));
        let present = name.map(|name| Key::namespaced(&key.namespace, name));
        let former = match present.clone() {
            Some(service) => service_of.insert(key, service),
            None => service_of.remove(&key),
        };
        former.into_iter().chain(present).for_each(|service| queue.add(service));
    }
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let service = shell.services.get(&key);
    let by_pods = match service.as_deref() {
        Some(service) => shell.keep_own(&key, service).await,
        None => {
            shell.unseen.forget(&key);
            Ok(true)
        }
    };
    let by_hand = shell.keep_mirrored(&key, service.as_deref()).await;
    let is_settled = by_pods? & by_hand?;
    Ok(if is_settled { Outcome::Done } else { Outcome::Again(PATIENCE) })
}

/// Removes the Endpoints object of a Service that is gone.
async fn remove_leftover(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let is_there = shell.services.get(&key).is_some();
    let Some(endpoints) = shell.endpoints.get(&key).filter(|_| !is_there) else { return Ok(Outcome::Done) };
    quietly(shell.client.delete::<Endpoints>(&key, &DeleteOptions::as_seen(&endpoints.metadata)).await)?;
    Ok(Outcome::Done)
}

impl Shell {
    async fn synced(&self) {
        self.services.synced().await;
        self.pods.synced().await;
        self.nodes.synced().await;
        self.endpoints.synced().await;
        self.slices.synced().await;
    }

    /// Services that went while nobody was here.
    fn find_leftovers(&self, leftovers: &Queue<Key>) {
        for endpoints in self.endpoints.snapshot() {
            let elects = endpoints.metadata.annotations.iter().any(|all| all.contains_key(mirror::LEADER));
            let key = Key::of(&endpoints.metadata);
            if !elects && self.services.get(&key).is_none() {
                leftovers.add(key);
            }
        }
    }

    /// What pods offer to a Service that selects them; whether everything can be seen as it is.
    async fn keep_own(&self, key: &Key, service: &Service) -> Result<bool, ClientError> {
        let Some(selector) = members::selector(service) else { return Ok(true) };
        let mut pods = self.pods.snapshot();
        pods.retain(|pod| {
            pod.metadata.namespace.as_deref() == Some(&key.namespace)
                && members::is_selected(selector, pod.metadata.labels.as_ref())
        });
        let endpoints = self.endpoints.get(key);
        if let Some(wanted) = subsets::decide(service, pods.iter().map(|pod| &**pod), endpoints.as_deref()) {
            let written = match &endpoints {
                Some(_) => self.client.replace(&wanted).await,
                None => self.client.create(&wanted).await,
            };
            quietly(written.map(drop))?;
        }
        let zones = places::zones(&self.nodes.snapshot());
        let groups = slices::groups(service, pods.iter().map(|pod| &**pod), &zones);
        let frame = slices::frame(service, managed_by(service));
        self.keep_slices(&self.unseen, key, slices::KEEPER, Some((frame, groups))).await
    }

    async fn keep_mirrored(&self, key: &Key, service: Option<&Service>) -> Result<bool, ClientError> {
        let endpoints = self.endpoints.get(key).filter(|endpoints| mirror::is_mirrored(service, endpoints));
        let wanted =
            endpoints.map(|endpoints| (mirror::frame(&endpoints, managed_by(&*endpoints)), mirror::groups(&endpoints)));
        self.keep_slices(&self.mirrored, key, mirror::KEEPER, wanted).await
    }

    /// Makes a keeper's slices what they should be; none are wanted without a frame.
    async fn keep_slices(
        &self,
        unseen: &Unseen,
        key: &Key,
        keeper: &str,
        wanted: Option<(Frame, Vec<Group>)>,
    ) -> Result<bool, ClientError> {
        if !unseen.settle_by(&self.client, |slice| self.slices.get(slice), key).await? {
            return Ok(false);
        }
        let mut existing = self.slices.snapshot();
        existing.retain(|slice| {
            let has = |name: &str, value: &str| {
                slice.metadata.labels.as_ref().and_then(|labels| labels.get(name)).is_some_and(|own| own == value)
            };
            slice.metadata.namespace.as_deref() == Some(&key.namespace)
                && slice.metadata.deletion_timestamp.is_none()
                && has(slices::SERVICE, &key.name)
                && has(slices::MANAGED_BY, keeper)
        });
        let changes = match wanted {
            Some((frame, groups)) => slices::fit(&frame, groups, &existing),
            None => Changes { delete: existing, ..Changes::default() },
        };
        self.carry_out(unseen, key, changes).await.map(|()| true)
    }

    async fn carry_out(&self, unseen: &Unseen, key: &Key, changes: Changes) -> Result<(), ClientError> {
        for slice in &changes.create {
            match self.client.create(slice).await {
                Ok(created) => unseen.created(key, &created),
                refused => quietly(refused.map(drop))?,
            }
        }
        for slice in &changes.update {
            quietly(self.client.replace(slice).await.map(drop))?;
        }
        for slice in &changes.delete {
            let options = DeleteOptions::as_seen(&slice.metadata);
            match self.client.delete::<EndpointSlice>(&Key::of(&slice.metadata), &options).await {
                Ok(()) => unseen.deleted(key, &**slice),
                refused => quietly(refused)?,
            }
        }
        Ok(())
    }
}

/// Somebody was faster, and the informer will tell of that, or the namespace is being emptied.
fn quietly(result: Result<(), ClientError>) -> Result<(), ClientError> {
    let is_expected = |error: &ClientError| {
        let details = error.api().and_then(|error| error.details.as_ref());
        error.is_conflict()
            || error.is_not_found()
            || error.is_already_exists()
            || details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
    };
    match result {
        Err(error) if is_expected(&error) => Ok(()),
        other => other,
    }
}
