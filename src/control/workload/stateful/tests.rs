use std::collections::BTreeSet;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;

/// A set with pods that do what the test says.
struct World {
    set: StatefulSet,
    pods: Vec<Pod>,
    revisions: Vec<ControllerRevision>,
    now: jiff::Timestamp,
    told: String,
    claims: BTreeSet<String>,
}

fn world(spec: Value) -> World {
    let mut set = json!({
        "metadata": { "name": "db", "namespace": "n", "uid": "u" },
        "spec": {
            "replicas": 3, "serviceName": "db", "selector": { "matchLabels": { "a": "b" } },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "1" }] } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        set["spec"][field] = value.clone();
    }
    World {
        set: serde_json::from_value(set).unwrap(),
        pods: Vec::new(),
        revisions: Vec::new(),
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        told: String::new(),
        claims: BTreeSet::new(),
    }
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap()
}

impl World {
    /// Decides and carries out once; whether anything happened.
    fn step(&mut self) -> bool {
        let spec = self.set.spec.clone().unwrap();
        let history = revision::history(&self.set, &spec.template, None, self.revisions.clone());
        self.revisions.clone_from(&history.former);
        self.revisions.push(history.present.clone());
        let pods: Vec<_> = self.pods.iter().cloned().map(Arc::new).collect();
        let plan = decide(&Picture { set: &self.set, pods: &pods, history: &history, is_settled: true, now: self.now });
        let happened = !plan.create.is_empty() || !plan.delete.is_empty();
        for pod in &plan.delete {
            let _ = write!(self.told, "-{} ", name(pod).trim_start_matches("db-"));
            self.pods.retain(|own| own.metadata.name != pod.metadata.name);
        }
        for pod in plan.create {
            let _ = write!(self.told, "+{}:{} ", name(&pod).trim_start_matches("db-"), image(&pod));
            self.pods.push(pod);
        }
        self.claims.extend(plan.claims.iter().map(|(_, claim)| claim.metadata.name.clone().unwrap()));
        self.set.status = Some(plan.status);
        happened
    }

    fn make_ready(&mut self, works: impl Fn(&Pod) -> bool) {
        let ready = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": self.now }]);
        for pod in self.pods.iter_mut().filter(|pod| works(pod)) {
            let status: PodStatus =
                serde_json::from_value(json!({ "phase": "Running", "conditions": ready.clone() })).unwrap();
            pod.status = Some(status);
        }
    }

    fn rest(&mut self, works: impl Fn(&Pod) -> bool) -> String {
        for _ in 0..50 {
            let before = (self.set.status.clone(), self.pods.clone());
            let happened = self.step();
            self.make_ready(&works);
            if !happened && before == (self.set.status.clone(), self.pods.clone()) {
                return std::mem::take(&mut self.told).trim_end().to_owned();
            }
        }
        panic!("it does not come to rest: {}", self.told);
    }

    fn change(&mut self, field: &str, value: &Value) {
        let mut set = serde_json::to_value(&self.set).unwrap();
        *set.pointer_mut(&format!("/spec/{field}")).unwrap() = value.clone();
        self.set = serde_json::from_value(set).unwrap();
    }
}

const IMAGE: &str = "template/spec/containers/0/image";

#[test]
fn pods_come_in_order_and_go_in_the_opposite_one() {
    let mut world = world(json!({}));
    world.step();
    assert!(!world.step(), "the first is not ready yet");
    assert_eq!(world.rest(|_| true), "+0:1 +1:1 +2:1");
    let pod = world.pods[1].clone();
    let spec = pod.spec.clone().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));
    let claim = spec.volumes.unwrap()[0].persistent_volume_claim.clone().unwrap().claim_name;
    assert!(claim == "data-db-1" && world.claims.contains("data-db-1"));
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(
        (labels["apps.kubernetes.io/pod-index"].as_str(), labels["statefulset.kubernetes.io/pod-name"].as_str()),
        ("1", "db-1")
    );
    world.change("replicas", &json!(1));
    assert_eq!(world.rest(|_| true), "-2 -1");
}

#[test]
fn an_update_goes_from_the_last_to_the_first_and_waits_for_each() {
    let mut world = world(json!({}));
    world.rest(|_| true);
    world.change(IMAGE, &json!("2"));
    assert_eq!(world.rest(|_| true), "-2 +2:2 -1 +1:2 -0 +0:2");
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.current_revision.clone(), status.updated_replicas), (status.update_revision, Some(3)));
    world.change(IMAGE, &json!("3"));
    assert_eq!(world.rest(|pod| image(pod) == "2"), "-2 +2:3", "one that does not work stops it");
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.current_replicas, status.updated_replicas, status.ready_replicas), (Some(2), Some(1), Some(2)));
}

