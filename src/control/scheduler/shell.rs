//! Feeds the scheduler from informers and carries out what it decides.
//!
//! One task decides; requests run beside it, at most [`REQUESTS`] at a time. Nothing polls: a pod is decided on in the
//! moment in which the informer shows it.

mod act;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;

use client::events::{Recorder, Source};
use client::{Client, ClientError, Dirty, Informer, Key, ListOptions, Object, Scope};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use task::{SharedClock, Tasks};
use tokio::time::Instant;

use super::bind::BindError;
use super::claims::Bindings;
use super::cluster::{Cluster, Placed};
use super::decide::Circumstances;
use super::family::Following;
use super::hints::Change;
use super::needs::Needs;
use super::pending::Pending;

/// The name that pods ask for.
const NAME: &str = "default-scheduler";
/// Requests under way at most.
const REQUESTS: usize = 128;
/// Pods decided on before what has happened meanwhile is looked at.
const DECISIONS: usize = 32;

/// Starts the scheduler.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, watched: Watched) {
    let source = Source { component: NAME.to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, Arc::clone(clock), source);
    let scheduler = Scheduler {
        client: client.clone(),
        clock: Arc::clone(clock),
        tasks: tasks.clone(),
        recorder,
        pods: watched.pods,
        nodes: watched.nodes,
        namespaces: watched.namespaces,
        claims: follow(client, tasks),
        volumes: follow(client, tasks),
        classes: follow(client, tasks),
        budgets: follow(client, tasks),
        families: Following::spawn(client, tasks),
        cluster: Cluster::default(),
        pending: Pending::default(),
        next_node: 0,
        decisions: 0,
        requests: FuturesUnordered::new(),
        waiting: FuturesUnordered::new(),
        reporting: HashMap::new(),
        deferred: HashSet::new(),
    };
    tasks.spawn("scheduler", scheduler.run());
}

/// What others follow as well.
#[derive(Clone)]
pub struct Watched {
    /// All pods.
    pub pods: Informer<Pod>,
    /// All nodes.
    pub nodes: Informer<Node>,
    /// All namespaces.
    pub namespaces: Informer<Namespace>,
}

fn follow<K: Object>(client: &Client, tasks: &Tasks) -> Informer<K> {
    Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default())
}

type Request = Pin<Box<dyn Future<Output = Done> + Send>>;

struct Scheduler {
    client: Client,
    clock: SharedClock,
    tasks: Tasks,
    recorder: Recorder,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    namespaces: Informer<Namespace>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    budgets: Informer<PodDisruptionBudget>,
    families: Following,
    cluster: Cluster,
    pending: Pending,
    /// Where the next decision begins to look.
    next_node: usize,
    decisions: u64,
    requests: FuturesUnordered<Request>,
    /// Bindings that wait for volumes, at most one a pod: slow ones must not keep other pods from being decided on.
    waiting: FuturesUnordered<Request>,
    /// Pods of which something is being said, and how much; what says that one has no node must not arrive after its
    /// binding.
    reporting: HashMap<Key, usize>,
    /// Those of them that were to be decided on meanwhile.
    deferred: HashSet<Key>,
}

/// A request that has come to its end.
enum Done {
    Bind { key: Key, pod: Arc<Pod>, node: String, bindings: Bindings, result: Result<(), BindError> },
    Said { key: Key, result: Result<(), ClientError> },
    Preempted(act::Preempted),
}

/// What the loop wakes for.
enum Event {
    Seen(Kind, Vec<Key>),
    Done(Done),
    Time,
}

/// What is followed, in the order in which it is taken in.
#[derive(Clone, Copy)]
enum Kind {
    Namespace,
    Node,
    Class,
    Volume,
    Claim,
    Pod,
}

/// What a pod is to the scheduler.
enum Standing<'a> {
    /// It has ended, or is none of ours.
    Nothing,
    /// It takes room on a node.
    On(&'a str),
    /// It must not be scheduled yet.
    Gated,
    /// It needs a node.
    Waits,
}

fn standing(pod: &Pod) -> Standing<'_> {
    let Some(spec) = &pod.spec else { return Standing::Nothing };
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Standing::Nothing;
    }
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Standing::On(node);
    }
    let is_ours = spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME;
    if !is_ours || pod.metadata.deletion_timestamp.is_some() {
        return Standing::Nothing;
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        Standing::Gated
    } else {
        Standing::Waits
    }
}

