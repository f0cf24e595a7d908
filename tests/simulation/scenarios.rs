//! The scenarios of `testdata/scenarios`, each on a calm cluster of its own; `scripts/scenarios` runs the same ones on a
//! real node with kubectl.
//!
//! A file has a pod, what else exists, what its programs do (here, where there are none) and steps: what must be seen
//! of the pod, what is done to it, which events tell of it. Each scenario runs twice, the second time with the kubelets
//! killed and started again after each step: that must make no difference to a user. What a killed kubelet had still to
//! say is lost with it, so events do not count then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::simulated::{Ending, ExecOutcome, OnStop, Program, PullOutcome, StartFailure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// The longest that a step may take: longer than the waits of containers that fail a few times.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the pod is looked at.
const LOOK: Duration = Duration::from_millis(50);
const PODS: &str = "/api/v1/namespaces/default/pods";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Scenario {
    #[serde(rename = "about")]
    _about: String,
    /// Of the table of features.
    #[serde(rename = "rows")]
    _rows: Vec<String>,
    /// What exists before the pod.
    #[serde(default)]
    objects: Vec<Value>,
    /// What containers do, attempt by attempt; the last for ever. Without a word they serve.
    #[serde(default)]
    programs: BTreeMap<String, Vec<Does>>,
    /// Images that no registry has.
    #[serde(default)]
    refused: Vec<String>,
    pod: Value,
    steps: Vec<Step>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Does {
    exits: Option<i32>,
    /// Seconds until it exits or is killed.
    after: u64,
    oom_killed: bool,
    ignores_stop: bool,
    fails: Option<Fails>,
    /// The status of commands inside, by their first word.
    commands: BTreeMap<String, i32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Fails {
    NotFound,
}

/// One of these, and where it counts if not everywhere.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Step {
    only: Option<Only>,
    /// What is seen of the pod at one time: see [`look`] and [`fits`].
    until: BTreeMap<String, Value>,
    /// Reasons of events about the pod, among others. Their order is not theirs to tell: repeated ones are counted.
    events: Vec<String>,
    create: Option<Value>,
    /// A strategic merge patch, of the pod unless `of` names another object, maybe of a subresource.
    patch: Option<Value>,
    of: Option<String>,
    subresource: Option<String>,
    /// Deletes the pod with this grace period.
    delete: Option<i64>,
    evict: bool,
    gone: bool,
    /// On a node only: a command in a container, and what it says.
    #[serde(rename = "exec")]
    _exec: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Only {
    Simulation,
    Node,
}

impl Does {
    fn program(&self) -> Program {
        let after = Duration::from_secs(self.after);
        let ends = self.oom_killed || self.exits.is_some();
        let ending = Ending { after, code: self.exits.unwrap_or_default(), oom_killed: self.oom_killed, signal: None };
        let outcome = |code: &i32| ExecOutcome { code: *code, ..ExecOutcome::default() };
        let failure = |fails| match fails {
            Fails::NotFound => StartFailure::NotFound,
        };
        Program {
            ending: ends.then_some(ending),
            on_stop: if self.ignores_stop { OnStop::Ignores } else { OnStop::default() },
            commands: self.commands.iter().map(|(command, code)| (command.clone(), outcome(code))).collect(),
            start_failure: self.fails.map(failure),
            ..Program::default()
        }
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/scenarios");
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn scenarios_hold() {
    run_all(false);
}

#[test]
fn scenarios_hold_with_kubelets_killed_after_each_step() {
    run_all(true);
}

fn run_all(kill: bool) {
    let wanted = std::env::var("CORACLE_SCENARIO").ok();
    if wanted.is_some() {
        crate::print_logs();
    }
    for file in files() {
        let name = file.file_stem().unwrap().to_str().unwrap();
        if wanted.as_deref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        // As manifests are read, of which it is one.
        let parsed = api::json::parse_yaml(&std::fs::read(&file).unwrap()).unwrap();
        let scenario: Scenario = serde_json::from_value(parsed.value).unwrap_or_else(|error| panic!("{name}: {error}"));
        let _announce = Announce(name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(Box::pin(run(&scenario, kill)));
    }
}

/// Says which scenario it was when it fails.
struct Announce<'a>(&'a str);

impl Drop for Announce<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "scenario {0} fails; CORACLE_SCENARIO={0} cargo test --test simulation scenarios runs it alone",
                self.0
            );
        }
    }
}

async fn run(scenario: &Scenario, kill: bool) {
    let mut stage = Stage { cluster: Cluster::start(1).await, path: String::new() };
    stage.cluster.ground.weather.calm_down();
    for node in &stage.cluster.nodes {
        for (container, attempts) in &scenario.programs {
            node.runtime.program(container, attempts.iter().map(Does::program).collect());
        }
        for reference in &scenario.refused {
            let refused = PullOutcome::Refused { latency: Duration::ZERO, message: "no such image".to_owned() };
            node.images.on_pull(reference, refused);
        }
    }
    for object in &scenario.objects {
        stage.create(object).await;
    }
    stage.path = stage.create(&with_kind(&scenario.pod)).await;
    for (number, step) in scenario.steps.iter().enumerate() {
        if step.only != Some(Only::Node) {
            stage.take(step, kill, number).await;
        }
        if kill {
            for node in &mut stage.cluster.nodes {
                node.kill_agent().await;
                node.start_agent().await;
            }
        }
    }
    stage.cluster.end().await;
    let problems = stage.cluster.ground.ledger.problems();
    assert!(problems.is_empty(), "this must never happen:\n{}", problems.join("\n"));
}

