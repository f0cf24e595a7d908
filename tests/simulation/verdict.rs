//! What is wrong with a cluster that should have come to rest.

use std::collections::{BTreeMap, BTreeSet};

use runtime::{ContainerState, Runtime};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::expectation::Policy;
use crate::node::Node;
use crate::workload::Expected;

/// Everything that is not as it must be.
pub(crate) async fn problems(cluster: &Cluster, expected: &[Expected]) -> Vec<String> {
    let mut problems = Vec::new();
    let objects = cluster.admin.list("/api/v1/pods").await;
    let objects: BTreeMap<String, Value> =
        objects.into_iter().map(|pod| (pod["metadata"]["uid"].as_str().unwrap().to_owned(), pod)).collect();
    for pod in expected {
        let judged = judge(cluster, pod, objects.get(&pod.uid));
        problems.extend(judged.map(|text| format!("{}/{} {}: {text}", pod.namespace, pod.name, pod.uid)));
    }
    for uid in objects.keys().filter(|uid| !expected.iter().any(|pod| pod.uid == **uid)) {
        problems.push(format!("nobody made {uid}"));
    }
    for node in &cluster.nodes {
        let judged = judge_node(node, &objects).await;
        problems.extend(judged.into_iter().map(|text| format!("{}: {text}", node.name)));
    }
    for namespace in cluster.admin.list("/api/v1/namespaces").await {
        if namespace["status"]["phase"] != "Active" {
            problems.push(format!("namespace {} still ends", namespace["metadata"]["name"]));
        }
    }
    problems
}

fn judge(cluster: &Cluster, expected: &Expected, object: Option<&Value>) -> Option<String> {
    if expected.policy == Policy::Never {
        let twice = expected.apps.iter().find(|app| cluster.ground.ledger.starts(&expected.uid, app) > 1);
        if let Some(app) = twice {
            return Some(format!("{app} was started again"));
        }
    }
    match (object, expected.deleted) {
        (None, true) => None,
        (Some(_), true) => Some("deleted, but still there".to_owned()),
        (None, false) => Some("gone, but never deleted".to_owned()),
        (Some(pod), false) => {
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            let may_fail = expected.has_deadline || (expected.was_hit && expected.policy == Policy::Never);
            let fits = phase == expected.phase || (may_fail && phase == "Failed");
            let fits = fits && pod["metadata"]["deletionTimestamp"].is_null();
            (!fits).then(|| format!("is {phase}, expected {}", expected.phase))
        }
    }
}

/// What a node has beyond the pods bound to it, or short of them.
async fn judge_node(node: &Node, objects: &BTreeMap<String, Value>) -> Vec<String> {
    let mut problems = Vec::new();
    let own = |uid: &str| objects.get(uid).filter(|pod| pod["spec"]["nodeName"] == node.name.as_str());
    let sandboxes = node.runtime.list().await.unwrap();
    let mut seen = BTreeSet::new();
    for sandbox in &sandboxes {
        let (id, uid) = (&sandbox.spec.id, &sandbox.spec.pod_uid);
        match own(uid) {
            None => problems.push(format!("sandbox {id} without a pod")),
            Some(pod) if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) => {
                problems.push(format!("sandbox {id} of a pod that is over"));
            }
            Some(_) if !seen.insert(uid.clone()) => problems.push(format!("sandbox {id} beside another")),
            Some(pod) => problems.extend(compare_containers(pod, &sandbox.containers)),
        }
    }
    let ids: BTreeSet<&str> = sandboxes.iter().map(|sandbox| sandbox.spec.id.0.as_str()).collect();
    let taken = node.network.attached();
    problems.extend(
        taken.iter().filter(|id| !ids.contains(id.as_str())).map(|id| format!("{id} has an address and no sandbox")),
    );
    let files: BTreeSet<String> = node.pods_with_files().into_iter().collect();
    problems.extend(files.iter().filter(|uid| own(uid).is_none()).map(|uid| format!("{uid} has files and no pod")));
    let running = objects
        .values()
        .filter(|pod| pod["spec"]["nodeName"] == node.name.as_str() && pod["status"]["phase"] == "Running");
    for pod in running {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        if !seen.contains(uid) {
            problems.push(format!("{uid} runs without a sandbox"));
        }
    }
    problems
}

/// Whether a pod's object tells the truth about its running containers.
fn compare_containers(pod: &Value, containers: &[runtime::ContainerStatus]) -> Vec<String> {
    let mut problems = Vec::new();
    let lists = ["initContainerStatuses", "containerStatuses"];
    for status in lists.iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten()) {
        let name = status["name"].as_str().unwrap();
        let alive =
            containers.iter().filter(|one| one.name == name && matches!(one.state, ContainerState::Running { .. }));
        let alive: Vec<String> = alive.map(|one| format!("coracle://{}", one.id)).collect();
        let said: Vec<String> = (!status["state"]["running"].is_null())
            .then(|| status["containerID"].as_str().unwrap_or_default().to_owned())
            .into_iter()
            .collect();
        if alive != said {
            problems.push(format!("{name} is said to run as {said:?} and does as {alive:?}"));
        }
    }
    problems
}
