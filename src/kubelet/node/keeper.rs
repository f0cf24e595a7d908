//! Registering the node and keeping its status and lease up to date.

use std::sync::Arc;
use std::time::Duration;

use client::events::{EventType, node_reference};
use client::{Client, ClientError, Informer, Key, Patch};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::{Value, json};
use task::chain;

use super::facts::Facts;
use super::object::{self, REPORT_PERIOD, Sources};
use crate::shared::Shared;

/// How often the host is looked at and the lease is renewed, as upstream.
const PERIOD: Duration = Duration::from_secs(10);
/// First and longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));

/// Registers the node and keeps it up to date for ever.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    client: Client,
    shown: Option<Informer<Node>>,
    registered: tokio::sync::watch::Sender<bool>,
) {
    let facts = {
        let shared = Arc::clone(&shared);
        task::blocking(move || Facts::read(&shared.config)).await
    };
    let mut keeper = Keeper { shared, client, shown, facts, node: Node::default(), written_at: None };
    keeper.register_until_done().await;
    keeper.tell_start();
    registered.send_replace(true);
    let mut lease = None;
    loop {
        let renewed = keeper.renew(lease.take()).await;
        lease = keeper.noted("renew lease", renewed);
        tokio::time::sleep(PERIOD).await;
        let updated = keeper.update_status().await;
        keeper.noted("write node status", updated);
    }
}

struct Keeper {
    shared: Arc<Shared>,
    client: Client,
    /// The node as the API server shows it.
    shown: Option<Informer<Node>>,
    facts: Facts,
    node: Node,
    written_at: Option<Timestamp>,
}

impl Keeper {
    /// Logs a failure; what follows tries again.
    fn noted<T>(&self, operation: &'static str, result: Result<T, ClientError>) -> Option<T> {
        result.inspect_err(|error| tracing::warn!(operation, error = chain(error), "node not up to date")).ok()
    }

    fn key(&self) -> Key {
        Key::cluster(&self.shared.config.node_name)
    }

