//! What an earlier run of the agent left: checkpointed pods and sandboxes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use runtime::{SandboxId, SandboxStatus};

use super::SOURCE;

/// A pod that was here before.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The pod as checkpointed, or no more than its name and UID.
    pub(crate) pod: Pod,
    /// Its sandboxes.
    pub(crate) sandboxes: Vec<SandboxId>,
    /// Whether it is known what the pod shall be. Static pods are for their manifests to say.
    pub(crate) known: bool,
}

/// Puts checkpoints below `pods` and sandboxes together.
pub(crate) fn find(pods: &Path, sandboxes: &[SandboxStatus]) -> io::Result<Vec<Found>> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for (uid, pod) in checkpoints(pods)? {
        let from_api = pod.metadata.annotations.as_ref().is_none_or(|notes| !notes.contains_key(SOURCE));
        let known = from_api && pod.spec.is_some();
        found.insert(uid, Found { pod, sandboxes: Vec::new(), known });
    }
    for sandbox in sandboxes {
        let spec = &sandbox.spec;
        let stranger = || Found {
            pod: Pod { metadata: name(&spec.pod_uid, &spec.namespace, &spec.name), ..Pod::default() },
            sandboxes: Vec::new(),
            known: false,
        };
        found.entry(spec.pod_uid.clone()).or_insert_with(stranger).sandboxes.push(spec.id.clone());
    }
    Ok(found.into_values().collect())
}

fn checkpoints(pods: &Path) -> io::Result<Vec<(String, Pod)>> {
    let entries = match fs::read_dir(pods) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let uid = entry.file_name().to_string_lossy().into_owned();
        let read = fs::read(entry.path().join("pod.json")).ok();
        let pod = read.and_then(|text| serde_json::from_slice::<Pod>(&text).ok());
        // A directory without a readable checkpoint still has to be removed when nobody knows its pod.
        let pod = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(&uid));
        let pod = pod.unwrap_or_else(|| Pod { metadata: name(&uid, "", ""), ..Pod::default() });
        found.push((uid, pod));
    }
    Ok(found)
}

fn name(uid: &str, namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        uid: Some(uid.to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
