//! The conditions of a pod, after `pkg/kubelet/status/generate.go` upstream.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::resize;
use super::super::view::{Kind, View, whole_seconds};
use super::phase::{Phase, Verdict};

/// The conditions that are ours, in the order in which they are shown.
const OWN: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Ours too, of pods that may be restarted as a whole.
const RESTARTING: &str = "AllContainersRestarting";

/// Ours too, while there is something to say.
pub(super) const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Ours if the kubelet has evicted the pod; others say it as well.
const DISRUPTION: &str = "DisruptionTarget";
const BY_KUBELET: &str = "TerminationByKubelet";

/// What a condition says.
struct Says {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Says {
    fn yes() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { holds: false, reason: Some(reason), message }
    }
}

/// Renders all conditions: ours anew, those of others as they are.
pub(super) fn render(
    view: &View<'_>,
    verdict: &Verdict,
    init: &[ContainerStatus],
    apps: &[ContainerStatus],
) -> Vec<PodCondition> {
    let containers_ready = containers_ready(view, verdict.bound_for, init, apps);
    let ready = ready(view, &containers_ready);
    let sandbox = view.connected_sandbox().is_some() && !matches!(verdict.phase, Phase::Succeeded | Phase::Failed);
    let own = [
        if sandbox { Says::yes() } else { Says { holds: false, reason: None, message: None } },
        initialized(view, verdict.bound_for, init),
        ready,
        containers_ready,
        Says::yes(),
    ];
    let own = OWN.into_iter().zip(own).map(|(name, says)| condition(view, name, says));
    own.chain(restarting(view, verdict.phase))
        .chain(foreign(view))
        .chain(disruption(view))
        .chain(resizes(view))
        .collect()
}

/// Says whether all containers are being restarted, of a pod with a rule that may do that
/// (`status.GenerateAllContainersRestartingCondition` upstream).
fn restarting(view: &View<'_>, phase: Phase) -> Option<PodCondition> {
    view.lasting().find(|own| own.restarts.may_restart_all())?;
    let says = match phase {
        Phase::Succeeded => Says::no("PodCompleted", None),
        Phase::Failed => Says::no("PodFailed", None),
        _ if view.restarts_all() && !view.ends() => {
            let message = "container exited with restart policy rule".to_owned();
            Says { holds: true, reason: Some("RestartAllContainersStarted"), message: Some(message) }
        }
        _ => Says { holds: false, reason: None, message: None },
    };
    Some(condition(view, RESTARTING, says))
}

/// Whether it is the kubelet that says a condition.
pub(super) fn is_own(condition: &PodCondition) -> bool {
    let evicts = condition.type_ == DISRUPTION && condition.reason.as_deref() == Some(BY_KUBELET);
    evicts || is_own_type(&condition.type_)
}

fn is_own_type(name: &str) -> bool {
    OWN.contains(&name) || PASSING.contains(&name) || name == RESTARTING
}

/// Says of an evicted pod that its node has ended it (KEP-3329); once the object has that, it is kept like any other.
fn disruption(view: &View<'_>) -> Option<PodCondition> {
    let evicted =
        view.memory.evicted.as_ref().filter(|_| !foreign(view).any(|condition| condition.type_ == DISRUPTION))?;
    let message = Some(evicted.disruption.clone());
    Some(condition(view, DISRUPTION, Says { holds: true, reason: Some(BY_KUBELET), message }))
}

/// What is said of a resize as long as it is not done (KEP-1287).
fn resizes(view: &View<'_>) -> impl Iterator<Item = PodCondition> {
    let says = |reason: &'static str, message| Says { holds: true, reason: Some(reason), message };
    let pending = view.memory.resize_pending.as_ref();
    let pending = pending.map(|pending| (PASSING[0], says(pending.reason, Some(pending.message.clone()))));
    let running = resize::in_progress(view).map(|failure| match failure {
        Some(message) => (PASSING[1], says("Error", Some(message))),
        None => (PASSING[1], Says::yes()),
    });
    pending.into_iter().chain(running).map(|(name, says)| condition(view, name, says))
}

/// Conditions that the API object has and that are nobody's business here: readiness gates, disruption.
fn foreign(view: &View<'_>) -> impl Iterator<Item = PodCondition> {
    let status = view.pod.status.as_ref();
    let all = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    all.filter(|condition| !is_own_type(&condition.type_)).cloned()
}

fn condition(view: &View<'_>, name: &str, says: Says) -> PodCondition {
    let status = if says.holds { "True" } else { "False" };
    let known = [Some(&view.memory.status), view.pod.status.as_ref()]
        .into_iter()
        .flatten()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|known| known.type_ == name && known.status == status);
    let transition = known.and_then(|known| known.last_transition_time.clone());
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: says.reason.map(str::to_owned),
        message: says.message,
        last_transition_time: Some(transition.unwrap_or_else(|| Time(whole_seconds(view.now)))),
        last_probe_time: None,
        observed_generation: view.pod.metadata.generation,
    }
}

fn initialized(view: &View<'_>, phase: Phase, init: &[ContainerStatus]) -> Says {
    if phase == Phase::Succeeded {
        return Says { holds: true, reason: Some("PodCompleted"), message: None };
    }
    if view.initialized() || view.apps.iter().any(|app| app.attempt.is_some()) {
        return Says::yes();
    }
    let incomplete: Vec<&str> = view
        .init
        .iter()
        .zip(init)
        .filter(|(facts, status)| match facts.kind {
            Kind::Sidecar => status.started != Some(true),
            _ => !status.ready,
        })
        .map(|(_, status)| status.name.as_str())
        .collect();
    Says::no("ContainersNotInitialized", Some(format!("containers with incomplete status: [{}]", incomplete.join(" "))))
}

fn containers_ready(view: &View<'_>, phase: Phase, init: &[ContainerStatus], apps: &[ContainerStatus]) -> Says {
    match phase {
        Phase::Succeeded => return Says::no("PodCompleted", None),
        Phase::Failed => return Says::no("PodFailed", None),
        Phase::Pending | Phase::Running => {}
    }
    let sidecars =
        view.init.iter().zip(init).filter(|(facts, _)| facts.kind == Kind::Sidecar).map(|(_, status)| status);
    let unready: Vec<&str> =
        sidecars.chain(apps).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        return Says::yes();
    }
    Says::no("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))
}

fn ready(view: &View<'_>, containers: &Says) -> Says {
    if !containers.holds {
        return Says { holds: false, reason: containers.reason, message: containers.message.clone() };
    }
    let missing: Vec<String> = view
        .spec
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| gate_problem(view, &gate.condition_type))
        .collect();
    if missing.is_empty() { Says::yes() } else { Says::no("ReadinessGatesNotReady", Some(missing.join(", "))) }
}

fn gate_problem(view: &View<'_>, gate: &str) -> Option<String> {
    match foreign(view).find(|condition| condition.type_ == gate) {
        None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
        Some(found) if found.status == "True" => None,
        Some(found) => Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", found.status)),
    }
}