fn with_kind(pod: &Value) -> Value {
    let mut pod = pod.clone();
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    pod
}

struct Stage {
    cluster: Cluster,
    /// Of the pod.
    path: String,
}

impl Stage {
    /// Creates an object of the core group, as soon as its namespace is ready for it; its path.
    async fn create(&self, object: &Value) -> String {
        let collection = match object["kind"].as_str().unwrap() {
            "Pod" => PODS.to_owned(),
            kind => format!("/api/v1/namespaces/default/{}s", kind.to_lowercase()),
        };
        let created = async {
            loop {
                match self.cluster.admin.ask("POST", &collection, Some(object)).await {
                    (201, _) => break,
                    (403 | 404, _) => tokio::time::sleep(LOOK).await,
                    (code, answer) => panic!("{code} {answer}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, created).await.expect("the object is taken");
        format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap())
    }

    async fn take(&self, step: &Step, kill: bool, number: usize) {
        if let Some(object) = &step.create {
            self.create(object).await;
        }
        if let Some(patch) = &step.patch {
            let mut path = match &step.of {
                Some(other) => format!("/api/v1/namespaces/default/{other}"),
                None => self.path.clone(),
            };
            step.subresource.iter().for_each(|name| path.extend(["/", name]));
            let (code, answer) = self.cluster.admin.patch(&path, patch).await;
            assert_eq!(code, 200, "step {number}: {answer}");
        }
        if let Some(grace) = step.delete {
            let (code, answer) =
                self.cluster.admin.ask("DELETE", &self.path, Some(&json!({ "gracePeriodSeconds": grace }))).await;
            assert!(matches!(code, 200 | 202), "step {number}: {code} {answer}");
        }
        if step.evict {
            let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": { "name": self.path.rsplit('/').next(), "namespace": "default" } });
            let (code, answer) =
                self.cluster.admin.ask("POST", &format!("{}/eviction", self.path), Some(&eviction)).await;
            assert_eq!(code, 201, "step {number}: {answer}");
        }
        let seen = async {
            while !self.holds(step, kill).await {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            let (_, pod) = self.cluster.admin.ask("GET", &self.path, None).await;
            panic!(
                "step {number}, {step:?}: never seen; the pod: {:#}; events: {:?}",
                pod["status"],
                self.events().await
            );
        }
    }

    async fn holds(&self, step: &Step, kill: bool) -> bool {
        let (code, pod) = self.cluster.admin.ask("GET", &self.path, None).await;
        let seen = step.until.iter().all(|(key, want)| fits(want, look(&pod, key)));
        let seen = seen && (!step.gone || code == 404);
        if kill || step.events.is_empty() {
            return seen;
        }
        let told = self.events().await;
        seen && step.events.iter().all(|reason| told.contains(reason))
    }

    /// Reasons of the events about the pod.
    async fn events(&self) -> Vec<String> {
        let mut events = self.cluster.admin.list("/api/v1/namespaces/default/events").await;
        events.retain(|event| self.path.ends_with(&format!("/{}", text(&event["involvedObject"]["name"]))));
        events.iter().map(|event| text(&event["reason"]).to_owned()).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a pod says under a key: `condition TYPE` is the status of a condition, `NAME PATH` a field of the status of a
/// container, anything else the path of a field of the pod.
fn look<'a>(pod: &'a Value, key: &str) -> Option<&'a Value> {
    let walk = |from: &'a Value, path: &str| path.split('.').try_fold(from, |value, field| value.get(field));
    let all = |list: &str| pod["status"][list].as_array().into_iter().flatten();
    if let Some(name) = key.strip_prefix("condition ") {
        return all("conditions").find(|one| one["type"] == name)?.get("status");
    }
    let Some((name, path)) = key.split_once(' ') else { return walk(pod, key) };
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    walk(lists.into_iter().flat_map(all).find(|one| one["name"] == name)?, path)
}

/// Whether what is found is what is wanted; a star at either end of a text stands for anything.
fn fits(want: &Value, found: Option<&Value>) -> bool {
    let found = found.filter(|found| !found.is_null());
    let (Some(want), Some(found)) = (want.as_str(), found) else { return found.unwrap_or(&Value::Null) == want };
    let Some(found) = found.as_str() else { return want == "*" };
    match (want.strip_prefix('*'), want.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(end), None) => found.ends_with(end),
        (None, Some(start)) => found.starts_with(start),
        (Some(part), Some(_)) => found.contains(part.trim_end_matches('*')),
        (None, None) => found == want,
    }
}
