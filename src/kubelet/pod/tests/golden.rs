//! Cases in `testdata/plan`: `<case>.json` says what is, `<case>.expected.json` what is planned and said.
//! `UPDATE_EXPECT=1` writes the latter anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{
    ContainerId, ContainerState, ContainerStatus, Exit, Fetched, ImageId, SandboxId, SandboxState, SandboxStatus,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::memory::{Files, Stage, StartError, Stopping};
use super::super::plan::{
    Cut, FailedProbe, Hook, PresentImage, Probed, Pulled, Start, Stop, StopReason, Subject, WaitingReason,
};
use super::super::{Action, Desired, Memory, Observed, Plan, Wish, labels, plan};
use crate::container::sandbox_spec;
use crate::pod::eviction::Eviction;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// What the case shows.
    #[serde(rename = "about")]
    _about: String,
    pod: Pod,
    #[serde(default)]
    gone: bool,
    #[serde(default)]
    sandboxes: Vec<Sandbox>,
    #[serde(default)]
    addresses: Vec<std::net::IpAddr>,
    /// References that are present.
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    messages: BTreeMap<String, String>,
    #[serde(default)]
    probes: BTreeMap<String, Probe>,
    /// `files`, `sandbox`, `object`, `image/<name>`, `container/<name>`, `postStart/<name>`, `preStop/<name>`.
    #[serde(default)]
    in_flight: Vec<String>,
    /// Registry, bytes done, bytes to fetch and bytes per second, by container.
    #[serde(default)]
    pulls: BTreeMap<String, (String, u64, u64, u64)>,
    #[serde(default)]
    memory: Remembered,
    now: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sandbox {
    attempt: u32,
    #[serde(default)]
    dead: bool,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Container {
    name: String,
    #[serde(default)]
    attempt: u32,
    id: String,
    image: String,
    started: Timestamp,
    finished: Option<Timestamp>,
    #[serde(default)]
    code: i32,
    #[serde(default)]
    oom: bool,
    #[serde(default)]
    backoff: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probe {
    started: bool,
    ready: bool,
    #[serde(default)]
    liveness_failed: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Remembered {
    files_ready: bool,
    renew_at: Option<Timestamp>,
    /// Why it must end.
    evicted: Option<String>,
    files_removed: bool,
    unacknowledged: bool,
    object_gone: bool,
    deadline: Option<Timestamp>,
    next_sandbox: u32,
    /// When pulls of a container's image failed.
    pulls_failed: BTreeMap<String, Vec<Timestamp>>,
    /// Attempt and time of a start whose command could not be executed.
    cannot_execute: BTreeMap<String, (u32, Timestamp)>,
    /// Time of a start whose configuration was incomplete.
    incomplete: BTreeMap<String, Timestamp>,
    sandbox_failed: Option<Timestamp>,
    /// Whether the `postStart` hooks of containers succeeded.
    post_starts: BTreeMap<String, bool>,
    /// Stops of containers: `hooking`, `hooked` or `signalled`, and until when.
    stops: BTreeMap<String, (String, Timestamp)>,
}

impl Case {
    fn observed(&self) -> Observed {
        Observed {
            sandboxes: self.sandboxes.iter().map(|sandbox| self.sandbox(sandbox)).collect(),
            addresses: self.addresses.clone(),
            host_addresses: vec!["192.0.2.10".parse().expect("an address")],
            images: self.images.iter().map(|reference| (reference.clone(), image(reference))).collect(),
            messages: self.messages.iter().map(|(id, text)| (ContainerId(id.clone()), text.clone())).collect(),
            probes: self.probes.iter().map(|(id, probe)| (ContainerId(id.clone()), probe.probed())).collect(),
            pulls: self.pulls.iter().map(|(name, pull)| (name.clone(), pulled(pull))).collect(),
            in_flight: self.in_flight.iter().map(|text| subject(text)).collect(),
        }
    }

    fn sandbox(&self, sandbox: &Sandbox) -> SandboxStatus {
        SandboxStatus {
            spec: sandbox_spec(&self.pod, sandbox.attempt, Path::new("kubepods"), PathBuf::from("logs")),
            state: if sandbox.dead { SandboxState::Dead } else { SandboxState::Ready },
            created_at: self.now,
            containers: sandbox.containers.iter().map(Container::status).collect(),
        }
    }

    fn memory(&self) -> Memory {
        let known = &self.memory;
        let mut memory = Memory::of(&self.pod);
        memory.acknowledged = !known.unacknowledged;
        memory.object_gone = known.object_gone;
        memory.deadline = known.deadline;
        memory.next_sandbox = known.next_sandbox;
        memory.evicted = known.evicted.clone().map(Eviction::now);
        if known.files_ready {
            memory.files = Files::Ready { renew_at: known.renew_at };
        }
        if known.files_removed {
            memory.files = Files::Removed;
        }
        for (container, times) in &known.pulls_failed {
            for at in times {
                memory.pull_failed(container, WaitingReason::ErrImagePull, "manifest unknown".to_owned(), *at);
            }
        }
        let starts =
            known.cannot_execute.iter().map(|(name, (attempt, at))| (name, *attempt, *at, StartError::Execute));
        let incomplete = known.incomplete.iter().map(|(name, at)| (name, 0, *at, StartError::Config));
        for (name, attempt, at, kind) in starts.chain(incomplete) {
            let start = Start {
                sandbox: SandboxId::new("u1", 0),
                name: name.clone(),
                attempt,
                image: image("web:1"),
                backoff: Duration::from_secs(if attempt == 0 { 0 } else { 10 }),
            };
            memory.start_failed(&start, kind, "it cannot be done".to_owned(), at);
        }
        memory.post_starts =
            known.post_starts.iter().map(|(id, succeeded)| (ContainerId(id.clone()), *succeeded)).collect();
        for (id, (stage, deadline)) in &known.stops {
            let stage = match stage.as_str() {
                "hooking" => Stage::Hooking,
                "hooked" => Stage::Hooked,
                "signalled" => Stage::Signalled,
                other => panic!("unknown stage {other}"),
            };
            let stopping = Stopping { deadline: *deadline, reason: StopReason::PodEnds, stage };
            memory.stops.insert(ContainerId(id.clone()), stopping);
        }
        if let Some(at) = known.sandbox_failed {
            memory.sandbox_failed("no address".to_owned(), at);
        }
        memory
    }
}

impl Container {
    fn status(&self) -> ContainerStatus {
        let state = match self.finished {
            None => ContainerState::Running { pid: 1, started_at: self.started },
            Some(finished_at) => ContainerState::Exited(Exit {
                code: self.code,
                signal: None,
                oom_killed: self.oom,
                started_at: self.started,
                finished_at,
            }),
        };
        ContainerStatus {
            id: ContainerId(self.id.clone()),
            name: self.name.clone(),
            attempt: self.attempt,
            image: image(&self.image).id,
            image_reference: self.image.clone(),
            labels: [
                (labels::BACKOFF.to_owned(), self.backoff.to_string()),
                (labels::IMAGE_ID.to_owned(), image(&self.image).status_id),
            ]
            .into(),
            user: None,
            state,
            log_path: PathBuf::from("log"),
        }
    }
}

impl Probe {
    fn probed(&self) -> Probed {
        let failed = self.liveness_failed.then_some(FailedProbe::Liveness);
        Probed { started: self.started, ready: self.ready, failed }
    }
}

fn image(reference: &str) -> PresentImage {
    PresentImage { id: ImageId(format!("sha256:{reference}")), status_id: format!("{reference}@sha256:abc") }
}

fn pulled((registry, done, total, rate): &(String, u64, u64, u64)) -> Pulled {
    Pulled { fetched: Fetched { registry: registry.clone(), done: *done, total: *total }, rate: *rate }
}

fn subject(text: &str) -> Subject {
    match text.split_once('/') {
        Some(("image", name)) => Subject::Image(name.to_owned()),
        Some(("container", name)) => Subject::Container(name.to_owned()),
        Some(("postStart", name)) => Subject::Hook(name.to_owned(), Hook::PostStart),
        Some(("preStop", name)) => Subject::Hook(name.to_owned(), Hook::PreStop),
        _ => match text {
            "files" => Subject::Files,
            "sandbox" => Subject::Sandbox,
            "object" => Subject::Object,
            other => panic!("unknown subject {other}"),
        },
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::PrepareFiles => "prepare files".to_owned(),
        Action::CreateSandbox { attempt } => format!("create sandbox {attempt}"),
        Action::AttachNetwork { sandbox } => format!("attach network of {sandbox}"),
        Action::RemoveSandbox { sandbox } => format!("remove sandbox {sandbox}"),
        Action::PullImage { container, reference, attempt } => format!("pull {reference} for {container} {attempt}"),
        Action::StartContainer(start) => {
            let Start { sandbox, name, attempt, image, backoff } = start;
            format!("start {name} {attempt} of {} in {sandbox}, then wait {}s", image.id, backoff.as_secs())
        }
        Action::PostStart { sandbox, container, name } => format!("run postStart of {name} {container} in {sandbox}"),
        Action::PreStop(stop) => {
            let Stop { sandbox, container, name, deadline, reason, .. } = stop;
            format!("run preStop of {name} {container} in {sandbox} until {deadline}, {reason:?}")
        }
        Action::StopContainer(stop) => {
            let Stop { sandbox, container, name, deadline, reason, told } = stop;
            let again = if *told { ", as was told" } else { "" };
            format!("stop {name} {container} in {sandbox} until {deadline}, {reason:?}{again}")
        }
        Action::ResizeContainer { sandbox, container, name } => format!("resize {name} {container} in {sandbox}"),
        Action::RemoveContainer { sandbox, container, name } => format!("remove {name} {container} in {sandbox}"),
        Action::RemoveFiles => "remove files".to_owned(),
        Action::DeleteObject => "delete object".to_owned(),
    }
}

fn render(plan: &Plan) -> Value {
    let mut shown = json!({
        "actions": plan.actions.iter().map(describe).collect::<Vec<_>>(),
        "status": plan.status,
        "wakeAt": plan.wake_at,
        "deadline": plan.deadline,
        "finished": plan.finished,
    });
    if let Some(Cut { reason, message }) = &plan.cut {
        shown["cut"] = json!({ "reason": reason, "message": message });
    }
    shown
}

#[test]
fn every_case_is_planned_as_expected() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/plan");
    let mut cases: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the directory of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.to_string_lossy().ends_with(".expected.json"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for path in cases {
        let text = fs::read_to_string(&path).expect("a case");
        let case: Case = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let wish = if case.gone { Wish::Gone } else { Wish::Keep };
        let planned = plan(Desired { pod: &case.pod, wish }, &case.observed(), &case.memory(), case.now);
        let seen = format!("{:#}\n", render(&planned));
        let expected_path = path.with_extension("expected.json");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&expected_path, seen).expect("an expectation");
        } else if fs::read_to_string(&expected_path).unwrap_or_default() != seen {
            wrong.push(format!("{}:\n{seen}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "these differ (UPDATE_EXPECT=1 writes them anew):\n{}", wrong.join("\n"));
}
