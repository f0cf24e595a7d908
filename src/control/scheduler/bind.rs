//! What is written for a pod that has a node: the bindings of its claims first, then its own.
//!
//! After `BindPodVolumes` of `pkg/scheduler/framework/plugins/volumebinding`. The controller of volumes completes a binding
//! that begins here, or whoever makes volumes does; the pod follows once all its claims have theirs.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, ClientError, Informer, Key, Patch};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use super::claims::{Bindings, Claims};
use crate::volumes::{self, SELECTED_NODE};

/// How long the claims of a pod may take to be bound; upstream's `bindTimeoutSeconds`.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a pod could not be bound.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    /// The API server refused a write.
    #[error("binding rejected: {0}")]
    Rejected(#[source] ClientError),
    /// A claim was not bound.
    #[error("running PreBind plugin \"VolumeBinding\": binding volumes: {0}")]
    Volumes(String),
    /// Nobody knows what came of it.
    #[error("binding ended without an answer")]
    Lost,
}

/// Everything that is to be written for one pod.
pub(super) struct Binding {
    pub(super) client: Client,
    pub(super) claims: Informer<PersistentVolumeClaim>,
    pub(super) pod: Key,
    pub(super) uid: String,
    pub(super) node: String,
    pub(super) steps: Vec<Step>,
}

/// A change that begins the binding of a claim.
pub(super) enum Step {
    Volume(Key, Patch),
    Claim(Key, Patch),
}

/// The changes that bindings mean, to objects that are as they were when that was decided.
pub(super) fn steps(bindings: &Bindings, claims: &Claims, node: &str) -> Vec<Step> {
    let kept = bindings.volumes.iter().filter_map(|(key, name)| {
        let volume = claims.volume(name)?;
        let mut change = volumes::keep_for(volume, claims.claim(key)?)?;
        change["metadata"]["resourceVersion"] = json!(volume.metadata.resource_version);
        Some(Step::Volume(Key::cluster(name), Patch::Merge(change)))
    });
    let selected = bindings.provision.iter().filter_map(|key| {
        let claim = claims.claim(key)?;
        let change = json!({"metadata": {
            "resourceVersion": claim.metadata.resource_version, "annotations": {SELECTED_NODE: node},
        }});
        let is_so = volumes::annotation(&claim.metadata, SELECTED_NODE) == Some(node);
        (!is_so).then(|| Step::Claim(key.clone(), Patch::Merge(change)))
    });
    kept.chain(selected).collect()
}

impl Binding {
    /// Writes all of it in turn.
    pub(super) async fn carry_out(self, bindings: &Bindings) -> Result<(), BindError> {
        if !bindings.is_empty() {
            self.bind_claims(bindings).await?;
        }
        self.client.bind(&self.pod, &self.uid, &self.node).await.map_err(BindError::Rejected)
    }

    async fn bind_claims(&self, bindings: &Bindings) -> Result<(), BindError> {
        let refused = |error: ClientError| BindError::Volumes(error.to_string());
        for step in &self.steps {
            match step {
                Step::Volume(key, patch) => {
                    self.client.patch::<PersistentVolume>(key, patch).await.map_err(refused)?;
                }
                Step::Claim(key, patch) => {
                    self.client.patch::<PersistentVolumeClaim>(key, patch).await.map_err(refused)?;
                }
            }
        }
        let bound = tokio::time::timeout(PATIENCE, self.claims_are_bound(bindings)).await;
        bound.unwrap_or_else(|_| Err(BindError::Volumes("context deadline exceeded".to_owned())))
    }

    async fn claims_are_bound(&self, bindings: &Bindings) -> Result<(), BindError> {
        let mut dirty = self.claims.subscribe();
        // A claim that was given its node has said so in the answer to the patch; the informer may be behind.
        let mut seen_selected = vec![false; bindings.provision.len()];
        loop {
            let mut unbound = bindings.volumes.iter().filter(|(key, _)| !self.is_bound(key)).count();
            for (seen, key) in seen_selected.iter_mut().zip(&bindings.provision) {
                let claim = self.claims.get(key);
                let is_selected = claim.as_ref().is_some_and(|claim| self.is_selected(claim));
                // Whoever makes volumes takes the node away if it cannot make one for it, and the pod is decided on anew.
                if *seen && !is_selected {
                    return Err(BindError::Volumes(format!("selectedNode annotation reset for PVC {:?}", key.name)));
                }
                *seen |= is_selected;
                unbound += usize::from(!self.is_bound(key));
            }
            if unbound == 0 {
                return Ok(());
            }
            dirty.next().await;
        }
    }

    fn is_selected(&self, claim: &Arc<PersistentVolumeClaim>) -> bool {
        volumes::annotation(&claim.metadata, SELECTED_NODE) == Some(&*self.node)
    }

    fn is_bound(&self, key: &Key) -> bool {
        self.claims.get(key).is_some_and(|claim| volumes::is_bound(&claim))
    }
}
