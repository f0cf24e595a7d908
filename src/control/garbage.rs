//! The garbage collector: removes objects whose owners are all gone, and ends deletions that wait for dependents.
//!
//! After `pkg/controller/garbagecollector`. Informers of the metadata of every kind that can be listed, watched and deleted
//! feed a [`graph`]; what it names is looked at, the server is asked about the owners, and [`decide`] says what is to be
//! done. Unlike upstream there are no virtual nodes: where an owner has not been seen, its dependents are looked at.
//! Events own nothing and are owned by nobody, so they are not followed.
//!
//! ```text
//! informers ──► Graph ──► queue ──► look ──► GET object, GET owners ──► decide ──► keep │ cut references │ delete
//!                                    │
//!                                    ├─ waits for its dependents ──► none left ──► take foregroundDeletion away
//!                                    └─ leaves its dependents     ──► cut them ───► take orphan away
//! ```
//! Invariants: nothing is deleted unless the server itself has just denied each of its owners; every write is for exactly
//! the state that was decided on; a finalizer is taken away only when all kinds have been listed.

mod decide;
mod follow;
mod graph;
mod memory;
mod work;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::events::{EventType, Recorder, Source};
use client::reconcile::{self, Queue};
use client::{Client, Owner};
use k8s_openapi::api::core::v1::ObjectReference;
use task::{SharedClock, Tasks};
use tokio::sync::{Notify, watch};

use crate::kinds::Kind;
use graph::{Effects, Graph, Identity, Uid};

/// Objects worked on at a time, as upstream's `--concurrent-gc-syncs`.
const WORKERS: usize = 20;
/// How long to wait for the first listings before objects are looked at nevertheless.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be worked on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    /// This object may be garbage, or free to go.
    Look(Uid),
    /// The dependents of this object are to be cut off.
    Orphan(Uid),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look(uid) => write!(f, "look at {uid}"),
            Self::Orphan(uid) => write!(f, "orphan dependents of {uid}"),
        }
    }
}

/// A kind that is followed, and the tasks that do.
struct Followed {
    kind: Arc<Kind>,
    tasks: Tasks,
}

struct Shell {
    /// Whose answers are metadata.
    client: Client,
    graph: Mutex<Graph>,
    queue: Queue<Task>,
    followed: Mutex<HashMap<String, Followed>>,
    /// How many of the followed kinds have not been listed; none before it is known what kinds there are.
    unlisted: watch::Sender<Option<usize>>,
    /// Says that there may be new kinds.
    stale: Notify,
    recorder: Recorder,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks) {
    let source = Source { component: "garbage-collector-controller".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.partial(),
        graph: Mutex::default(),
        queue: Queue::default(),
        followed: Mutex::default(),
        unlisted: watch::Sender::new(None),
        stale: Notify::new(),
        recorder: Recorder::spawn(client, tasks, SharedClock::clone(clock), source),
    });
    tasks.spawn("garbage-kinds", follow::keep(Arc::clone(&shell), tasks.clone()));
    tasks.spawn("garbage-collector", async move {
        let mut unlisted = shell.unlisted.subscribe();
        // A kind that cannot be listed must not keep the garbage of all others.
        let _ = tokio::time::timeout(PATIENCE, unlisted.wait_for(|count| *count == Some(0))).await;
        let queue = shell.queue.clone();
        reconcile::run(queue, WORKERS, move |task| work::work(Arc::clone(&shell), task)).await;
    });
}

impl Shell {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<String, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_listed_all(&self) -> bool {
        *self.unlisted.borrow() == Some(0)
    }

    /// The followed kind that a reference names.
    fn kind_of(&self, owner: &Owner) -> Option<Arc<Kind>> {
        let (group, _) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let followed = self.followed();
        let found = followed.values().find(|followed| followed.kind.group == group && followed.kind.kind == owner.kind);
        found.map(|followed| Arc::clone(&followed.kind))
    }

    fn take(&self, effects: Effects) {
        effects.look.into_iter().for_each(|uid| self.queue.add(Task::Look(uid)));
        effects.orphan.into_iter().for_each(|uid| self.queue.add(Task::Orphan(uid)));
        for (dependent, owner) in effects.misplaced {
            self.report(&dependent, &owner);
        }
    }

    fn report(&self, dependent: &Identity, owner: &Owner) {
        let subject = ObjectReference {
            api_version: Some(dependent.kind.api_version()),
            kind: Some(dependent.kind.kind.clone()),
            name: Some(dependent.name.clone()),
            namespace: Some(dependent.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: Some(dependent.uid.clone()),
            ..ObjectReference::default()
        };
        let (namespace, Owner { api_version, kind, name, uid, .. }) = (&dependent.namespace, owner);
        let text = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace {namespace:?}"
        );
        self.recorder.event(&subject, EventType::Warning, "OwnerRefInvalidNamespace", &text);
    }
}
