//! Laws that hold for every plan, tried on random lives of a pod.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use proptest::prelude::*;
use runtime::{ContainerId, ContainerState, ContainerStatus, Exit, ImageId, SandboxState, SandboxStatus};
use serde_json::json;

use super::super::memory::{Files, StartError};
use super::super::plan::{Hook, PresentImage, Start, Stop, StopReason, Subject, WaitingReason};
use super::super::{Action, Desired, Memory, Observed, Plan, Wish, labels, plan};
use super::super::{parts, resize};
use crate::container::sandbox_spec;

/// What happens next.
#[derive(Debug, Clone)]
enum Happening {
    /// All planned actions are carried out; those at these positions fail.
    Act { failing: BTreeSet<usize> },
    /// Only the first planned action is carried out.
    ActOnce,
    /// Time passes.
    Wait { seconds: u64 },
    /// A running container ends.
    Exit { which: usize, code: i32 },
    /// The shim dies.
    ShimDies,
    /// The agent starts again and has forgotten everything.
    Forget,
    /// The pod is to be deleted.
    Delete { grace: i64 },
    /// An ephemeral container is added.
    Debug,
    /// The hook that has run longest ends.
    HookEnds { succeeds: bool },
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => proptest::collection::btree_set(0_usize..4, 0..2).prop_map(|failing| Happening::Act { failing }),
        2 => Just(Happening::ActOnce),
        3 => (1_u64..700).prop_map(|seconds| Happening::Wait { seconds }),
        3 => (0_usize..4, prop_oneof![Just(0), Just(1), Just(42)]).prop_map(|(which, code)| Happening::Exit { which, code }),
        1 => Just(Happening::ShimDies),
        1 => Just(Happening::Forget),
        1 => (0_i64..60).prop_map(|grace| Happening::Delete { grace }),
        1 => Just(Happening::Debug),
        2 => proptest::bool::ANY.prop_map(|succeeds| Happening::HookEnds { succeeds }),
    ]
}

/// A pod's life without a node.
struct Toy {
    pod: Pod,
    observed: Observed,
    memory: Memory,
    now: Timestamp,
    containers: u32,
    terminal: Option<String>,
    deadline: Option<Timestamp>,
    /// Hooks under way.
    hooks: Vec<(String, ContainerId, Hook)>,
    /// Containers whose `preStop` hook has begun.
    pre_stopped: BTreeSet<ContainerId>,
}

