use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// A pod: its name, and what is told of it.
fn pod(name: &str, told: &str) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "creationTimestamp": "2026-01-02T03:00:00Z", "annotations": {} },
        "spec": { "containers": [], "nodeName": "n1" }, "status": { "phase": "Running" },
    });
    for word in told.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("unbound", _) => drop(pod["spec"].as_object_mut().unwrap().remove("nodeName")),
            ("node", name) => pod["spec"]["nodeName"] = json!(name),
            ("phase", phase) => pod["status"]["phase"] = json!(phase),
            ("ready", since) => {
                let at = format!("2026-01-02T03:{since}Z");
                pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": at }]);
            }
            ("cost", cost) => {
                pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] = json!(cost);
            }
            ("restarts", count) => {
                let count: i32 = count.parse().unwrap();
                pod["status"]["containerStatuses"] = json!([
                    { "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": count }
                ]);
            }
            ("deleting", _) => pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:00Z"),
            other => panic!("{other:?}"),
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[test]
fn pods_that_have_ended_or_are_going_are_replaced() {
    let pods = [pod("a", ""), pod("b", "phase=Failed"), pod("c", "deleting"), pod("d", "phase=Succeeded")];
    assert_eq!(plan(3, &pods, now()), Plan::Create(2));
    assert_eq!(plan(1, &pods, now()), Plan::Nothing);
    assert_eq!(plan(10_000, &pods, now()), Plan::Create(BURST));
}

#[test]
fn what_can_be_spared_most_goes_first() {
    let pods = [
        pod("old", "ready=00:00"),
        pod("young", "ready=04:00"),
        pod("shaky", "ready=00:00 restarts=9"),
        pod("dear", "ready=00:00 cost=10"),
        pod("crowded-1", "ready=00:00 node=n2"),
        pod("unready", ""),
        pod("starting", "phase=Pending"),
        pod("unbound", "phase=Pending unbound"),
    ];
    let Plan::Delete(order) = plan(0, &pods, now()) else { panic!("nothing is deleted") };
    let order: Vec<_> = order.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(order, ["unbound", "starting", "unready", "young", "shaky", "old", "crowded-1", "dear"]);
}

#[test]
fn a_pod_is_available_once_it_has_been_ready_for_long_enough() {
    let pods = [pod("a", "ready=03:00"), pod("b", "ready=04:00"), pod("c", "")];
    let seen = Seen { min_ready: 30, pods: &pods, now: now() };
    assert_eq!(next_look(&seen), Some(Duration::from_secs(25)));
    let set: ReplicaSet = serde_json::from_value(json!({
        "metadata": { "name": "set", "generation": 4 },
        "spec": { "selector": {}, "minReadySeconds": 30, "template": { "metadata": { "labels": { "app": "x" } } } },
    }))
    .unwrap();
    let told = status(&seen, &set, None);
    assert_eq!((told.replicas, told.ready_replicas, told.available_replicas), (3, Some(2), Some(1)));
    assert_eq!((told.fully_labeled_replicas, told.observed_generation), (None, Some(4)));
}
