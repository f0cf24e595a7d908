//! The checks that the level `restricted` has beyond those of `baseline`, in the order of upstream's names for them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Version;
use super::baseline::{confines, seccomp};
use super::violations::{Pod, Violation, containers, plural, quoted, quoted_set, violation};
use crate::resources::path::{items, present, text};

const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
/// What else a volume may be; newer kinds have no name here.
const OTHER_VOLUMES: [&str; 20] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

/// What a pod violates.
pub(super) fn check(pod: &Pod<'_>, version: Version) -> Vec<Violation> {
    // Since 1.25 what Linux alone has is not asked of pods that say they are for Windows.
    let is_linux = !(version.is_since(25) && pod.is_windows());
    let found = [
        (version.is_since(8) && is_linux).then(|| escalation(pod)).flatten(),
        (version.is_since(22) && is_linux).then(|| capabilities(pod)).flatten(),
        volumes(pod),
        not_root(pod, version),
        version.is_since(23).then(|| user(pod, version)).flatten(),
        (version.is_since(19) && is_linux).then(|| profiles(pod)).flatten(),
    ];
    found.into_iter().flatten().collect()
}

fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    let bad = pod.bad(|context| context["allowPrivilegeEscalation"] != false);
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
        violation("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let has_all = |context: &Value| items(&context["capabilities"], "drop").iter().any(|name| name == "ALL");
    let missing = pod.bad(|context| !has_all(context));
    let mut added = BTreeSet::new();
    let adding = pod.bad(|context| {
        let own = items(&context["capabilities"], "add").iter().filter_map(Value::as_str);
        let own: Vec<&str> = own.filter(|name| *name != "NET_BIND_SERVICE").collect();
        added.extend(own.iter().map(|name| (*name).to_owned()));
        !own.is_empty()
    });
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&missing)));
    }
    if !adding.is_empty() {
        let added = quoted_set(&added);
        details.push(format!("{} must not include {added} in securityContext.capabilities.add", containers(&adding)));
    }
    (!details.is_empty()).then(|| violation("unrestricted capabilities", details.join("; ")))
}

fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in items(pod.spec, "volumes") {
        // A volume of no kind is an empty directory.
        let is_plain = volume.as_object().is_none_or(|map| map.keys().all(|key| key == "name"));
        if is_plain || VOLUMES.into_iter().any(|kind| present(volume, kind)) {
            continue;
        }
        names.push(text(volume, "name"));
        kinds.insert(OTHER_VOLUMES.into_iter().find(|kind| present(volume, kind)).unwrap_or("unknown").to_owned());
    }
    (!names.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural("restricted volume type", "restricted volume types", kinds.len()),
            quoted_set(&kinds),
        );
        violation("restricted volume types", detail)
    })
}

/// Root of a user namespace of the pod's own is nobody outside (KEP-127).
fn is_nobody(pod: &Pod<'_>, version: Version) -> bool {
    version.is_since(35) && pod.spec["hostUsers"] == false
}

fn not_root(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if is_nobody(pod, version) {
        return None;
    }
    if let Some(setters) = pod.setters(|context| context["runAsNonRoot"] == false) {
        return Some(violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false")));
    }
    if pod.context()["runAsNonRoot"] == true {
        return None;
    }
    let bad = pod.bad(|context| !present(context, "runAsNonRoot"));
    (!bad.is_empty())
        .then(|| violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&bad))))
}

fn user(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if is_nobody(pod, version) {
        return None;
    }
    let setters = pod.setters(|context| context["runAsUser"] == 0)?;
    Some(violation("runAsUser=0", format!("{setters} must not set runAsUser=0")))
}

fn profiles(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(explicit) = seccomp(pod) {
        return Some(explicit);
    }
    if confines(text(&pod.context()["seccompProfile"], "type")) {
        return None;
    }
    let bad = pod.bad(|context| !present(context, "seccompProfile"));
    (!bad.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&bad)
        );
        violation("seccompProfile", detail)
    })
}
