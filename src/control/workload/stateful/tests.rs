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
    claims: Claims,
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
        claims: Claims::new(),
    }
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap()
}

impl World {
    fn decide(&mut self) -> Plan {
        let spec = self.set.spec.clone().unwrap();
        let history = revision::history(&self.set, &spec.template, None, self.revisions.clone());
        self.revisions.clone_from(&history.former);
        self.revisions.push(history.present.clone());
        let pods: Vec<_> = self.pods.iter().cloned().map(Arc::new).collect();
        let (set, claims, now) = (&self.set, &self.claims, self.now);
        decide(&Picture { set, pods: &pods, history: &history, claims, is_settled: true, now })
    }

    /// Decides and carries out once; whether anything happened.
    fn step(&mut self) -> bool {
        let plan = self.decide();
        let happened = !plan.create.is_empty() || !plan.delete.is_empty();
        for pod in &plan.delete {
            let _ = write!(self.told, "-{} ", name(pod).trim_start_matches("db-"));
            self.pods.retain(|own| own.metadata.name != pod.metadata.name);
        }
        for mut pod in plan.create {
            pod.metadata.uid = Some(format!("uid of {}", name(&pod)));
            let _ = write!(self.told, "+{}:{} ", name(&pod).trim_start_matches("db-"), image(&pod));
            self.pods.push(pod);
        }
        let made = plan.claims.into_iter().map(|(_, claim)| (claim.metadata.name.clone().unwrap(), Arc::new(claim)));
        self.claims.extend(made);
        for Inheritance { claim, owners } in plan.bequeathed {
            let name = claim.metadata.name.clone().unwrap();
            Arc::make_mut(self.claims.get_mut(&name).unwrap()).metadata.owner_references = Some(owners);
        }
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

    /// To whom a claim belongs.
    fn owners(&self, claim: &str) -> Vec<String> {
        let owners = self.claims[claim].metadata.owner_references.iter().flatten();
        owners.map(|owner| format!("{} {} {}", owner.kind, owner.name, owner.controller.unwrap_or_default())).collect()
    }

    fn retain(&mut self, when_deleted: &str, when_scaled: &str) {
        let mut set = serde_json::to_value(&self.set).unwrap();
        let policy = json!({ "whenDeleted": when_deleted, "whenScaled": when_scaled });
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = policy;
        self.set = serde_json::from_value(set).unwrap();
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
    assert!(claim == "data-db-1" && world.claims.contains_key("data-db-1"));
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
    for (deleted, scaled, stays, is_too_much) in [
        ("Retain", "Retain", None, None),
        ("Delete", "Retain", Some("StatefulSet db true"), Some("StatefulSet db true")),
        ("Retain", "Delete", None, Some("Pod db-2 true")),
        ("Delete", "Delete", Some("StatefulSet db true"), Some("Pod db-2 true")),
    ] {
        let mut world = world(json!({}));
        world.retain(deleted, scaled);
        world.rest(|_| true);
        world.change("replicas", &json!(2));
        world.step();
        assert_eq!(world.owners("data-db-0"), Vec::from_iter(stays), "{deleted} {scaled}");
        assert_eq!(world.owners("data-db-2"), Vec::from_iter(is_too_much), "{deleted} {scaled}");
    }
}

#[test]
fn a_policy_that_changes_holds_for_claims_that_are_there_unless_they_are_somebody_elses() {
    let mut world = world(json!({}));
    world.rest(|_| true);
    let other = json!([{ "apiVersion": "v1", "kind": "Tape", "name": "t", "uid": "t", "controller": true }]);
    let former = json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "former" }]);
    for (claim, owners) in [("data-db-1", other), ("data-db-2", former)] {
        let metadata = &mut Arc::make_mut(world.claims.get_mut(claim).unwrap()).metadata;
        metadata.owner_references = serde_json::from_value(owners).unwrap();
    }
    world.retain("Delete", "Retain");
    world.step();
    assert_eq!(world.owners("data-db-0"), ["StatefulSet db true"]);
    assert_eq!(
        (world.owners("data-db-1"), world.owners("data-db-2")),
        (vec!["Tape t true".to_owned()], vec!["StatefulSet db false".to_owned()])
    );
    world.retain("Retain", "Retain");
    world.step();
    assert!(world.owners("data-db-0").is_empty());
}

#[test]
fn a_pod_is_made_once_claims_that_went_with_a_former_one_have_gone() {
    let mut world = world(json!({}));
    world.retain("Retain", "Delete");
    world.rest(|_| true);
    world.change("replicas", &json!(2));
    world.rest(|_| true);
    world.change("replicas", &json!(3));
    assert!(!world.step(), "the garbage collector has not seen it yet");
    Arc::make_mut(world.claims.get_mut("data-db-2").unwrap()).metadata.deletion_timestamp = Some(Time(world.now));
    let plan = world.decide();
    assert_eq!(plan.awaited, [("db-2".to_owned(), "data-db-2".to_owned())]);
    assert!(plan.create.is_empty() && plan.again.is_some());
    world.claims.remove("data-db-2");
    assert!(world.step() && world.owners("data-db-2").is_empty());
}

#[test]
fn a_pod_that_has_not_started_gets_a_lost_claim_again() {
    let mut world = world(json!({}));
    world.rest(|_| true);
    world.claims.clear();
    assert!(world.decide().claims.is_empty());
    world.pods[0].status = Some(serde_json::from_value(json!({ "phase": "Pending" })).unwrap());
    world.step();
    assert_eq!(world.claims.keys().collect::<Vec<_>>(), ["data-db-0"]);
}

#[test]
fn of_a_pod_that_could_not_be_made_the_refusal_is_told() {
    let deed = Deed { verb: "create", pod: "db-0", owner: "db" };
    assert_eq!(words(&deed, None), "create Pod db-0 in StatefulSet db successful");
    let refusal = "create Pod db-0 in StatefulSet db failed error: exceeded quota";
    assert_eq!(words(&deed, Some("exceeded quota")), refusal);
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