impl Scheduler {
    async fn run(mut self) {
        self.namespaces.synced().await;
        self.nodes.synced().await;
        self.pods.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.budgets.synced().await;
        self.families.synced().await;
        let (mut namespaces, mut nodes) = (self.namespaces.subscribe(), self.nodes.subscribe());
        let (mut claims, mut volumes) = (self.claims.subscribe(), self.volumes.subscribe());
        let (mut classes, mut pods) = (self.classes.subscribe(), self.pods.subscribe());
        loop {
            // What is known by now is taken in before anything is decided; pods last.
            drain(&mut namespaces).iter().for_each(|key| self.observe(Kind::Namespace, key));
            drain(&mut nodes).iter().for_each(|key| self.observe(Kind::Node, key));
            drain(&mut classes).iter().for_each(|key| self.observe(Kind::Class, key));
            drain(&mut volumes).iter().for_each(|key| self.observe(Kind::Volume, key));
            drain(&mut claims).iter().for_each(|key| self.observe(Kind::Claim, key));
            drain(&mut pods).iter().for_each(|key| self.observe(Kind::Pod, key));
            let is_unfinished = self.decide_some();
            let wake_at = if is_unfinished { Some(Instant::now()) } else { self.pending.wake_at() };
            let event = tokio::select! {
                biased;
                Some(done) = self.requests.next() => Event::Done(done),
                Some(done) = self.waiting.next() => Event::Done(done),
                keys = namespaces.batch() => Event::Seen(Kind::Namespace, keys),
                keys = nodes.batch() => Event::Seen(Kind::Node, keys),
                keys = classes.batch() => Event::Seen(Kind::Class, keys),
                keys = volumes.batch() => Event::Seen(Kind::Volume, keys),
                keys = claims.batch() => Event::Seen(Kind::Claim, keys),
                keys = pods.batch() => Event::Seen(Kind::Pod, keys),
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => Event::Time,
            };
            match event {
                Event::Seen(kind, keys) => keys.iter().for_each(|key| self.observe(kind, key)),
                Event::Done(done) => self.finish(done),
                Event::Time => {}
            }
        }
    }

    fn observe(&mut self, kind: Kind, key: &Key) {
        match kind {
            Kind::Namespace => {
                let namespace = self.namespaces.get(key);
                let labels = namespace.map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
                if self.cluster.set_namespace(&key.name, labels.as_ref()) {
                    self.wake(Change::Namespace);
                }
            }
            Kind::Node => self.observe_node(key),
            Kind::Class => self.cluster.claims.set_class(&key.name, self.classes.get(key)),
            Kind::Volume => self.cluster.claims.set_volume(&key.name, self.volumes.get(key)),
            Kind::Claim => self.cluster.claims.set_claim(key, self.claims.get(key)),
            Kind::Pod => self.observe_pod(key),
        }
        if matches!(kind, Kind::Class | Kind::Volume | Kind::Claim) {
            self.wake(Change::Volume);
        }
    }

    fn wake(&mut self, change: Change<'_>) {
        self.pending.wake(change, self.cluster.namespaces());
    }

    fn observe_node(&mut self, key: &Key) {
        let Some(node) = self.nodes.get(key) else {
            self.cluster.remove_node(&key.name);
            return self.wake(Change::NodeGone);
        };
        let is_news = self.cluster.room(&key.name).is_none_or(|room| decides_differently(&room.node, &node));
        self.cluster.set_node(&key.name, &node);
        if is_news {
            self.wake(Change::Node(&node));
        }
    }

    fn observe_pod(&mut self, key: &Key) {
        let Some(pod) = self.pods.get(key) else { return self.forget(key) };
        match standing(&pod) {
            Standing::On(node) => {
                self.pending.remove(key);
                self.unnominate(key, Some(node));
                match self.cluster.place(&pod, node) {
                    Placed::Same => {}
                    Placed::New => self.wake(Change::Came(&Needs::of(&pod))),
                    Placed::Changed(before) => self.wake(Change::Different(&before, &Needs::of(&pod))),
                }
            }
            Standing::Waits => {
                self.forget_former(key, &pod);
                let needs = self.pending.observe(key, &pod);
                if !self.cluster.is_assumed(key, pod.metadata.uid.as_deref().unwrap_or_default()) {
                    self.cluster.nominations.observe(&pod, &needs);
                }
            }
            Standing::Gated => {
                self.forget(key);
                let message = "Scheduling is blocked due to non-empty scheduling gates";
                self.set_condition(key, &pod, "SchedulingGated", message, None);
            }
            Standing::Nothing => self.forget(key),
        }
    }

    fn forget(&mut self, key: &Key) {
        self.free(key);
        self.unnominate(key, None);
        self.pending.remove(key);
    }

    /// A pod of the same name that had room before is gone. The room of this very pod stays, if it was just given some.
    fn forget_former(&mut self, key: &Key, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if !self.cluster.is_assumed(key, uid) {
            self.free(key);
        }
    }

    fn free(&mut self, key: &Key) {
        if let Some((resident, _)) = self.cluster.remove(key) {
            self.wake(Change::Gone(&resident.needs));
        }
    }

    /// Room is no longer kept for a pod; if it has a node now, it may be that one.
    fn unnominate(&mut self, key: &Key, taken: Option<&str>) {
        if self.cluster.nominations.remove(key).is_some_and(|kept| Some(&*kept) != taken) {
            self.wake(Change::Released);
        }
    }

    /// Chance, and where to begin.
    fn circumstances<'a>(
        &self,
        budgets: &'a dyn Fn() -> Vec<Arc<PodDisruptionBudget>>,
        pod: &Pod,
    ) -> Circumstances<'a> {
        // Uids are random already; attempts of the same pod differ by the number of the decision.
        let uid = pod.metadata.uid.as_deref().unwrap_or_default().bytes();
        let seed = uid.fold(self.decisions, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Circumstances { budgets, start: self.next_node, seed }
    }
}

fn drain(dirty: &mut Dirty) -> BTreeSet<Key> {
    std::iter::from_fn(|| dirty.try_next()).collect()
}

/// Whether a node has changed in what decides; heartbeats do not.
fn decides_differently(before: &Node, after: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    before.spec != after.spec
        || before.metadata.labels != after.metadata.labels
        || allocatable(before) != allocatable(after)
}
