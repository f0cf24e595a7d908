//! Asking: by a command in the container, by HTTP, by gRPC, by opening a connection.
//!
//! Results follow `pkg/probe` and `pkg/kubelet/prober` upstream: an HTTP status from 200 to 399 is a success; the body is
//! not judged; what cannot be asked does not count.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe, TCPSocketAction};
use runtime::{ContainerId, ExecSpec, SandboxId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::http::{Get, dial, port_number};
use super::verdict::{Pace, Rule, Series, Verdict};
use super::{Verdicts, grpc, probes};
use crate::container::not_run;
use crate::pod::plan::FailedProbe;
use crate::pod::report;
use crate::shared::Shared;

/// How much a probe command may print, as upstream's `maxReadLength`.
const OUTPUT_LIMIT: usize = 10 * 1024;
/// Who we say that we are.
const AGENT: &str = "kube-probe/1.36";
/// How often it is tried to ask, as upstream's `maxProbeRetries`.
const TRIES: usize = 3;

/// The container to be asked.
pub(super) struct Target {
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) id: ContainerId,
    pub(super) sandbox: SandboxId,
    pub(super) started_at: Timestamp,
    /// Its startup probe has succeeded before.
    pub(super) started: bool,
    pub(super) address: Option<IpAddr>,
    /// The pod is being ended.
    pub(super) ending: Arc<AtomicBool>,
}

/// Which probe it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// What all probes of one container share.
struct Desk<'a> {
    shared: &'a Shared,
    verdicts: &'a Verdicts,
    look: &'a Notify,
    target: &'a Target,
}

/// What came of asking once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Fine,
    /// Fine, but worth a word.
    Doubtful(String),
    Bad(String),
    /// It could not be asked, which says nothing about the container.
    Unknown(String),
}

impl Asked {
    /// Whether it succeeded, if it counts.
    fn counts(&self) -> Option<bool> {
        match self {
            Self::Fine | Self::Doubtful(_) => Some(true),
            Self::Bad(_) => Some(false),
            Self::Unknown(_) => None,
        }
    }
}

impl From<Result<(), String>> for Asked {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Bad, |()| Self::Fine)
    }
}

/// Probes a container until it is told to stop by being dropped.
pub(super) async fn probe_container(shared: Arc<Shared>, verdicts: Arc<Verdicts>, look: Arc<Notify>, target: Target) {
    let desk = Desk { shared: &shared, verdicts: &verdicts, look: &look, target: &target };
    let [startup, readiness, liveness] = probes(&target.container);
    if let Some(probe) = startup.filter(|_| !target.started)
        && !run(&desk, Kind::Startup, probe).await
    {
        return;
    }
    let one = async |kind, probe: Option<&Probe>| {
        if let Some(probe) = probe {
            run(&desk, kind, probe).await;
        }
    };
    futures_util::join!(one(Kind::Readiness, readiness), one(Kind::Liveness, liveness));
}

/// Asks again and again. Returns when the probe has done its part: a startup probe has passed, which is told; a failure
/// demands a restart; or the container is being ended and only its readiness still matters.
async fn run(desk: &Desk<'_>, kind: Kind, probe: &Probe) -> bool {
    let rule = Rule::of(probe);
    let (mut series, mut pace) = (Series::new(rule), Pace::new(rule, kind == Kind::Readiness));
    let since = Duration::try_from(desk.shared.now().duration_since(desk.target.started_at)).unwrap_or_default();
    tokio::time::sleep(rule.initial_delay.saturating_sub(since)).await;
    if desk.target.started_at < desk.shared.began_at {
        tokio::time::sleep(share(&desk.target.id, kind, rule.period)).await;
    }
    loop {
        let asked_at = Instant::now();
        if kind != Kind::Readiness && desk.target.ending.load(Ordering::Relaxed) {
            return false;
        }
        let asked = ask_surely(desk, probe, rule.timeout).await;
        tell(desk, kind, &asked);
        let verdict = asked.counts().and_then(|success| series.add(success));
        if let Some(passed) = verdict.and_then(|verdict| settle(desk, kind, verdict)) {
            return passed;
        }
        tokio::time::sleep_until(asked_at + pace.after(asked.counts() == Some(true))).await;
    }
}

/// A part of a period that is another for each probe: an agent that has just started and finds many containers shall not ask
/// all of them at once (`worker.run` of `pkg/kubelet/prober` upstream, which takes a random part).
fn share(id: &ContainerId, kind: Kind, period: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (id, kind).hash(&mut hasher);
    let thousandths = u32::try_from(hasher.finish() % 1000).unwrap_or_default();
    period * thousandths / 1000
}

/// Writes a verdict down; tells whether the probe has passed once it has done its part.
fn settle(desk: &Desk<'_>, kind: Kind, verdict: Verdict) -> Option<bool> {
    let (news, done) = match (kind, verdict) {
        (Kind::Startup, Verdict::Passing) => (desk.change(|probed| probed.started = true), Some(true)),
        (Kind::Startup, Verdict::Failing) => {
            (desk.change(|probed| probed.failed = Some(FailedProbe::Startup)), Some(false))
        }
        (Kind::Liveness, Verdict::Failing) => {
            (desk.change(|probed| probed.failed = Some(FailedProbe::Liveness)), Some(false))
        }
        (Kind::Liveness, Verdict::Passing) => (false, None),
        (Kind::Readiness, verdict) => (desk.change(|probed| probed.ready = verdict == Verdict::Passing), None),
    };
    if news {
        desk.look.notify_one();
    }
    done
}

