//! What a volume of a pod is, once claims have been looked up.
//!
//! After `createVolumeSpec` of `pkg/kubelet/volumemanager/populator`: a claim must be bound, and both sides must say so,
//! before anything is mounted.

use client::{Client, Key, Object};
use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};

use super::{Problem, kind_of};
use crate::shared::Shared;

/// Where the content of a volume comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// A path of the host.
    HostPath(HostPathVolumeSource),
    /// A directory of this node that a PersistentVolume stands for.
    Local(String),
    /// What a server exports.
    Nfs { server: String, path: String, options: Vec<String> },
    /// An empty directory.
    EmptyDir(EmptyDirVolumeSource),
    /// The files of an image.
    Image(ImageVolumeSource),
    /// Objects of the API; the kind as it is in paths.
    Api(&'static str),
}

/// A volume that can be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) source: Source,
    /// Whether nobody may write to it.
    pub(super) read_only: bool,
    /// What its directory is called: the name of a PersistentVolume, or else that within the pod.
    pub(super) name: String,
}

/// The claim that a volume of a pod uses, and whether it is made for that pod alone.
pub(super) fn claim_name(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    match &volume.persistent_volume_claim {
        Some(source) => Some((source.claim_name.clone(), false)),
        None => volume.ephemeral.as_ref().map(|_| (format!("{own}-{}", volume.name), true)),
    }
}

/// What a volume is.
pub(super) async fn find(shared: &Shared, pod: &Pod, volume: &Volume) -> Result<Found, Problem> {
    if claim_name(pod, volume).is_some() {
        let (claim, persistent) = bound(shared, pod, volume).await?;
        if claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
            let name = claim.metadata.name.unwrap_or_default();
            return Err(Problem::Block { claim: name });
        }
        let read_only = volume.persistent_volume_claim.as_ref().and_then(|source| source.read_only) == Some(true);
        return of_persistent(&persistent, read_only);
    }
    of_pod(volume)
}

/// A volume that the pod itself describes.
pub(super) fn of_pod(volume: &Volume) -> Result<Found, Problem> {
    let source = match volume {
        Volume { host_path: Some(source), .. } => Source::HostPath(source.clone()),
        Volume { empty_dir: Some(source), .. } => Source::EmptyDir(source.clone()),
        Volume { image: Some(source), .. } => Source::Image(source.clone()),
        Volume { nfs: Some(nfs), .. } => {
            Source::Nfs { server: nfs.server.clone(), path: nfs.path.clone(), options: Vec::new() }
        }
        Volume { config_map: Some(_), .. } => Source::Api("configmap"),
        Volume { downward_api: Some(_), .. } => Source::Api("downward-api"),
        Volume { secret: Some(_), .. } => Source::Api("secret"),
        Volume { projected: Some(_), .. } => Source::Api("projected"),
        other => return Err(Problem::Unsupported { kind: kind_of(other) }),
    };
    let read_only = match &source {
        Source::Api(_) | Source::Image(_) => true,
        Source::Nfs { .. } => volume.nfs.as_ref().and_then(|nfs| nfs.read_only) == Some(true),
        Source::HostPath(_) | Source::Local(_) | Source::EmptyDir(_) => false,
    };
    Ok(Found { source, read_only, name: volume.name.clone() })
}

/// A volume that a PersistentVolume describes.
fn of_persistent(volume: &PersistentVolume, read_only: bool) -> Result<Found, Problem> {
    let spec = volume.spec.clone().unwrap_or_default();
    let name = volume.metadata.name.clone().unwrap_or_default();
    let nfs_read_only = spec.nfs.as_ref().and_then(|nfs| nfs.read_only) == Some(true);
    let source = if let Some(source) = spec.host_path {
        Source::HostPath(source)
    } else if let Some(local) = spec.local {
        Source::Local(local.path)
    } else if let Some(nfs) = spec.nfs {
        Source::Nfs { server: nfs.server, path: nfs.path, options: spec.mount_options.unwrap_or_default() }
    } else {
        return Err(Problem::Unsupported { kind: format!("PersistentVolume {name} ({})", kind_of_persistent(volume)) });
    };
    Ok(Found { source, read_only: read_only || nfs_read_only, name })
}

/// The source of a volume as it is written: the one property whose value is an object and no setting of all kinds.
fn kind_of_persistent(volume: &PersistentVolume) -> String {
    const SETTINGS: [&str; 3] = ["capacity", "claimRef", "nodeAffinity"];
    let spec = serde_json::to_value(&volume.spec).unwrap_or_default();
    let sources = spec
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| value.is_object() && !SETTINGS.contains(&name.as_str()));
    sources.map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", ")
}

/// A claim and the volume that it is bound to.
async fn bound(
    shared: &Shared,
    pod: &Pod,
    volume: &Volume,
) -> Result<(PersistentVolumeClaim, PersistentVolume), Problem> {
    let (name, is_own) = claim_name(pod, volume).unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let refused = |message: String| Problem::Claim { namespace: namespace.clone(), name: name.clone(), message };
    let Some(client) = &shared.client else {
        return Err(refused("failed to fetch PVC from API server: there is none".to_owned()));
    };
    let claim: PersistentVolumeClaim = get(client, &Key::namespaced(&namespace, &name))
        .await
        .map_err(|text| refused(format!("failed to fetch PVC from API server: {text}")))?;
    check_claim(&claim, pod, is_own).map_err(refused)?;
    let volume_name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    let persistent: PersistentVolume = get(client, &Key::cluster(&volume_name))
        .await
        .map_err(|text| refused(format!("failed to get PV spec for volume {volume_name:?}: {text}")))?;
    check_volume(&persistent, &claim).map_err(refused)?;
    check_exclusive(shared, pod, &claim, &name)?;
    Ok((claim, persistent))
}