#[test]
fn what_is_below_the_partition_stays_and_comes_back_as_it_was() {
    let mut world =
        world(json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 2 } } }));
    world.rest(|_| true);
    world.change(IMAGE, &json!("2"));
    assert_eq!(world.rest(|_| true), "-2 +2:2");
    world.pods.retain(|pod| name(pod) == "db-1");
    assert_eq!(world.rest(|_| true), "+0:1 +2:2");
    world.change("updateStrategy/rollingUpdate/partition", &json!(0));
    assert_eq!(world.rest(|_| true), "-1 +1:2 -0 +0:2");
}

#[test]
fn in_parallel_nobody_waits() {
    let mut world = world(json!({ "podManagementPolicy": "Parallel" }));
    world.step();
    assert_eq!(world.told, "+0:1 +1:1 +2:1 ");
    world.rest(|_| true);
    world.change("replicas", &json!(0));
    world.step();
    assert_eq!(world.told, "-2 -1 -0 ");
}

#[test]
fn a_pod_that_has_ended_is_made_again_and_one_that_goes_is_waited_for() {
    let mut world = world(json!({ "updateStrategy": { "type": "OnDelete" } }));
    world.rest(|_| true);
    world.pods[0].status = Some(serde_json::from_value(json!({ "phase": "Failed" })).unwrap());
    assert_eq!(world.rest(|_| true), "-0 +0:1");
    world.change(IMAGE, &json!("2"));
    let now = Time(world.now);
    world.pods[1].metadata.deletion_timestamp = Some(now);
    assert!(!world.step(), "the name is taken still");
    world.pods.remove(1);
    assert_eq!(world.rest(|_| true).matches(":2").count(), 1, "by hand, one at a time");
}

#[test]
fn claims_go_with_their_set_or_pod_where_it_says_so() {
    let policy = json!({ "whenDeleted": "Delete", "whenScaled": "Delete" });
    let mut world = world(json!({ "persistentVolumeClaimRetentionPolicy": policy }));
    world.rest(|_| true);
    let spec = world.set.spec.clone().unwrap();
    let claim = member::claims(&world.set, &spec, 0).remove(0).object;
    assert_eq!(claim.metadata.owner_references.unwrap()[0].kind, "StatefulSet");
    world.change("replicas", &json!(2));
    world.revisions.sort_by_key(|one| one.revision);
    let spec = world.set.spec.clone().unwrap();
    let history = revision::history(&world.set, &spec.template, None, world.revisions.clone());
    let pods: Vec<_> = world.pods.iter().cloned().map(Arc::new).collect();
    let plan = decide(&Picture { set: &world.set, pods: &pods, history: &history, is_settled: true, now: world.now });
    let (claim, owner) = &plan.bequeathed[0];
    assert_eq!((claim.name.as_str(), owner.kind.as_str(), owner.name.as_str()), ("data-db-2", "Pod", "db-2"));
}

#[test]
fn of_pods_that_are_too_many_and_do_not_work_only_the_first_goes() {
    let mut world = world(json!({}));
    assert_eq!(world.rest(|_| true), "+0:1 +1:1 +2:1");
    world.change("replicas", &json!(0));
    world.pods.iter_mut().for_each(|pod| pod.status = None);
    assert_eq!(world.rest(|_| false), "");
    assert_eq!(world.rest(|pod| name(pod) == "db-2"), "-2");
    assert_eq!(world.rest(|pod| name(pod) == "db-1"), "-1 -0");
}

#[test]
fn an_update_is_over_when_all_pods_are_there_again() {
    let mut world = world(json!({}));
    world.rest(|_| true);
    let current = |world: &World| world.set.status.clone().unwrap().current_revision;
    let former = current(&world);
    world.change(IMAGE, &json!("2"));
    while world.pods.iter().any(|pod| image(pod) == "1") {
        world.step();
        world.make_ready(|_| true);
    }
    world.step();
    assert_eq!((world.pods.len(), current(&world)), (3, former.clone()), "the last one has only just been made");
    world.rest(|_| true);
    assert_ne!(current(&world), former);
}