impl Desk<'_> {
    fn change(&self, change: impl FnOnce(&mut crate::pod::plan::Probed)) -> bool {
        self.verdicts.change(&self.target.id, change)
    }
}

fn tell(desk: &Desk<'_>, kind: Kind, asked: &Asked) {
    let name = match kind {
        Kind::Startup => "Startup",
        Kind::Readiness => "Readiness",
        Kind::Liveness => "Liveness",
    };
    let uid = desk.target.pod.metadata.uid.as_deref().unwrap_or_default();
    desk.shared.metrics.probes.count(uid, &desk.target.container.name, name, asked.counts());
    let (reason, message) = match asked {
        Asked::Fine => return,
        Asked::Doubtful(warning) => ("ProbeWarning", format!("{name} probe warning: {warning}")),
        Asked::Bad(problem) => ("Unhealthy", format!("{name} probe failed: {problem}")),
        Asked::Unknown(problem) => {
            ("Unhealthy", format!("{name} probe errored and resulted in unknown state: {problem}"))
        }
    };
    let Target { pod, container, .. } = desk.target;
    report::of_container(desk.shared, pod, &container.name, EventType::Warning, reason, &message);
}

/// Asks until there is an answer of some kind, [`TRIES`] times at most.
async fn ask_surely(desk: &Desk<'_>, probe: &Probe, timeout: Duration) -> Asked {
    let mut asked = ask(desk, probe, timeout).await;
    for _ in 1..TRIES {
        if asked.counts().is_some() {
            break;
        }
        asked = ask(desk, probe, timeout).await;
    }
    asked
}

async fn ask(desk: &Desk<'_>, probe: &Probe, timeout: Duration) -> Asked {
    if let Some(exec) = &probe.exec {
        ask_by_command(desk, exec.command.clone().unwrap_or_default(), timeout).await
    } else if let Some(get) = &probe.http_get {
        ask_by_http(desk, get, timeout).await
    } else if let Some(tcp) = &probe.tcp_socket {
        ask_by_connecting(desk, tcp, timeout).await
    } else if let Some(grpc) = &probe.grpc {
        let (Some(address), Ok(port)) = (desk.target.address, u16::try_from(grpc.port)) else {
            return Asked::Unknown("the pod has no address".to_owned());
        };
        let service = grpc.service.as_deref().unwrap_or_default();
        grpc::check(&address.to_string(), port, service, timeout).await.into()
    } else {
        Asked::Unknown(format!("missing probe handler for {}", desk.target.container.name))
    }
}

async fn ask_by_command(desk: &Desk<'_>, args: Vec<String>, timeout: Duration) -> Asked {
    let Target { sandbox, id, .. } = desk.target;
    let command = args.join(" ");
    let spec = ExecSpec { args, timeout: Some(timeout), output_limit: OUTPUT_LIMIT, again: true };
    match desk.shared.seams.runtime.exec(sandbox, id, spec).await {
        Ok(result) => match result.code {
            Some(0) => Asked::Fine,
            Some(_) => Asked::Bad(String::from_utf8_lossy(&[result.stdout, result.stderr].concat()).into_owned()),
            None => Asked::Bad(format!("command timed out: {command:?} timed out after {}s", timeout.as_secs())),
        },
        Err(error) => Asked::Unknown(not_run(&error)),
    }
}

async fn ask_by_http(desk: &Desk<'_>, action: &HTTPGetAction, timeout: Duration) -> Asked {
    let get = match Get::new(action, &desk.target.container, desk.target.address, AGENT) {
        Ok(get) => get,
        Err(error) => return Asked::Unknown(error.to_string()),
    };
    let late = || Err(get.failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"));
    match tokio::time::timeout(timeout, get.send()).await.unwrap_or_else(|_| late()) {
        Ok(answer) => match answer.status {
            200..=299 => Asked::Fine,
            300..=399 => Asked::Doubtful(format!("Probe terminated redirects, Response body: {}", answer.body)),
            status => Asked::Bad(format!("HTTP probe failed with statuscode: {status}")),
        },
        Err(error) => Asked::Bad(error.to_string()),
    }
}

async fn ask_by_connecting(desk: &Desk<'_>, action: &TCPSocketAction, timeout: Duration) -> Asked {
    let port = match port_number(&desk.target.container, &action.port) {
        Ok(port) => port,
        Err(problem) => return Asked::Unknown(problem),
    };
    let own = desk.target.address.map(|address| address.to_string());
    let Some(host) = action.host.clone().filter(|host| !host.is_empty()).or(own) else {
        return Asked::Unknown("the pod has no address".to_owned());
    };
    let late = || Err(format!("dial tcp {host}:{port}: i/o timeout"));
    let dialled = tokio::time::timeout(timeout, dial(&host, port)).await.unwrap_or_else(|_| late());
    dialled.map(drop).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_many_containers_are_spread_over_a_period() {
        let period = Duration::from_secs(10);
        let id = |number: usize| ContainerId(format!("{number:064x}"));
        let mut shares: Vec<Duration> = (0..100).map(|number| share(&id(number), Kind::Liveness, period)).collect();
        shares.sort();
        assert!(shares.iter().all(|share| *share < period));
        shares.dedup();
        assert!(shares.len() > 80, "{shares:?}");
        assert_ne!(share(&id(1), Kind::Liveness, period), share(&id(1), Kind::Readiness, period));
    }
}
