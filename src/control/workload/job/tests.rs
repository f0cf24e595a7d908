use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::*;

/// A Job and its pods, with nobody else about.
struct World {
    job: Job,
    pods: Vec<Pod>,
    now: jiff::Timestamp,
    made: usize,
    events: Vec<&'static str>,
}

fn world(spec: Value) -> World {
    let mut job = json!({
        "metadata": { "name": "work", "namespace": "default", "uid": "j" },
        "spec": {
            "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "podReplacementPolicy": "TerminatingOrFailed",
            "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } },
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    World { job: serde_json::from_value(job).unwrap(), pods: Vec::new(), now, made: 0, events: Vec::new() }
}

impl World {
    fn step(&mut self) -> Plan {
        let pods = self.pods.iter().cloned().map(Arc::new).collect();
        let plan = decide(&Picture { job: &self.job, pods, is_settled: true, now: self.now });
        let is_it = |pod: &Pod, all: &[Arc<Pod>]| all.iter().any(|one| one.metadata.uid == pod.metadata.uid);
        for pod in &mut self.pods {
            if is_it(pod, &plan.delete) {
                pod.metadata.deletion_timestamp = Some(Time(self.now));
            }
            if is_it(pod, &plan.counted) {
                pod.metadata.finalizers = None;
            }
        }
        // What is to go and is held by nobody is gone.
        self.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() || is_tracked(pod));
        for pod in &plan.create {
            self.made += 1;
            let metadata = ObjectMeta {
                uid: Some(format!("p{}", self.made)),
                creation_timestamp: Some(Time(self.now)),
                ..pod.metadata.clone()
            };
            self.pods.push(Pod { metadata, ..pod.clone() });
        }
        self.job.status = Some(plan.status.clone());
        self.events.extend(plan.events.iter().map(|(_, reason, _)| *reason));
        plan
    }

    /// Steps until nothing is left to be done.
    fn rest(&mut self) {
        for _ in 0..20 {
            let before = (self.job.clone(), self.pods.clone());
            self.step();
            if before == (self.job.clone(), self.pods.clone()) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn wait(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
        self.rest();
    }

    /// The oldest pod that has not ended does, with an exit code.
    fn exit(&mut self, code: i32) {
        let pod = self.pods.iter_mut().find(|pod| pod.status.is_none()).expect("a pod runs");
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let terminated = json!({ "exitCode": code, "finishedAt": self.now });
        let container = json!({
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": terminated },
        });
        pod.status = Some(serde_json::from_value(json!({ "phase": phase, "containerStatuses": [container] })).unwrap());
        self.rest();
    }

    fn active(&self) -> usize {
        self.pods.iter().filter(|pod| pod.status.is_none()).count()
    }

    /// Succeeded, failed, and the conditions that hold.
    fn told(&self) -> (i32, i32, Vec<String>) {
        let status = self.job.status.clone().unwrap();
        let holds = status.conditions.into_iter().flatten().filter(|one| one.status == "True");
        let words = holds.map(|one| format!("{} {}", one.type_, one.reason.unwrap_or_default()));
        (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0), words.collect())
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn so_many_pods_succeed_and_no_more_at_once_than_allowed() {
    let mut world = world(json!({ "completions": 3, "parallelism": 2 }));
    world.rest();
    assert_eq!(world.active(), 2);
    world.exit(0);
    assert_eq!(world.active(), 2);
    world.exit(0);
    assert_eq!(world.active(), 1);
    world.exit(0);
    let done = words(&["SuccessCriteriaMet CompletionsReached", "Complete CompletionsReached"]);
    assert_eq!(world.told(), (3, 0, done));
    assert!(world.pods.iter().all(|pod| !is_tracked(pod)) && world.made == 3);
    assert_eq!(world.events, ["Completed"]);
}

#[test]
fn a_pod_that_goes_after_it_was_counted_counts_still() {
    let mut world = world(json!({ "completions": 2 }));
    world.rest();
    world.exit(0);
    world.pods.retain(|pod| pod.status.is_none());
    world.rest();
    assert_eq!((world.told().0, world.active()), (1, 1));
    world.exit(0);
    assert_eq!(world.told().0, 2);
}

#[test]
fn failures_are_followed_by_longer_and_longer_waits_until_there_were_too_many() {
    let mut world = world(json!({ "completions": 1, "backoffLimit": 2 }));
    world.rest();
    world.exit(1);
    assert_eq!((world.active(), world.step().again), (0, Some(std::time::Duration::from_secs(10))));
    world.wait(10);
    assert_eq!(world.active(), 1);
    world.exit(1);
    world.wait(19);
    assert_eq!(world.active(), 0);
    world.wait(1);
    assert_eq!(world.active(), 1);
    world.exit(1);
    let failed = words(&["FailureTarget BackoffLimitExceeded", "Failed BackoffLimitExceeded"]);
    assert_eq!(world.told(), (0, 3, failed));
    assert_eq!(world.events, ["BackoffLimitExceeded"]);
}

#[test]
fn a_job_that_takes_too_long_is_ended() {
    let mut world = world(json!({ "completions": 1, "activeDeadlineSeconds": 60 }));
    world.rest();
    world.wait(59);
    assert_eq!(world.active(), 1);
    world.wait(1);
    assert_eq!((world.active(), world.told().2[1].as_str()), (0, "Failed DeadlineExceeded"));
}

#[test]
fn a_suspended_job_has_no_pods_and_its_time_stands_still() {
    let mut world = world(json!({ "completions": 1, "suspend": true, "activeDeadlineSeconds": 60 }));
    world.rest();
    world.wait(100);
    assert_eq!((world.active(), world.told().2), (0, words(&["Suspended JobSuspended"])));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.rest();
    assert_eq!((world.active(), world.told().2), (1, Vec::new()));
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.rest();
    assert_eq!(world.active(), 0);
    assert_eq!(world.events, ["Suspended", "Resumed", "Suspended"]);
}

#[test]
fn each_index_is_done_once_and_its_pod_knows_it() {
    let mut world = world(json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed" }));
    world.rest();
    let spec = world.pods[1].spec.clone().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("work-1"));
    assert_eq!(world.pods[1].metadata.generate_name.as_deref(), Some("work-1-"));
    let field = spec.containers[0].env.as_ref().unwrap()[0].value_from.clone().unwrap().field_ref.unwrap().field_path;
    assert_eq!(field, "metadata.labels['batch.kubernetes.io/job-completion-index']");
    world.exit(0);
    world.exit(0);
    assert_eq!(world.job.status.as_ref().unwrap().completed_indexes.as_deref(), Some("0,1"));
    world.exit(0);
    assert_eq!((world.told().0, world.made), (3, 3));
}

#[test]
fn an_index_that_fails_for_good_leaves_the_others_alone() {
    let mut world = world(json!({
        "completions": 2, "parallelism": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": 1000,
    }));
    world.rest();
    world.exit(1);
    world.wait(600);
    world.exit(0);
    let status = world.job.status.clone().unwrap();
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("1"), Some("0")));
    assert_eq!(world.told().2[1], "Failed FailedIndexes");
}

#[test]
fn what_a_policy_says_of_failed_pods_is_done() {
    let rules = json!([
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
    ]);
    let mut world = world(json!({ "completions": 1, "podFailurePolicy": { "rules": rules } }));
    world.rest();
    let disrupted = json!({ "phase": "Failed", "conditions": [{ "type": "DisruptionTarget", "status": "True" }] });
    world.pods[0].status = Some(serde_json::from_value(disrupted).unwrap());
    world.rest();
    world.wait(600);
    assert_eq!((world.told().1, world.active()), (0, 1));
    world.exit(42);
    assert_eq!(world.told().2[1], "Failed PodFailurePolicy");
}

#[test]
fn a_job_that_is_over_goes_when_its_time_has_come() {
    let mut world = world(json!({ "completions": 1, "ttlSecondsAfterFinished": 30 }));
    world.rest();
    world.exit(0);
    assert_eq!((world.step().is_over, world.step().again), (false, Some(std::time::Duration::from_secs(30))));
    world.now += jiff::SignedDuration::from_secs(30);
    assert!(world.step().is_over);
}
