//! The groups of all pods and of those of each class: what they have of the node, kept as pods come and go.
//!
//! After `pkg/kubelet/cm/{qos_container_manager,node_container_manager}_linux.go` upstream: all pods together have what the
//! node has but for what is reserved; pods of class Burstable have processor time by the sum of their requests, those of
//! class BestEffort by the least that there is. Guaranteed pods stand beside the two classes. Who sets them is the runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::events::{EventType, node_reference};
use runtime::Resources;
use task::chain;
use tokio::sync::watch;

use crate::container::{MIN_SHARES, shares};
use crate::node::Capacity;
use crate::shared::Shared;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(5);

/// Limits by the paths of groups.
pub(crate) type Groups = BTreeMap<PathBuf, Resources>;

/// What the groups above those of pods have. `burstable_cpu` are the requests of all burstable pods, in thousandths of a
/// processor.
pub(crate) fn groups(prefix: &Path, for_pods: &Capacity, burstable_cpu: i64) -> Groups {
    let all = Resources {
        cpu_shares: Some(shares(for_pods.milli_cpu)),
        memory_limit: Some(for_pods.memory_bytes),
        huge_pages: for_pods.huge_pages.clone(),
        ..Resources::default()
    };
    // Pods themselves are limited.
    let unlimited: BTreeMap<u64, i64> = for_pods.huge_pages.keys().map(|size| (*size, -1)).collect();
    let of_shares =
        |shares| Resources { cpu_shares: Some(shares), huge_pages: unlimited.clone(), ..Resources::default() };
    BTreeMap::from([
        (prefix.to_owned(), all),
        (prefix.join("burstable"), of_shares(shares(burstable_cpu))),
        (prefix.join("besteffort"), of_shares(MIN_SHARES)),
    ])
}

/// Has the runtime set what is wished for, for ever; the first time tells whoever watches the node.
pub(crate) async fn keep(shared: Arc<Shared>, mut wishes: watch::Receiver<Groups>) {
    let mut is_told = false;
    loop {
        let wish = wishes.borrow_and_update().clone();
        let is_first = !is_told && !wish.is_empty();
        let mut again = None;
        let subject = node_reference(&shared.config.node_name);
        match shared.seams.runtime.limit_groups(wish).await {
            Ok(()) if is_first => {
                let message = "Updated Node Allocatable limit across pods";
                shared.event(&subject, EventType::Normal, "NodeAllocatableEnforced", message);
                is_told = true;
            }
            Ok(()) => {}
            Err(error) => {
                let error = chain(&error);
                let message = format!("Failed to update Node Allocatable Limits: {error}");
                shared.event(&subject, EventType::Warning, "FailedNodeAllocatableEnforcement", &message);
                tracing::warn!(error, "limits of the groups of all pods not set, trying again");
                again = Some(PAUSE);
            }
        }
        let pause = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => {}
            changed = wishes.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pods_have_the_node_and_each_class_what_its_pods_ask_for() {
        let node = Capacity { milli_cpu: 1900, memory_bytes: 1 << 30, ..Capacity::default() };
        let of = |burstable: i64| {
            let groups = groups(Path::new("kubepods"), &node, burstable);
            let text = |(path, own): (&PathBuf, &Resources)| {
                let limit = own.memory_limit.map_or_else(String::new, |limit| format!(" memory {limit}"));
                format!("{}: shares {}{limit}", path.display(), own.cpu_shares.unwrap_or_default())
            };
            groups.iter().map(text).collect::<Vec<_>>()
        };
        let all = "kubepods: shares 1945 memory 1073741824";
        assert_eq!(of(0), [all, "kubepods/besteffort: shares 2", "kubepods/burstable: shares 2"]);
        assert_eq!(of(750), [all, "kubepods/besteffort: shares 2", "kubepods/burstable: shares 768"]);
    }
}
