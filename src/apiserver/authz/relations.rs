//! Which objects concern a node: the pods bound to it and what these name, and the volumes of the claims among that.

use serde_json::Value;

/// Whether a pod is bound to a node.
pub(crate) fn is_bound(pod: &Value, node: &str) -> bool {
    pod["spec"]["nodeName"].as_str() == Some(node)
}

/// The claim that a volume is bound to: its namespace and name.
pub(crate) fn claim_of(volume: &Value) -> Option<(&str, &str)> {
    let reference = &volume["spec"]["claimRef"];
    Some((reference["namespace"].as_str()?, reference["name"].as_str()?))
}

/// Whether a pod uses a claim, which may have been made for it alone.
fn uses_claim(pod: &Value, name: &str) -> bool {
    let own = pod["metadata"]["name"].as_str().unwrap_or_default();
    pod["spec"]["volumes"].as_array().into_iter().flatten().any(|volume| {
        let made = || volume["name"].as_str().map(|volume| format!("{own}-{volume}"));
        volume["persistentVolumeClaim"]["claimName"] == name
            || volume["ephemeral"].is_object() && made().as_deref() == Some(name)
    })
}

/// Whether a pod needs an object of this resource (`secrets`, `configmaps`, `serviceaccounts`, claims) and name, as
/// `VisitPodSecretNames` and `VisitPodConfigmapNames` of `pkg/api/v1/pod` find them.
pub(crate) fn names(pod: &Value, resource: &str, name: &str) -> bool {
    let spec = &pod["spec"];
    let is = |value: &Value| value.as_str() == Some(name);
    let any = |list: &Value, check: &dyn Fn(&Value) -> bool| list.as_array().into_iter().flatten().any(check);
    let (reference, volume, volume_name, key) = match resource {
        "serviceaccounts" => {
            return is(&spec["serviceAccountName"]);
        }
        "persistentvolumeclaims" => return uses_claim(pod, name),
        "secrets" => ("secretRef", "secret", "secretName", "secretKeyRef"),
        "configmaps" => ("configMapRef", "configMap", "name", "configMapKeyRef"),
        _ => return false,
    };
    let container = |container: &Value| {
        any(&container["env"], &|env| is(&env["valueFrom"][key]["name"]))
            || any(&container["envFrom"], &|from| is(&from[reference]["name"]))
    };
    let in_volume = |entry: &Value| {
        is(&entry[volume][volume_name])
            || any(&entry["projected"]["sources"], &|source| is(&source[volume]["name"]))
            || (resource == "secrets" && names_driver_secret(entry, name))
    };
    let pulls = resource == "secrets" && any(&spec["imagePullSecrets"], &|secret| is(&secret["name"]));
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    pulls || any(&spec["volumes"], &in_volume) || containers.into_iter().any(|list| any(&spec[list], &container))
}

/// Volume sources that carry a secret for their driver.
fn names_driver_secret(volume: &Value, name: &str) -> bool {
    let sources = ["cephfs", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
    sources.into_iter().any(|source| volume[source]["secretRef"]["name"].as_str() == Some(name))
        || volume["csi"]["nodePublishSecretRef"]["name"].as_str() == Some(name)
        || volume["azureFile"]["secretName"].as_str() == Some(name)
}
