//! Fields of a pod that nothing here acts on: whoever sets one is told so, by a warning of the API and an event of the pod.
//!
//! One table for both, so that a field leaves it when something begins to act on it. What is checked and refused is not
//! here, nor what a node without the means (SELinux, say) says itself. `testdata/fields.txt` holds the table against the
//! schema: every field of a pod stands there as implemented, refused or warned about.

use std::net::Ipv6Addr;

use serde_json::Value;

use crate::resources::path::Path;

/// Whether a value at the path, which is not null, asks for something; the first is the spec.
type Asks = fn(&Value, &Value) -> bool;

/// Sources of volumes that no node here mounts.
const SOURCES: [&str; 20] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "iscsi",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// Paths below the spec. `name[]` stands for every item of a list.
const POD: &[(&str, Asks)] = &[
    ("schedulingGroup", any),
    ("securityContext.seLinuxChangePolicy", any),
    ("securityContext.seLinuxOptions", any),
    ("securityContext.windowsOptions", any),
    ("volumes[].projected.sources[].clusterTrustBundle", any),
    ("volumes[].projected.sources[].podCertificate", any),
];

/// Paths below each container, of whichever sort.
const CONTAINER: &[(&str, Asks)] = &[
    ("ports[].hostIP", is_out_of_reach),
    ("securityContext.seLinuxOptions", any),
    ("securityContext.windowsOptions", any),
    ("volumeDevices", any),
];

/// Paths, from `at` on, of what a spec asks for and does not get.
pub fn idle_fields(spec: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let root = Path::new(at);
    for (path, asks) in POD {
        visit(spec, &root, path, &mut |path, value| {
            if asks(spec, value) {
                found.push(path.to_string());
            }
        });
    }
    for source in SOURCES {
        visit(spec, &root, &format!("volumes[].{source}"), &mut |path, _| found.push(path.to_string()));
    }
    for list in ["initContainers[]", "containers[]", "ephemeralContainers[]"] {
        for (path, asks) in CONTAINER {
            visit(spec, &root, &format!("{list}.{path}"), &mut |path, value| {
                if asks(spec, value) {
                    found.push(path.to_string());
                }
            });
        }
    }
    found
}

/// What the writer of a pod is told.
pub(in crate::resources) fn warn(spec: &Value, at: &str) -> Vec<String> {
    let tell = |path| format!("{path}: no node or scheduler here acts on this field");
    idle_fields(spec, at).into_iter().map(tell).collect()
}

fn visit(value: &Value, path: &Path, rest: &str, found: &mut dyn FnMut(&Path, &Value)) {
    let (step, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let mut go = |path: Path, value: &Value| match rest {
        _ if value.is_null() => (),
        "" => found(&path, value),
        rest => visit(value, &path, rest, found),
    };
    if let Some(list) = step.strip_suffix("[]") {
        for (index, item) in value[list].as_array().into_iter().flatten().enumerate() {
            go(path.child(list).index(index), item);
        }
    } else {
        go(path.child(step), &value[step]);
    }
}

/// Go's zero values say nothing.
fn any(_: &Value, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Number(_) | Value::Object(_) => true,
    }
}

/// Where pods have addresses of IPv4 only, nothing comes to them by one of IPv6, and whether they have more is not known
/// here. In the host's network they listen themselves.
fn is_out_of_reach(spec: &Value, address: &Value) -> bool {
    let address = address.as_str().and_then(|text| text.parse::<Ipv6Addr>().ok());
    spec["hostNetwork"] != true && address.is_some_and(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_asked_for_in_vain_is_named_by_its_path() {
        let spec = json!({
            "containers": [{
                "name": "c", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}, "stopSignal": "SIGINT"},
                "ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81, "hostIP": "2001:db8::1"}],
                "stdinOnce": true, "volumeDevices": [{"name": "d", "devicePath": "/dev/d"}],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "rbd": {"image": "i", "monitors": []}}],
        });
        let expected =
            ["spec.volumes[1].rbd", "spec.containers[0].ports[1].hostIP", "spec.containers[0].volumeDevices"];
        assert_eq!(idle_fields(&spec, "spec"), expected);
    }

    #[test]
    fn ports_of_the_host_are_had_in_its_network_by_any_address() {
        let port = json!({"containerPort": 80, "hostPort": 80, "hostIP": "2001:db8::1"});
        let mut spec = json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [port]}]});
        assert_eq!(idle_fields(&spec, "spec"), [""; 0]);
        spec["hostNetwork"] = json!(false);
        assert_eq!(idle_fields(&spec, "spec"), ["spec.containers[0].ports[0].hostIP"]);
    }
}
