//! The table row of a pod (`printPod` in `pkg/printers/internalversion/printers.go`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{first_ip, is_restartable};
use crate::resources::cell;
use crate::resources::path::{items, present, text};

/// What the containers' statuses add up to.
#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    restarts: Restarts,
    reason: String,
}

/// How often containers were restarted, and when the last of them ended before.
#[derive(Default, Clone)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status["restartCount"].as_i64().unwrap_or(0);
        let finished = text(&status["lastState"]["terminated"], "finishedAt").parse().ok();
        self.last = self.last.max(finished);
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, cell::human(now.duration_since(last).as_secs()))
            }
            _ => self.count.to_string(),
        }
    }
}

/// The cells of a pod.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarise(pod);
    vec![
        cell::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        summary.restarts.text(now).into(),
        cell::age(pod, now),
        cell::or(first_ip(pod), "<none>"),
        cell::or(text(&pod["spec"], "nodeName"), "<none>"),
        cell::or(text(&pod["status"], "nominatedNodeName"), "<none>"),
        readiness_gates(pod).into(),
    ]
}

/// Pods that ended are marked, so that clients can hide them.
pub(super) fn completion(pod: &Value) -> Option<Value> {
    let message = match text(&pod["status"], "phase") {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    let reason = &pod["status"]["phase"];
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

fn summarise(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let phase = text(status, "phase");
    let mut summary = Summary {
        total: items(spec, "containers").len()
            + items(spec, "initContainers").iter().filter(|c| is_restartable(c)).count(),
        reason: if present(status, "reason") { text(status, "reason") } else { phase }.to_owned(),
        ..Summary::default()
    };
    let is_gated = |condition: &Value| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated";
    if items(status, "conditions").iter().any(is_gated) {
        "SchedulingGated".clone_into(&mut summary.reason);
    }
    let (initializing, sidecars) = init_containers(pod, &mut summary);
    if !initializing || is_true(status, "Initialized") {
        summary.restarts = sidecars;
        containers(status, &mut summary);
    }
    if present(&pod["metadata"], "deletionTimestamp") {
        if status["reason"] == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if phase != "Succeeded" && phase != "Failed" {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

/// Goes through the init containers up to the first that is not done; returns whether there is one, and the restarts of
/// the sidecars among them.
fn init_containers(pod: &Value, summary: &mut Summary) -> (bool, Restarts) {
    let specs = items(&pod["spec"], "initContainers");
    let mut sidecars = Restarts::default();
    for (index, status) in items(&pod["status"], "initContainerStatuses").iter().enumerate() {
        let is_sidecar = specs.iter().any(|spec| spec["name"] == status["name"] && is_restartable(spec));
        summary.restarts.add(status);
        if is_sidecar {
            sidecars.add(status);
        }
        let (waiting, terminated) = (&status["state"]["waiting"], &status["state"]["terminated"]);
        if terminated.is_object() && exit_code(terminated) == 0 {
            continue;
        }
        if is_sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        summary.reason = match text(waiting, "reason") {
            _ if terminated.is_object() => format!("Init:{}", ending(terminated)),
            "" | "PodInitializing" => format!("Init:{index}/{}", specs.len()),
            reason => format!("Init:{reason}"),
        };
        return (true, sidecars);
    }
    (false, sidecars)
}

/// Goes through the containers, last first, so that the first one's trouble is shown.
fn containers(status: &Value, summary: &mut Summary) {
    let mut has_running = false;
    for container in items(status, "containerStatuses").iter().rev() {
        summary.restarts.add(container);
        let (waiting, terminated) = (&container["state"]["waiting"], &container["state"]["terminated"]);
        if !text(waiting, "reason").is_empty() {
            text(waiting, "reason").clone_into(&mut summary.reason);
        } else if terminated.is_object() {
            summary.reason = ending(terminated);
        } else if container["ready"] == true && present(&container["state"], "running") {
            has_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && has_running {
        let reason = if is_true(status, "Ready") { "Running" } else { "NotReady" };
        reason.clone_into(&mut summary.reason);
    }
}

fn ending(terminated: &Value) -> String {
    match (text(terminated, "reason"), terminated["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", exit_code(terminated)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn exit_code(terminated: &Value) -> i64 {
    terminated["exitCode"].as_i64().unwrap_or(0)
}

fn is_true(status: &Value, condition: &str) -> bool {
    items(status, "conditions").iter().any(|own| own["type"] == condition && own["status"] == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| is_true(&pod["status"], text(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len())
}