impl Toy {
    fn new(restart_policy: &str) -> Self {
        let hooks = json!({"postStart": {"exec": {"command": ["warm-up"]}}, "preStop": {"sleep": {"seconds": 5}}});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {
                "restartPolicy": restart_policy,
                "initContainers": [
                    {"name": "first", "image": "init"},
                    {"name": "side", "image": "side", "restartPolicy": "Always", "lifecycle": hooks},
                    {"name": "second", "image": "init"},
                ],
                "containers": [
                    {"name": "a", "image": "app", "lifecycle": hooks},
                    {
                        "name": "b", "image": "app", "imagePullPolicy": "Always",
                        "restartPolicy": restart_policy,
                        "restartPolicyRules": [
                            {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}},
                        ],
                    },
                ],
            },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        Self {
            memory: Memory::of(&pod),
            pod,
            observed: Observed::default(),
            now: "2026-11-20T15:00:00Z".parse().expect("a time"),
            containers: 0,
            terminal: None,
            deadline: None,
            hooks: Vec::new(),
            pre_stopped: BTreeSet::new(),
        }
    }

    /// Plans, checks the laws and takes the plan over.
    fn plan(&mut self) -> Plan {
        let planned = plan(Desired { pod: &self.pod, wish: Wish::Keep }, &self.observed, &self.memory, self.now);
        let subjects: BTreeSet<_> = planned.actions.iter().map(Action::subject).collect();
        assert_eq!(subjects.len(), planned.actions.len(), "two actions on one subject: {:?}", planned.actions);
        assert!(subjects.is_disjoint(&self.observed.in_flight));
        assert!(planned.wake_at.is_none_or(|at| at > self.now), "a wake-up in the past makes the worker spin");
        for action in &planned.actions {
            match action {
                Action::StartContainer(start) => self.check_order(start),
                Action::StopContainer(stop) => self.check_stop(stop),
                _ => {}
            }
        }
        let begins = |name: &str| {
            planned.actions.iter().any(|action| match action {
                Action::StartContainer(start) => start.name == name,
                Action::PostStart { name: own, .. } => own == name,
                _ => false,
            })
        };
        assert!(!(begins("a") && begins("b")), "b does not wait for a and its hook");
        let phase = planned.status.phase.clone();
        if let Some(terminal) = &self.terminal {
            assert_eq!(phase.as_ref(), Some(terminal), "a terminal phase was left");
        }
        self.terminal = phase.filter(|phase| matches!(phase.as_str(), "Succeeded" | "Failed"));
        if let (Some(old), Some(new)) = (self.deadline, planned.deadline) {
            assert!(new <= old, "the deadline grew from {old} to {new}");
        }
        self.deadline = planned.deadline.or(self.deadline);
        self.memory.adopt(&planned);
        self.memory.status = planned.status.clone();
        planned
    }

    /// No signal before a hook that there is time for; none to a sidecar of a pod that ends while others run.
    fn check_stop(&self, stop: &Stop) {
        let running = self.observed.sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
        let mut running = running.filter(|one| matches!(one.state, ContainerState::Running { .. }));
        if stop.reason == StopReason::PodEnds && stop.name == "side" {
            assert!(running.all(|one| one.name == "side"), "the sidecar is stopped too early");
        }
        let asked = self.pod.metadata.deletion_grace_period_seconds;
        let no_time = self.deadline.is_some_and(|deadline| deadline <= self.now) || asked == Some(0);
        if stop.reason == StopReason::RestartAll {
            return;
        }
        let hooked = !["a", "side"].contains(&stop.name.as_str()) || self.pre_stopped.contains(&stop.container);
        assert!(hooked || no_time, "{} is stopped without its hook", stop.name);
        let runs = |(_, id, hook): &&(String, ContainerId, Hook)| *id == stop.container && *hook == Hook::PreStop;
        assert!(
            !self.hooks.iter().any(|hook| runs(&hook)) || stop.deadline <= self.now + Duration::from_secs(2),
            "{} is stopped while its hook has time left",
            stop.name
        );
    }

    /// No app container before the init containers are done, none of these before the one before it.
    fn check_order(&self, start: &Start) {
        if start.name == "debug" {
            assert_eq!(start.attempt, 0, "an ephemeral container is started again");
            return;
        }
        let hooking = |name: &str| self.hooks.iter().any(|(own, _, hook)| own == name && *hook == Hook::PostStart);
        assert!(start.name != "b" || !hooking("a"), "b does not wait for the hook of a");
        let order = ["first", "side", "second", "a", "b"];
        let position = order.iter().position(|name| *name == start.name).expect("a known container");
        let sandbox = self.observed.sandboxes.iter().find(|sandbox| sandbox.spec.id == start.sandbox);
        let sandbox = sandbox.expect("a container is started in a sandbox that exists");
        assert!(!self.observed.addresses.is_empty(), "started without a network");
        let seen = |name: &str| sandbox.containers.iter().filter(|one| one.name == name).max_by_key(|one| one.attempt);
        let begun = |from: usize| order.iter().skip(from).any(|name| seen(name).is_some());
        let restarting = match seen("b").map(|one| one.state) {
            Some(ContainerState::Exited(exit)) => exit.code == 42,
            _ => false,
        };
        assert!(!restarting, "{} is started while all are to be restarted", start.name);
        for (index, before) in order.iter().enumerate().take(position.min(3)) {
            let fine = match seen(before).map(|one| one.state) {
                Some(ContainerState::Exited(exit)) => *before == "side" || exit.code == 0,
                Some(ContainerState::Running { .. }) => *before == "side",
                None => false,
            };
            assert!(fine || begun(index + 1), "{} started before {before} was done", start.name);
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Act { failing } => {
                let planned = self.plan();
                for (position, action) in planned.actions.iter().enumerate() {
                    self.apply(action, failing.contains(&position));
                }
            }
            Happening::ActOnce => {
                let planned = self.plan();
                if let Some(action) = planned.actions.first() {
                    self.apply(action, false);
                }
                // What was not begun was not asked for either.
                let hooks: Vec<ContainerId> = self.hooks.iter().map(|(_, id, _)| id.clone()).collect();
                self.memory.stops.retain(|id, _| hooks.contains(id));
            }
            Happening::Wait { seconds } => self.now += Duration::from_secs(*seconds),
            Happening::Exit { which, code } => self.end(*which, *code),
            Happening::ShimDies => {
                if let Some(sandbox) = self.observed.sandboxes.last_mut() {
                    sandbox.state = SandboxState::Dead;
                }
                self.end_hooks_of_the_ended();
            }
            Happening::Forget => {
                self.pod.status = Some(self.memory.status.clone());
                self.memory = Memory::of(&self.pod);
                self.deadline = None;
                self.hooks.clear();
                self.observed.in_flight.clear();
                self.pre_stopped.clear();
            }
            Happening::Debug => {
                let own = EphemeralContainer {
                    name: "debug".to_owned(),
                    image: Some("app".to_owned()),
                    ..Default::default()
                };
                self.pod.spec.as_mut().expect("a spec").ephemeral_containers.get_or_insert_with(|| vec![own]);
            }
            Happening::HookEnds { succeeds } => self.end_hook(0, *succeeds),
            Happening::Delete { grace } => {
                let at = self.now + Duration::from_secs(u64::try_from(*grace).unwrap_or(0));
                self.pod.metadata.deletion_timestamp.get_or_insert(at.into());
                let known = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(i64::MAX);
                self.pod.metadata.deletion_grace_period_seconds = Some(known.min(*grace));
            }
        }
    }

    fn running(&mut self) -> Vec<&mut ContainerStatus> {
        let all = self.observed.sandboxes.iter_mut().flat_map(|sandbox| &mut sandbox.containers);
        all.filter(|one| matches!(one.state, ContainerState::Running { .. })).collect()
    }

    fn end(&mut self, which: usize, code: i32) {
        let finished_at = self.now;
        if let Some(one) = self.running().into_iter().nth(which) {
            one.state = exited(one.state, code, finished_at);
        }
        self.end_hooks_of_the_ended();
    }

    fn end_hook(&mut self, which: usize, succeeds: bool) {
        if which < self.hooks.len() {
            let (name, id, hook) = self.hooks.remove(which);
            self.observed.in_flight.remove(&Subject::Hook(name, hook));
            self.memory.hooked(id, hook, succeeds);
        }
    }

    /// A hook ends with its container.
    fn end_hooks_of_the_ended(&mut self) {
        let alive = self.observed.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
        let alive: BTreeSet<ContainerId> = alive
            .flat_map(|sandbox| &sandbox.containers)
            .filter(|one| matches!(one.state, ContainerState::Running { .. }))
            .map(|one| one.id.clone())
            .collect();
        while let Some(which) = self.hooks.iter().position(|(_, id, _)| !alive.contains(id)) {
            self.end_hook(which, false);
        }
    }

    fn begin_hook(&mut self, name: &str, id: &ContainerId, hook: Hook, takes_long: bool, fails: bool) {
        if hook == Hook::PreStop {
            self.pre_stopped.insert(id.clone());
        }
        if takes_long {
            self.observed.in_flight.insert(Subject::Hook(name.to_owned(), hook));
            self.hooks.push((name.to_owned(), id.clone(), hook));
        } else {
            self.memory.hooked(id.clone(), hook, !fails);
        }
    }

    fn apply(&mut self, action: &Action, fails: bool) {
        let message = "it fails".to_owned();
        match action {
            Action::PrepareFiles if fails => {
                self.memory.files_failed(message, std::collections::BTreeMap::new(), self.now)
            }
            Action::PrepareFiles => self.memory.files = Files::Ready { renew_at: None },
            Action::CreateSandbox { .. } | Action::AttachNetwork { .. } if fails => {
                self.memory.sandbox_failed(message, self.now);
            }
            Action::CreateSandbox { attempt } => {
                let spec = sandbox_spec(&self.pod, *attempt, Path::new("kubepods"), PathBuf::from("logs"));
                let status =
                    SandboxStatus { spec, state: SandboxState::Ready, created_at: self.now, containers: Vec::new() };
                assert!(self.observed.sandboxes.is_empty(), "a second sandbox");
                self.observed.sandboxes.push(status);
            }
            Action::AttachNetwork { .. } => {
                self.memory.sandbox = None;
                self.observed.addresses = vec!["10.42.0.2".parse().expect("an address")];
            }
            Action::RemoveSandbox { sandbox } => {
                assert!(self.observed.sandboxes.iter().any(|one| one.spec.id == *sandbox), "it exists");
                self.observed.sandboxes.retain(|one| one.spec.id != *sandbox);
                self.observed.addresses.clear();
                self.end_hooks_of_the_ended();
            }
            Action::PullImage { container, .. } if fails => {
                self.memory.pull_failed(container, WaitingReason::ErrImagePull, message, self.now);
            }
            Action::PullImage { container, reference, attempt } => {
                let image = PresentImage { id: ImageId(reference.clone()), status_id: reference.clone() };
                self.observed.images.insert(reference.clone(), image);
                self.memory.pulled(container, *attempt);
            }
            Action::StartContainer(start) if fails => {
                self.memory.start_failed(start, StartError::Execute, message, self.now);
            }
            Action::StartContainer(start) => self.start(start),
            Action::PostStart { container, name, .. } => {
                // Every third one takes its time.
                let takes_long = fails && !self.containers.is_multiple_of(3);
                self.begin_hook(name, container, Hook::PostStart, takes_long, fails);
            }
            Action::PreStop(stop) => self.begin_hook(&stop.name, &stop.container, Hook::PreStop, fails, fails),
            Action::StopContainer(Stop { container, .. }) => {
                let finished_at = self.now;
                if let Some(one) = self.running().into_iter().find(|one| one.id == *container) {
                    one.state = exited(one.state, 143, finished_at);
                }
                self.end_hooks_of_the_ended();
            }
            Action::ResizeContainer { container, .. } if fails => {
                self.memory.resize_failed(container.clone(), message, self.now);
            }
            Action::ResizeContainer { container, name, .. } => {
                let own = parts::containers(&self.pod).find(|own| own.name == *name).expect("the container");
                let whole = self.pod.spec.as_ref().and_then(|spec| spec.resources.clone());
                self.memory.resized(container.clone(), [Some(resize::wanted(&own)), whole]);
            }
            Action::RemoveContainer { container, .. } => {
                for sandbox in &mut self.observed.sandboxes {
                    sandbox.containers.retain(|one| one.id != *container);
                }
            }
            Action::RemoveFiles => self.memory.files = Files::Removed,
            Action::DeleteObject => self.memory.object_gone = true,
        }
    }

    fn start(&mut self, start: &Start) {
        self.containers += 1;
        let status = ContainerStatus {
            id: ContainerId(self.containers.to_string()),
            name: start.name.clone(),
            attempt: start.attempt,
            image: start.image.id.clone(),
            image_reference: start.image.id.0.clone(),
            labels: [(labels::BACKOFF.to_owned(), start.backoff.as_secs().to_string())].into(),
            user: None,
            state: ContainerState::Running { pid: 1, started_at: self.now },
            log_path: PathBuf::from("log"),
        };
        let sandbox = self.observed.sandboxes.iter_mut().find(|one| one.spec.id == start.sandbox).expect("it exists");
        let last = sandbox.containers.iter().filter(|one| one.name == start.name).map(|one| one.attempt).max();
        assert!(last.is_none_or(|last| last < start.attempt), "attempt {} of {} twice", start.attempt, start.name);
        sandbox.containers.push(status);
        self.memory.started(&start.name);
    }

    /// Carries everything out, lets init containers succeed and time pass, until nothing is planned.
    fn comes_to_rest(&mut self) -> Plan {
        for _ in 0..200 {
            let planned = self.plan();
            for action in &planned.actions {
                self.apply(action, false);
            }
            let finished_at = self.now;
            let init = self.running().into_iter().find(|one| ["first", "second"].contains(&one.name.as_str()));
            if let Some(one) = init {
                one.state = exited(one.state, 0, finished_at);
                self.end_hooks_of_the_ended();
            } else if planned.actions.is_empty() {
                // A postStart hook that never ended would keep the pod waiting for ever, as it should.
                if let Some(which) = self.hooks.iter().position(|(_, _, hook)| *hook == Hook::PostStart) {
                    self.end_hook(which, true);
                    continue;
                }
                match planned.wake_at {
                    Some(at) if !planned.finished => self.now = at.max(self.now + Duration::from_millis(1)),
                    _ => return planned,
                }
            }
        }
        panic!("it does not come to rest: {:?}", self.plan());
    }
}

fn exited(state: ContainerState, code: i32, finished_at: Timestamp) -> ContainerState {
    let started_at = match state {
        ContainerState::Running { started_at, .. } => started_at,
        ContainerState::Exited(exit) => exit.started_at,
    };
    ContainerState::Exited(Exit { code, signal: None, oom_killed: false, started_at, finished_at })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 8 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    #[test]
    fn any_life_keeps_the_laws_and_comes_to_rest(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        life in proptest::collection::vec(happenings(), 0..40),
    ) {
        let mut toy = Toy::new(policy);
        for happening in &life {
            toy.happen(happening);
        }
        let rest = toy.comes_to_rest();
        if toy.pod.metadata.deletion_timestamp.is_some() {
            prop_assert!(rest.finished, "a deleted pod is not finished: {rest:?}");
            prop_assert!(toy.observed.sandboxes.is_empty());
        } else if policy == "Always" {
            let apps = toy.running().into_iter().filter(|one| one.name != "debug").count();
            prop_assert_eq!(apps, 3, "sidecar and apps run: {:?}", rest);
        }
    }
}
