//! Sees to it that the node does not run out of memory, disk or process ids: tells of it, takes no further pods, removes what
//! nobody uses, and ends pods one at a time.
//!
//! After `pkg/kubelet/eviction` upstream. Deliberately not here: room for the host's own work inside the group of all pods.
//! What is decided is pure ([`settings`], [`threshold`], [`rank`]); the rest looks and acts.

mod observe;
mod rank;
mod settings;
mod threshold;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::placement::is_tolerated;
use client::events::{EventType, node_reference};
use k8s_openapi::api::core::v1::{Pod, Taint};
use task::chain;

use crate::admission::{Rejection, is_critical};
use crate::container::{Qos, qos};
use crate::pod::eviction::Eviction;
use crate::shared::Shared;
pub use settings::EvictionTexts;
use threshold::{Found, Resource, Seen, Starved};
pub use threshold::{Signal, Threshold, ThresholdError};

/// How often the node is looked at: upstream's `monitoringInterval`.
const PERIOD: Duration = Duration::from_secs(10);
/// How long, and how often, it is waited for the end of a pod before another one is picked.
const END: (u32, Duration) = (30, Duration::from_secs(1));

/// What a node lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

impl Pressure {
    /// The names of the conditions that hold.
    fn conditions(self) -> Vec<&'static str> {
        let all = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pids, "PIDPressure")];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect()
    }
}

/// Whether a node in such a state takes another pod. One that is short of memory alone still takes those that have asked
/// for some, and those that bear with it.
pub(crate) fn admit(pod: &Pod, pressure: Pressure) -> Result<(), Rejection> {
    let conditions = pressure.conditions();
    if conditions.is_empty() || is_critical(pod) {
        return Ok(());
    }
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let bears = || qos(pod) != Qos::BestEffort || is_tolerated(&taint, tolerations);
    if conditions == ["MemoryPressure"] && bears() {
        return Ok(());
    }
    Err(Rejection::new("Evicted", &format!("The node had condition: [{}]. ", conditions.join(" "))))
}

/// Looks after the node, for ever.
pub(crate) async fn watch(shared: Arc<Shared>) {
    if shared.config.eviction.is_empty() {
        return;
    }
    let mut seen = Seen::default();
    loop {
        let Found { pressure, due } = look(&shared, &mut seen).await;
        shared.set_pressure(pressure);
        if let Some(first) = due.first() {
            relieve(&shared, &mut seen, first).await;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn look(shared: &Arc<Shared>, seen: &mut Seen) -> Found {
    let inner = Arc::clone(shared);
    let observed = task::blocking(move || observe::node(&inner)).await;
    seen.observe(&shared.config.eviction, &observed, shared.now())
}

/// Gives back what the node lacks: what nobody uses, if that is enough, else what one pod uses.
async fn relieve(shared: &Arc<Shared>, seen: &mut Seen, starved: &Starved) {
    let resource = starved.resource;
    let node = node_reference(&shared.config.node_name);
    let message = format!("Attempting to reclaim {resource}");
    shared.event(&node, EventType::Warning, "EvictionThresholdMet", &message);
    if matches!(resource, Resource::Storage | Resource::Inodes) {
        remove_unused_images(shared).await;
        if look(shared, seen).await.due.is_empty() {
            return;
        }
    }
    let mut pods = observe::pods(shared, resource).await;
    rank::rank(&mut pods, resource);
    let Some(first) = pods.first() else {
        tracing::warn!(%resource, "the node runs out of something and no pod can be evicted");
        return;
    };
    tracing::warn!(uid = first.uid, %resource, "pod is evicted");
    // Who goes for the sake of a soft threshold has as much time as the node grants, and never none.
    let grace = starved.is_soft.then(|| shared.config.eviction_max_pod_grace.max(1));
    let eviction = Eviction::now(rank::message(starved, first));
    shared.evict(&first.uid, Eviction { grace: grace.or(eviction.grace), ..eviction });
    for _ in 0..END.0 {
        if !shared.running(|_| Some(())).iter().any(|(uid, ())| *uid == first.uid) {
            return;
        }
        tokio::time::sleep(END.1).await;
    }
}

/// Removes images that no container is made of.
async fn remove_unused_images(shared: &Shared) {
    let (runtime, images) = (&shared.seams.runtime, &shared.seams.images);
    let (sandboxes, all) = match (runtime.list().await, images.list().await) {
        (Ok(sandboxes), Ok(all)) => (sandboxes, all),
        (Err(error), _) => return tracing::warn!(error = chain(&error), "unused images not known"),
        (_, Err(error)) => return tracing::warn!(error = chain(&error), "images not listed"),
    };
    let containers = sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
    let used: BTreeSet<_> = containers.map(|container| &container.image.0).collect();
    for image in all.iter().filter(|image| !image.pinned && !used.contains(&image.id.0)) {
        match images.remove(&image.id).await {
            Ok(()) => tracing::info!(image = %image.id, "unused image removed for want of disk"),
            Err(error) => tracing::warn!(image = %image.id, error = chain(&error), "unused image not removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_that_is_short_takes_none_but_those_that_bear_with_it() {
        let check = |spec: Value, pressure: Pressure| {
            let pod = json!({"metadata": {"name": "p"}, "spec": spec});
            admit(&serde_json::from_value(pod).expect("a pod"), pressure).map_err(|own| (own.reason, own.message))
        };
        let free = json!({"containers": [{"name": "c"}]});
        let asking = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
        let mut vital = free.clone();
        vital["priority"] = json!(2_000_000_000);
        let mut tolerant = free.clone();
        tolerant["tolerations"] = json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]);
        let memory = Pressure { memory: true, ..Pressure::default() };
        let both = Pressure { disk: true, ..memory };
        let refused = |words: &str| Err(("Evicted".to_owned(), format!("The node had condition: [{words}]. ")));
        assert_eq!(check(free.clone(), Pressure::default()), Ok(()));
        assert_eq!(check(free.clone(), memory), refused("MemoryPressure"));
        assert_eq!((check(asking.clone(), memory), check(tolerant.clone(), memory)), (Ok(()), Ok(())));
        assert_eq!(check(asking, both), refused("MemoryPressure DiskPressure"));
        assert_eq!(check(tolerant, both), refused("MemoryPressure DiskPressure"));
        assert_eq!(check(vital, both), Ok(()));
    }
}