    async fn register_until_done(&mut self) {
        let mut pause = RETRY.0;
        loop {
            match self.register().await {
                Ok(node) => {
                    self.node = node;
                    self.written_at = Some(self.shared.now());
                    return;
                }
                Err(error) => tracing::warn!(error = chain(&error), "node not registered, trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Creates the object, or brings that of an earlier run up to date: labels and status; the rest is its owner's.
    async fn register(&self) -> Result<Node, ClientError> {
        let status = self.render(None).await;
        let images = status.images.clone();
        let mut node = {
            let sources = self.sources(&[]);
            object::node(&sources)
        };
        if let Some(own) = &mut node.status {
            own.images = images;
        }
        match self.client.create(&node).await {
            Err(error) if error.is_already_exists() => {}
            result => return result,
        }
        let old: Node = self.client.get(&self.key()).await?;
        let mut patch = json!({ "metadata": { "labels": object::labels(&self.shared.config, &self.facts) } });
        let has_range = old.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
        let ranges = &self.shared.config.pod_cidrs;
        if let Some(first) = ranges.first().filter(|_| !has_range) {
            patch["spec"] = json!({ "podCIDR": first, "podCIDRs": ranges });
        } else if old.spec.and_then(|spec| spec.pod_cidrs).is_some_and(|shown| shown != *ranges) {
            let is = ranges.join(",");
            tracing::warn!(
                is,
                "other nodes are told of former addresses of this node's pods until its object is removed"
            );
        }
        let old: Node = self.client.patch(&self.key(), &Patch::Merge(patch)).await?;
        let status = self.render(old.status.as_ref()).await;
        self.write(&status).await
    }

    fn sources<'a>(&'a self, images: &'a [runtime::Image]) -> Sources<'a> {
        Sources {
            config: &self.shared.config,
            capacity: &self.shared.capacity,
            facts: &self.facts,
            images,
            pressure: self.shared.pressure(),
            now: self.shared.now(),
        }
    }

    async fn render(&self, old: Option<&NodeStatus>) -> NodeStatus {
        let images = self.shared.seams.images.list().await.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "images not listed");
            Vec::new()
        });
        let mut status = object::status(&self.sources(&images), old);
        // Their capacity is whose it is that tells it; all of it is there for pods (`MachineInfo` of pkg/kubelet/nodestatus).
        let shown = self.shown_status();
        let given = object::given(shown.as_ref().and_then(|shown| shown.capacity.as_ref()));
        status.allocatable.get_or_insert_default().extend(given);
        status
    }

    async fn write(&self, status: &NodeStatus) -> Result<Node, ClientError> {
        let mut patch = json!({ "status": status });
        let shown = self.shown_status();
        for taken in object::given(shown.as_ref().and_then(|shown| shown.allocatable.as_ref())).into_keys() {
            if status.allocatable.as_ref().is_none_or(|own| !own.contains_key(&taken)) {
                patch["status"]["allocatable"][taken] = Value::Null;
            }
        }
        // Strategic and without the conditions of others, so that these stay as they are meanwhile; addresses have no key
        // that tells them apart.
        if let Some(conditions) = patch["status"]["conditions"].as_array_mut() {
            conditions.retain(|condition| condition["type"].as_str().is_some_and(object::is_own));
        }
        if let Some(addresses) = patch["status"]["addresses"].as_array_mut() {
            addresses.insert(0, json!({ "$patch": "replace" }));
        }
        self.client.patch_status(&self.key(), &Patch::Strategic(patch)).await
    }

    /// The status as the API server shows it.
    fn shown_status(&self) -> Option<NodeStatus> {
        self.shown.as_ref()?.get(&self.key())?.status.clone()
    }

    /// What others have said of the node's conditions meanwhile, as the controller does that has heard nothing for long.
    fn contradiction(&self) -> Option<NodeStatus> {
        let shown = self.shown_status()?;
        object::contradicts(self.node.status.as_ref()?, &shown).then_some(shown)
    }

    /// Writes the status if it has changed, is not what others see, or is old. A node that was deleted is registered again.
    async fn update_status(&mut self) -> Result<(), ClientError> {
        let now = self.shared.now();
        if let Some(shown) = self.contradiction() {
            self.node.status = Some(shown);
        }
        let status = self.render(self.node.status.as_ref()).await;
        let old = self.node.status.as_ref();
        let fresh = self.written_at.is_some_and(|at| now.duration_since(at) < REPORT_PERIOD);
        if fresh && old.is_some_and(|old| !object::differs(old, &status)) {
            return Ok(());
        }
        self.tell_changes(old, &status);
        match self.write(&status).await {
            Err(error) if error.is_not_found() => self.register_until_done().await,
            result => {
                self.node = result?;
                // The server may render what it stores in another way; what is compared is what was meant.
                self.node.status = Some(status);
            }
        }
        self.written_at = Some(now);
        Ok(())
    }

    async fn renew(&self, known: Option<Lease>) -> Result<Lease, ClientError> {
        let lease = object::lease(&self.node, self.shared.now());
        let key = Key::of(&lease.metadata);
        if known.is_some() {
            let renew_time = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            let patch = Patch::Merge(json!({ "spec": { "renewTime": renew_time } }));
            match self.client.patch(&key, &patch).await {
                Err(error) if error.is_not_found() => {}
                result => return result,
            }
        }
        match self.client.create(&lease).await {
            Err(error) if error.is_already_exists() => {
                self.client.patch(&key, &Patch::Merge(json!({ "spec": lease.spec }))).await
            }
            result => result,
        }
    }

    /// The events with which a node begins.
    fn tell_start(&self) {
        let subject = node_reference(&self.shared.config.node_name);
        self.shared.event(&subject, EventType::Normal, "Starting", "Starting kubelet.");
        for reason in ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"] {
            self.tell(reason);
        }
    }

    fn tell(&self, reason: &str) {
        let name = &self.shared.config.node_name;
        let message = format!("Node {name} status is now: {reason}");
        self.shared.event(&node_reference(name), EventType::Normal, reason, &message);
    }

    /// The events of what the node lacks, or has again.
    fn tell_changes(&self, old: Option<&NodeStatus>, new: &NodeStatus) {
        let holds = |status: &NodeStatus, kind: &str| {
            status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
        };
        for (kind, lacks, has) in [
            ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
            ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
            ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ] {
            let (before, now) = (old.is_some_and(|old| holds(old, kind)), holds(new, kind));
            if before != now {
                self.tell(if now { lacks } else { has });
            }
        }
        if old.is_some_and(|old| !holds(old, "Ready")) && holds(new, "Ready") {
            self.tell("NodeReady");
        }
    }
}
