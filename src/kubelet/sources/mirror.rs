//! Mirror pods: objects in the API server that show the static pods of a node.
//!
//! After `pkg/kubelet/pod/mirror_client.go` upstream. The pods' table says when; a failure is tried again here until the
//! object is there or somebody else's.

use std::sync::Arc;
use std::time::Duration;

use client::{DeleteOptions, Key};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use task::chain;

use super::{MIRROR, StaticPod};
use crate::shared::Shared;

/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(5);
/// Tries at a removal; the next change of the object leads here again.
const TRIES: u32 = 5;

/// Whether an object is the mirror of the static pod with this UID.
pub(crate) fn is_of(object: &Pod, uid: &str) -> bool {
    object.metadata.annotations.as_ref().and_then(|notes| notes.get(MIRROR)).is_some_and(|hash| hash == uid)
}

/// Creates the mirror of a static pod in the background.
pub(crate) fn create(shared: &Arc<Shared>, own: &StaticPod) {
    let (shared, own) = (Arc::clone(shared), own.clone());
    let tasks = shared.seams.tasks.clone();
    tasks.spawn("mirror pod", async move { create_until_done(&shared, &own).await });
}

async fn create_until_done(shared: &Shared, own: &StaticPod) {
    let Some(client) = &shared.client else { return };
    loop {
        let node = client.get_opt::<Node>(&Key::cluster(&shared.config.node_name)).await;
        let object = match node {
            Ok(Some(node)) => client.create(&mirror(own, &node)).await,
            Ok(None) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => Err(error),
        };
        match object {
            Ok(_) => return,
            Err(error) if error.is_already_exists() => return,
            Err(error) => tracing::warn!(uid = own.uid, error = chain(&error), "mirror pod not created, trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The object that stands for a static pod.
fn mirror(own: &StaticPod, node: &Node) -> Pod {
    let mut object = (*own.pod).clone();
    object.status = None;
    let metadata = &mut object.metadata;
    metadata.uid = None;
    metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), own.uid.clone());
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    object
}

/// Removes a mirror whose static pod has gone, in the background.
pub(crate) fn remove(shared: &Arc<Shared>, object: &Arc<Pod>) {
    let (shared, object) = (Arc::clone(shared), Arc::clone(object));
    let tasks = shared.seams.tasks.clone();
    tasks.spawn("mirror pod", async move {
        let Some(client) = &shared.client else { return };
        let (key, uid) = (Key::of(&object.metadata), object.metadata.uid.clone().unwrap_or_default());
        for _ in 0..TRIES {
            match client.delete::<Pod>(&key, &DeleteOptions::now(&uid)).await {
                Ok(()) => return,
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => tracing::warn!(pod = %key, error = chain(&error), "mirror pod not removed, trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
}