async fn get<K: Object>(client: &Client, key: &Key) -> Result<K, String> {
    client.get(key).await.map_err(|error| error.to_string())
}

/// Whether a claim may be used, in upstream's words.
fn check_claim(claim: &PersistentVolumeClaim, pod: &Pod, is_own: bool) -> Result<(), String> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    let is_owner = |uid: &String| Some(uid) == pod.metadata.uid.as_ref();
    if is_own && !owners.iter().any(|owner| owner.controller == Some(true) && is_owner(&owner.uid)) {
        let (namespace, name, pod) =
            (text(&claim.metadata.namespace), text(&claim.metadata.name), text(&pod.metadata.name));
        return Err(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        return Err("PVC is not bound".to_owned());
    }
    if claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default().is_empty() {
        return Err("PVC has empty pvc.Spec.VolumeName".to_owned());
    }
    Ok(())
}

fn check_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(reference) = reference else {
        return Err(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        ));
    };
    if reference.uid != claim.metadata.uid {
        let text = |uid: &Option<String>| uid.clone().unwrap_or_default();
        return Err(format!(
            "found PV object {name} but its pv.Spec.ClaimRef.UID {} does not point to claim.UID {}",
            text(&reference.uid),
            text(&claim.metadata.uid)
        ));
    }
    Ok(())
}

/// A claim that one pod may use is refused to any other as long as one on this node has it (KEP-2485).
fn check_exclusive(shared: &Shared, pod: &Pod, claim: &PersistentVolumeClaim, name: &str) -> Result<(), Problem> {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    if !modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        return Ok(());
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let key = format!("{}/{name}", pod.metadata.namespace.as_deref().unwrap_or_default());
    if shared.take_claim(&key, uid, |other| uses(other, pod, name)) { Ok(()) } else { Err(Problem::InUse) }
}

/// Whether another pod uses the claim.
fn uses(other: &Pod, pod: &Pod, name: &str) -> bool {
    let volumes = other.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    other.metadata.namespace == pod.metadata.namespace
        && volumes.into_iter().filter_map(|volume| claim_name(other, volume)).any(|(used, _)| used == name)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn read<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn claim(change: &Value) -> PersistentVolumeClaim {
        let mut value = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "claim-1"},
            "spec": {"volumeName": "disk"}, "status": {"phase": "Bound"},
        });
        for (name, part) in change.as_object().expect("an object") {
            for (key, own) in part.as_object().expect("an object") {
                value[name][key] = own.clone();
            }
        }
        read(value)
    }

    #[test]
    fn a_claim_must_be_bound_and_stay_so() {
        let pod: Pod = read(json!({"metadata": {"name": "p", "namespace": "default", "uid": "pod-1"}}));
        let check = |change, is_own| check_claim(&claim(&change), &pod, is_own);
        assert_eq!(check(json!({}), false), Ok(()));
        let cases = [
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), "PVC is being deleted"),
            (json!({"status": {"phase": "Pending"}}), "PVC is not bound"),
            (json!({"status": {"phase": "Lost"}}), "PVC is not bound"),
            (json!({"spec": {"volumeName": null}}), "PVC has empty pvc.Spec.VolumeName"),
        ];
        for (change, words) in cases {
            assert_eq!(check(change, false), Err(words.to_owned()));
        }
        let stranger = "PVC default/web was not created for pod default/p (pod is not owner)";
        assert_eq!(check(json!({}), true), Err(stranger.to_owned()));
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod-1", "controller": true}]);
        assert_eq!(check(json!({"metadata": {"ownerReferences": owner}}), true), Ok(()));
    }

    #[test]
    fn a_volume_must_refer_to_its_claim() {
        let volume = |reference: Value| -> PersistentVolume {
            read(json!({"metadata": {"name": "disk"}, "spec": {"claimRef": reference}}))
        };
        assert_eq!(check_volume(&volume(json!({"uid": "claim-1"})), &claim(&json!({}))), Ok(()));
        let unbound = check_volume(&volume(Value::Null), &claim(&json!({}))).expect_err("an objection");
        assert!(unbound.contains("nil pv.Spec.ClaimRef"), "{unbound}");
        let other = check_volume(&volume(json!({"uid": "claim-2"})), &claim(&json!({}))).expect_err("an objection");
        assert!(other.contains("does not point to claim.UID claim-1"), "{other}");
    }

    #[test]
    fn a_persistent_volume_is_what_its_source_says_and_others_are_named() {
        let of = |spec: Value, read_only| {
            of_persistent(&read(json!({"metadata": {"name": "disk"}, "spec": spec})), read_only)
        };
        let local = of(json!({"local": {"path": "/disks/a"}}), true).expect("a volume");
        assert_eq!(
            local,
            Found { source: Source::Local("/disks/a".to_owned()), read_only: true, name: "disk".to_owned() }
        );
        let nfs = json!({"nfs": {"server": "files", "path": "/a", "readOnly": true}, "mountOptions": ["nfsvers=4.1"]});
        let nfs = of(nfs, false).expect("a volume");
        assert!(nfs.read_only);
        assert!(matches!(nfs.source, Source::Nfs { options, .. } if options == ["nfsvers=4.1"]));
        let error = of(json!({"capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "v"}}), false);
        let words = "volumes of this kind are not supported: PersistentVolume disk (csi)";
        assert_eq!(error.expect_err("an error").to_string(), words);
    }
}
