use serde_json::{Value, json};

use super::decide::Plan;
use super::*;

fn node(name: &str, more: Value) -> Arc<Node> {
    let mut node = json!({ "metadata": { "name": name, "labels": { "disk": "ssd" } }, "spec": {} });
    for (field, value) in more.as_object().unwrap() {
        node["spec"][field] = value.clone();
    }
    Arc::new(serde_json::from_value(node).unwrap())
}

fn set(strategy: Value, spec: Value) -> DaemonSet {
    let mut pod = json!({ "containers": [{ "name": "c", "image": "1" }] });
    for (field, value) in spec.as_object().unwrap() {
        pod[field] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": "d", "namespace": "n", "uid": "u" },
        "spec": {
            "selector": { "matchLabels": { "a": "b" } }, "updateStrategy": strategy,
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": pod },
        },
    }))
    .unwrap()
}

fn rolling() -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } })
}

/// A pod of a node and a template; `state` is `ready`, `new` or a phase.
fn pod(node: &str, hash: &str, state: &str) -> Arc<Pod> {
    let ready = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:00:00Z" }]);
    let status = match state {
        "ready" => json!({ "phase": "Running", "conditions": ready }),
        "new" => json!({ "phase": "Pending" }),
        phase => json!({ "phase": phase }),
    };
    let name = format!("{node}-{hash}-{state}");
    let metadata = json!({ "name": name, "namespace": "n", "uid": name, "labels": { "a": "b", revision::HASH: hash } });
    let pod = json!({ "metadata": metadata, "spec": { "nodeName": node, "containers": [] }, "status": status });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn plan(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Plan {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    decide(&Picture { set, nodes: nodes.to_vec(), pods: pods.to_vec(), hash: "h2".to_owned(), is_settled: true, now })
}

/// The nodes of pods that are made, and the pods that are removed.
fn done(plan: &Plan) -> (Vec<&str>, Vec<&str>) {
    let made = plan.create.iter().map(|pod| super::node::target(pod).unwrap()).collect();
    (made, plan.delete.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect())
}

#[test]
fn every_node_that_is_meant_gets_a_pod_and_others_lose_theirs() {
    let taint = |effect: &str| json!({ "taints": [{ "key": "k", "effect": effect }] });
    let nodes = [
        node("bad", taint("NoExecute")),
        node(
            "cordoned",
            json!({ "unschedulable": true, "taints": [{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }] }),
        ),
        node("full", json!({})),
        node("kept", taint("NoSchedule")),
    ];
    let pods =
        [pod("bad", "h2", "ready"), pod("full", "h2", "ready"), pod("kept", "h2", "ready"), pod("gone", "h2", "ready")];
    let set = set(rolling(), json!({ "nodeSelector": { "disk": "ssd" } }));
    let plan = plan(&set, &nodes, &pods);
    assert_eq!(done(&plan), (vec!["cordoned"], vec!["gone-h2-ready", "bad-h2-ready"]));
    let status = &plan.status;
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled), (2, 1));
    assert_eq!((status.number_misscheduled, status.number_ready, status.number_unavailable), (2, 1, Some(1)));
    let made = &plan.create[0];
    assert!(made.spec.as_ref().unwrap().node_name.is_none(), "the scheduler binds it");
    assert_eq!(made.metadata.labels.as_ref().unwrap()[revision::HASH], "h2");
    let elsewhere = self::set(rolling(), json!({ "nodeSelector": { "disk": "tape" } }));
    assert_eq!(self::plan(&elsewhere, &nodes, &pods[1..2]).delete.len(), 1);
}

#[test]
fn pods_that_have_ended_are_replaced() {
    let (nodes, pods) = ([node("a", json!({}))], [pod("a", "h2", "Failed")]);
    let plan = plan(&set(rolling(), json!({})), &nodes, &pods);
    assert_eq!(done(&plan), (vec!["a"], vec!["a-h2-Failed"]));
    assert_eq!(plan.events[0].2, "Found failed daemon pod n/a-h2-Failed on node a, will try to kill it");
}

#[test]
fn an_update_takes_node_after_node() {
    let nodes: Vec<_> = ["a", "b", "c"].map(|name| node(name, json!({}))).to_vec();
    let set = set(rolling(), json!({}));
    let mut pods = vec![pod("a", "h1", "ready"), pod("b", "h1", "ready"), pod("c", "h1", "ready")];
    assert_eq!(done(&plan(&set, &nodes, &pods)), (vec![], vec!["a-h1-ready"]));
    pods[0] = pod("a", "h2", "new");
    assert_eq!(done(&plan(&set, &nodes, &pods)), (vec![], vec![]), "one at a time");
    pods[0] = pod("a", "h2", "ready");
    assert_eq!(done(&plan(&set, &nodes, &pods)), (vec![], vec!["b-h1-ready"]));
    // One that does not work anyway is replaced at once.
    pods[0] = pod("a", "h2", "new");
    pods[2] = pod("c", "h1", "new");
    assert_eq!(done(&plan(&set, &nodes, &pods)), (vec![], vec!["c-h1-new"]));
    let by_hand = self::set(json!({ "type": "OnDelete" }), json!({}));
    assert_eq!(done(&plan(&by_hand, &nodes, &pods)), (vec![], vec![]));
}

#[test]
fn with_a_surge_the_new_pod_comes_first() {
    let nodes: Vec<_> = ["a", "b"].map(|name| node(name, json!({}))).to_vec();
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } });
    let set = set(strategy, json!({}));
    let mut pods = vec![pod("a", "h1", "ready"), pod("b", "h1", "ready")];
    assert_eq!(done(&plan(&set, &nodes, &pods)), (vec!["a"], vec![]));
    pods.push(pod("a", "h2", "new"));
    assert_eq!(done(&plan(&set, &nodes, &pods)), (vec![], vec![]));
    pods[2] = pod("a", "h2", "ready");
    assert_eq!(done(&plan(&set, &nodes, &pods)), (vec!["b"], vec!["a-h1-ready"]));
}

#[test]
fn a_template_that_comes_again_is_the_newest_again() {
    let set = set(rolling(), json!({}));
    let template = |image: &str| {
        let mut template = set.spec.clone().unwrap().template;
        template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        template
    };
    let first = revision::history(&set, &template("1"), None, Vec::new());
    assert!(first.is_new && first.present.revision == 1);
    let second = revision::history(&set, &template("2"), None, vec![first.present.clone()]);
    assert!(second.is_new && second.present.revision == 2);
    let known = vec![first.present.clone(), second.present.clone()];
    let back = revision::history(&set, &template("1"), None, known);
    assert!(!back.is_new && back.is_raised && back.present.revision == 3);
    assert_eq!(back.present.metadata.name, first.present.metadata.name);
    assert_eq!(revision::surplus(&back.former, Some(0), |_| false).len(), 1);
    assert!(revision::surplus(&back.former, Some(0), |_| true).is_empty());
}
