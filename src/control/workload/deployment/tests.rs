use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::decide::{available, size};
use super::*;

/// A cluster in which pods come and go when the test says so.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: jiff::Timestamp,
    made: i64,
    /// What happened.
    told: String,
}

fn world(spec: Value) -> World {
    let mut deployment = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1 },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } }, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "1" }] } },
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        deployment["spec"][field] = value.clone();
    }
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let deployment = serde_json::from_value(deployment).unwrap();
    World { deployment, sets: Vec::new(), now, made: 0, told: String::new() }
}

impl World {
    fn spec(&mut self) -> &mut k8s_openapi::api::apps::v1::DeploymentSpec {
        *self.deployment.metadata.generation.get_or_insert(1) += 1;
        self.deployment.spec.as_mut().unwrap()
    }

    fn set_image(&mut self, image: &str) {
        let pod = self.spec().template.spec.as_mut().unwrap();
        pod.containers[0].image = Some(image.to_owned());
    }

    /// Decides and carries out once; whether anything happened.
    fn step(&mut self) -> bool {
        let running = self.sets.iter().filter(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0));
        let running = running.map(|set| set.metadata.uid.clone().unwrap()).collect();
        let picture = Picture { deployment: &self.deployment, sets: self.sets.clone(), running, now: self.now };
        let Plan { steps, status, .. } = decide(picture);
        let happened = !steps.is_empty();
        for step in steps {
            match step {
                Step::Create(mut set) => {
                    self.made += 1;
                    set.metadata.uid = Some(format!("s{}", self.made));
                    set.metadata.creation_timestamp = Some(Time(self.now + jiff::SignedDuration::from_secs(self.made)));
                    let _ = writeln!(self.told, "{} is made with {}", name(&set), size(&set));
                    self.sets.push(set);
                }
                Step::Update { set, from } => {
                    if size(&set) != from {
                        let _ = writeln!(self.told, "{} {from} -> {}", name(&set), size(&set));
                    }
                    let own = self.sets.iter_mut().find(|own| own.metadata.uid == set.metadata.uid).unwrap();
                    *own = set;
                }
                Step::Delete(set) => {
                    let _ = writeln!(self.told, "{} is removed", name(&set));
                    self.sets.retain(|own| own.metadata.uid != set.metadata.uid);
                }
                Step::Revision(revision) => {
                    let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                    annotations.insert(annotations::REVISION.to_owned(), revision.clone());
                    let _ = writeln!(self.told, "revision {revision}");
                }
            }
        }
        self.deployment.status = Some(status);
        happened
    }

    /// All sets have the pods that they want, which work if `works` says so of their image.
    fn fill(&mut self, works: impl Fn(&str) -> bool) {
        for set in &mut self.sets {
            let count = size(set);
            let ready = if works(image(set)) { count } else { 0 };
            set.status = Some(pods(count, ready));
        }
    }

    /// Lets it come to rest.
    fn rest(&mut self, works: impl Fn(&str) -> bool) {
        for _ in 0..200 {
            let happened = self.step();
            let before: Vec<_> = self.sets.iter().map(|set| set.status.clone()).collect();
            self.fill(&works);
            if !happened && before == self.sets.iter().map(|set| set.status.clone()).collect::<Vec<_>>() {
                return;
            }
        }
        panic!("it does not come to rest:\n{}", self.told);
    }

    fn progress(&self) -> (String, String) {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.clone().unwrap();
        let found = conditions.into_iter().find(|one| one.type_ == status::PROGRESSING).unwrap();
        (found.status, found.reason.unwrap())
    }

    fn take_told(&mut self) -> String {
        std::mem::take(&mut self.told)
    }
}

fn image(set: &ReplicaSet) -> &str {
    let pod = set.spec.as_ref().and_then(|spec| spec.template.as_ref()).and_then(|template| template.spec.as_ref());
    pod.and_then(|pod| pod.containers[0].image.as_deref()).unwrap()
}

/// By its image: names are hashes.
fn name(set: &ReplicaSet) -> String {
    format!("v{}", image(set))
}

fn pods(count: i32, ready: i32) -> ReplicaSetStatus {
    ReplicaSetStatus {
        replicas: count,
        ready_replicas: Some(ready),
        available_replicas: Some(ready),
        ..ReplicaSetStatus::default()
    }
}

fn words(condition: (String, String)) -> String {
    format!("{} {}", condition.0, condition.1)
}

