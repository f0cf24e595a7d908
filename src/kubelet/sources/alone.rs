//! Whether a static pod stands alone: pure.
//!
//! A static pod runs whether or not there is an API server, so that it may refer to none of its objects
//! (`HasAPIObjectReference` of `pkg/api/pod` upstream, which its kubelet asks since 1.34). Claims of volumes, secrets and the
//! rest are named as there.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, PodSpec, Volume};

/// What a pod refers to that only the API server has, the plural of its kind.
pub(super) fn reference(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let pull_secrets = spec.image_pull_secrets.iter().flatten().any(|secret| !secret.name.is_empty());
    if pull_secrets || containers().any(needs_secret) || volumes(spec).any(is_of_secret) {
        return Some("secrets");
    }
    if containers().any(needs_config_map) || volumes(spec).any(is_of_config_map) {
        return Some("configmaps");
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return Some("resourceclaims");
    }
    volumes(spec).find_map(of_volume)
}

fn volumes(spec: &PodSpec) -> impl Iterator<Item = &Volume> {
    spec.volumes.iter().flatten()
}

fn env(container: &Container) -> (impl Iterator<Item = &EnvFromSource>, impl Iterator<Item = &EnvVar>) {
    (container.env_from.iter().flatten(), container.env.iter().flatten())
}

fn needs_secret(container: &Container) -> bool {
    let (mut from, mut each) = env(container);
    from.any(|source| source.secret_ref.is_some())
        || each.any(|one| one.value_from.as_ref().is_some_and(|source| source.secret_key_ref.is_some()))
}

fn needs_config_map(container: &Container) -> bool {
    let (mut from, mut each) = env(container);
    from.any(|source| source.config_map_ref.is_some())
        || each.any(|one| one.value_from.as_ref().is_some_and(|source| source.config_map_key_ref.is_some()))
}

fn is_of_secret(volume: &Volume) -> bool {
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    volume.secret.is_some()
        || projected.into_iter().any(|source| source.secret.is_some())
        || volume.azure_file.is_some()
        || volume.csi.as_ref().is_some_and(|csi| csi.node_publish_secret_ref.is_some())
        || volume.cephfs.as_ref().is_some_and(|ceph| ceph.secret_ref.is_some())
        || volume.cinder.as_ref().is_some_and(|cinder| cinder.secret_ref.is_some())
        || volume.flex_volume.as_ref().is_some_and(|flex| flex.secret_ref.is_some())
        || volume.rbd.as_ref().is_some_and(|rbd| rbd.secret_ref.is_some())
        || volume.scale_io.as_ref().is_some_and(|scale| !scale.secret_ref.name.is_empty())
        || volume.iscsi.as_ref().is_some_and(|iscsi| iscsi.secret_ref.is_some())
        || volume.storageos.as_ref().is_some_and(|storage| storage.secret_ref.is_some())
}

fn is_of_config_map(volume: &Volume) -> bool {
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    volume.config_map.is_some() || projected.into_iter().any(|source| source.config_map.is_some())
}

fn of_volume(volume: &Volume) -> Option<&'static str> {
    if volume.csi.is_some() {
        return Some("csidrivers (via CSI volumes)");
    }
    if volume.glusterfs.is_some() {
        return Some("endpoints (via glusterFS volumes)");
    }
    if volume.persistent_volume_claim.is_some() {
        return Some("persistentvolumeclaims");
    }
    if volume.ephemeral.is_some() {
        return Some("persistentvolumeclaims (via ephemeral volumes)");
    }
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    projected.into_iter().find_map(|source| {
        if source.service_account_token.is_some() {
            Some("serviceaccounts (via projected volumes)")
        } else if source.cluster_trust_bundle.is_some() {
            Some("clustertrustbundles")
        } else if source.pod_certificate.is_some() {
            Some("podcertificates")
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(field: &str, value: Value) -> Option<&'static str> {
        let mut spec = json!({"containers": [{"name": "c"}]});
        spec[field] = value;
        reference(&serde_json::from_value(spec).expect("a spec"))
    }

    #[test]
    fn what_the_api_server_alone_has_is_named() {
        let volume = |volume: Value| {
            let mut named = volume;
            named["name"] = json!("v");
            found("volumes", json!([named]))
        };
        let projected = |source: Value| volume(json!({"projected": {"sources": [source]}}));
        let env =
            |source: Value| found("containers", json!([{"name": "c", "env": [{"name": "A", "valueFrom": source}]}]));
        assert_eq!(found("serviceAccountName", json!("default")), Some("serviceaccounts"));
        assert_eq!(found("imagePullSecrets", json!([{"name": "s"}])), Some("secrets"));
        assert_eq!(env(json!({"secretKeyRef": {"name": "s", "key": "k"}})), Some("secrets"));
        assert_eq!(env(json!({"configMapKeyRef": {"name": "s", "key": "k"}})), Some("configmaps"));
        let init = json!([{"name": "i", "envFrom": [{"configMapRef": {"name": "m"}}]}]);
        assert_eq!(found("initContainers", init), Some("configmaps"));
        assert_eq!(volume(json!({"secret": {"secretName": "s"}})), Some("secrets"));
        assert_eq!(volume(json!({"configMap": {"name": "m"}})), Some("configmaps"));
        assert_eq!(projected(json!({"configMap": {"name": "m"}})), Some("configmaps"));
        let token = projected(json!({"serviceAccountToken": {"path": "t"}}));
        assert_eq!(token, Some("serviceaccounts (via projected volumes)"));
        let claim = volume(json!({"persistentVolumeClaim": {"claimName": "c"}}));
        assert_eq!(claim, Some("persistentvolumeclaims"));
        assert_eq!(volume(json!({"csi": {"driver": "d"}})), Some("csidrivers (via CSI volumes)"));
        assert_eq!(found("resourceClaims", json!([{"name": "r"}])), Some("resourceclaims"));
    }

    #[test]
    fn what_the_node_has_may_be_used() {
        let volumes = json!([
            {"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/x"}},
            {"name": "c", "downwardAPI": {}}, {"name": "d", "projected": {"sources": [{"downwardAPI": {}}]}},
            {"name": "e", "image": {"reference": "i"}}, {"name": "f", "nfs": {"server": "s", "path": "/"}},
        ]);
        assert_eq!(found("volumes", volumes), None);
        let own =
            json!([{"name": "c", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]);
        assert_eq!(found("containers", own), None);
    }
}