#[test]
fn a_rolling_update_goes_up_before_it_goes_down() {
    let mut world = world(json!({ "replicas": 4 }));
    world.rest(|_| true);
    assert_eq!(world.take_told(), "v1 is made with 4\nrevision 1\n");
    assert_eq!(words(world.progress()), "True NewReplicaSetAvailable");
    world.set_image("2");
    world.rest(|_| true);
    assert_eq!(world.take_told(), "v2 is made with 1\nrevision 2\nv1 4 -> 2\nv2 1 -> 3\nv1 2 -> 0\nv2 3 -> 4\n");
    assert_eq!(words(world.progress()), "True NewReplicaSetAvailable");
    // Back to a template that there was before: its set is used again, under a new number.
    world.set_image("1");
    world.rest(|_| true);
    assert!(world.told.starts_with("v1 0 -> 1\nrevision 3\n"), "{}", world.told);
    assert_eq!(world.sets.len(), 2);
}

#[test]
fn an_update_that_does_not_work_stops_and_is_told_when_its_time_is_over() {
    let mut world = world(json!({ "replicas": 4 }));
    world.rest(|_| true);
    world.set_image("2");
    world.rest(|image| image == "1");
    let (old, new) = (world.sets[0].clone(), world.sets[1].clone());
    assert_eq!((size(&old), size(&new)), (3, 2), "{}", world.told);
    assert_eq!(words(world.progress()), "True ReplicaSetUpdated");
    world.now += jiff::SignedDuration::from_secs(601);
    world.step();
    assert_eq!(words(world.progress()), "False ProgressDeadlineExceeded");
    // Pods that do not work are the first to go when it is taken back.
    world.set_image("1");
    world.rest(|image| image == "1");
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [4, 0]);
}

#[test]
fn recreation_waits_for_the_last_of_the_former_pods() {
    let mut world = world(json!({ "replicas": 3, "strategy": { "type": "Recreate" } }));
    world.rest(|_| true);
    world.set_image("2");
    world.step();
    assert!(!world.step(), "pods of the former set are there still");
    assert_eq!(world.told, "v1 is made with 3\nrevision 1\nv1 3 -> 0\n");
    world.rest(|_| true);
    assert!(world.told.ends_with("v1 3 -> 0\nv2 is made with 3\nrevision 2\n"), "{}", world.told);
}

#[test]
fn what_is_paused_is_scaled_but_not_updated() {
    let mut world = world(json!({ "replicas": 2 }));
    world.rest(|_| true);
    world.spec().paused = Some(true);
    world.set_image("2");
    world.spec().replicas = Some(5);
    world.rest(|_| true);
    assert_eq!(world.told, "v1 is made with 2\nrevision 1\nv1 2 -> 5\n");
    assert_eq!(words(world.progress()), "Unknown DeploymentPaused");
    world.spec().paused = None;
    world.rest(|_| true);
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [0, 5]);
    assert_eq!(words(world.progress()), "True NewReplicaSetAvailable");
}

#[test]
fn another_size_in_the_middle_of_an_update_is_shared_out() {
    let mut world = world(json!({ "replicas": 10 }));
    world.rest(|_| true);
    world.set_image("2");
    world.rest(|image| image == "1");
    let before: Vec<i32> = world.sets.iter().map(size).collect();
    assert_eq!(before, [8, 5]);
    world.spec().replicas = Some(20);
    world.rest(|image| image == "1");
    assert_eq!(world.sets.iter().map(size).sum::<i32>(), 25);
    world.spec().replicas = Some(0);
    world.rest(|image| image == "1");
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn only_so_many_former_sets_are_kept() {
    let mut world = world(json!({ "replicas": 1, "revisionHistoryLimit": 2 }));
    for image in 1..=6 {
        world.set_image(&image.to_string());
        world.rest(|_| true);
    }
    let mut left: Vec<String> = world.sets.iter().map(name).collect();
    left.sort();
    assert_eq!(left, ["v4", "v5", "v6"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever pods do meanwhile, an update keeps within its margins and arrives.
    #[test]
    fn an_update_keeps_its_margins(replicas in 1..20_i32, surge in 0..5_i32, down in 0..5_i32, works in prop::collection::vec(0..100_i32, 300)) {
        let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": down } });
        let mut world = world(json!({ "replicas": replicas, "strategy": rolling }));
        world.rest(|_| true);
        world.set_image("2");
        let down = if surge == 0 && down == 0 { 1 } else { down.min(replicas) };
        for percent in works {
            world.step();
            prop_assert!(world.sets.iter().map(size).sum::<i32>() <= replicas + surge, "{}", world.told);
            let serving: i32 = world.sets.iter().map(|set| available(set).min(size(set))).sum();
            prop_assert!(serving >= replicas - down, "{serving} serve:\n{}", world.told);
            for set in &mut world.sets {
                let (count, had) = (size(set), available(set));
                // Former pods go on working; some more of the new ones do each time.
                let ready = if image(set) == "1" { count } else { had.max(count * percent / 100).min(count) };
                set.status = Some(pods(count, ready));
            }
        }
        world.rest(|_| true);
        prop_assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [0, replicas]);
    }
}
