//! Asking: by a command in the container, by HTTP, by opening a connection.
//!
//! Results follow `pkg/probe` upstream: an HTTP status from 200 to 399 is a success; the body is not judged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::events::{EventType, reference_part};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::{ContainerId, ExecSpec, SandboxId};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::verdict::{Rule, Series, Verdict};
use super::{Verdicts, probes};
use crate::pod::plan::FailedProbe;
use crate::shared::{Shared, chain, errno_text};

/// How much a probe command may print, as upstream's `maxReadLength`.
const OUTPUT_LIMIT: usize = 10 * 1024;

/// The container to be asked.
pub(super) struct Target {
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) id: ContainerId,
    pub(super) sandbox: SandboxId,
    pub(super) started_at: Timestamp,
    pub(super) address: Option<IpAddr>,
}

/// Which probe it is.
#[derive(Clone, Copy)]
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

/// Whether we know how to ask that way. gRPC and HTTPS are named as unsupported when the pod arrives.
pub(super) fn is_supported(probe: &Probe) -> bool {
    let https = probe.http_get.as_ref().is_some_and(|get| get.scheme.as_deref() == Some("HTTPS"));
    probe.grpc.is_none() && !https
}

/// Probes a container until it is told to stop by being dropped.
pub(super) async fn probe_container(shared: Arc<Shared>, verdicts: Arc<Verdicts>, look: Arc<Notify>, target: Target) {
    let desk = Desk { shared: &shared, verdicts: &verdicts, look: &look, target: &target };
    let [startup, readiness, liveness] = probes(&target.container);
    if let Some(probe) = startup {
        run(&desk, Kind::Startup, probe).await;
    }
    let one = async |kind, probe: Option<&Probe>| {
        if let Some(probe) = probe {
            run(&desk, kind, probe).await;
        }
    };
    futures_util::join!(one(Kind::Readiness, readiness), one(Kind::Liveness, liveness));
}

/// Asks again and again. Returns when a startup probe has passed, or when a failure demands a restart.
async fn run(desk: &Desk<'_>, kind: Kind, probe: &Probe) {
    let rule = Rule::of(probe);
    let mut series = Series::new(rule);
    let since = Duration::try_from(desk.shared.now().duration_since(desk.target.started_at)).unwrap_or_default();
    tokio::time::sleep(rule.initial_delay.saturating_sub(since)).await;
    loop {
        let result = ask(desk, probe, rule.timeout).await;
        if let Err(problem) = &result {
            tell(desk, kind, problem);
        }
        let verdict = series.add(result.is_ok());
        if verdict.is_some_and(|verdict| settle(desk, kind, verdict)) {
            return;
        }
        tokio::time::sleep(rule.period).await;
    }
}

/// Writes a verdict down; tells whether the probe has done its part.
fn settle(desk: &Desk<'_>, kind: Kind, verdict: Verdict) -> bool {
    let (news, done) = match (kind, verdict) {
        (Kind::Startup, Verdict::Passing) => (desk.change(|probed| probed.started = true), true),
        (Kind::Startup, Verdict::Failing) => (desk.change(|probed| probed.failed = Some(FailedProbe::Startup)), false),
        (Kind::Liveness, Verdict::Failing) => (desk.change(|probed| probed.failed = Some(FailedProbe::Liveness)), true),
        (Kind::Liveness, Verdict::Passing) => (false, false),
        (Kind::Readiness, verdict) => (desk.change(|probed| probed.ready = verdict == Verdict::Passing), false),
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

fn tell(desk: &Desk<'_>, kind: Kind, problem: &str) {
    let name = match kind {
        Kind::Startup => "Startup",
        Kind::Readiness => "Readiness",
        Kind::Liveness => "Liveness",
    };
    let subject = reference_part(&*desk.target.pod, &format!("spec.containers{{{}}}", desk.target.container.name));
    desk.shared.event(&subject, EventType::Warning, "Unhealthy", &format!("{name} probe failed: {problem}"));
}

async fn ask(desk: &Desk<'_>, probe: &Probe, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        return ask_by_command(desk, exec.command.clone().unwrap_or_default(), timeout).await;
    }
    let asked = async {
        if let Some(get) = &probe.http_get {
            ask_by_http(desk, get).await
        } else if let Some(tcp) = &probe.tcp_socket {
            dial(address(desk, tcp.host.as_deref(), &tcp.port)?).await.map(drop)
        } else {
            Err("missing probe handler".to_owned())
        }
    };
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

async fn ask_by_command(desk: &Desk<'_>, args: Vec<String>, timeout: Duration) -> Result<(), String> {
    let Target { sandbox, id, .. } = desk.target;
    let command = args.join(" ");
    let spec = ExecSpec { args, timeout: Some(timeout), output_limit: OUTPUT_LIMIT };
    match desk.shared.seams.runtime.exec(sandbox, id, spec).await {
        Ok(result) => match result.code {
            Some(0) => Ok(()),
            Some(_) => Err(String::from_utf8_lossy(&[result.stdout, result.stderr].concat()).into_owned()),
            None => Err(format!("command timed out: {command:?} timed out after {}s", timeout.as_secs())),
        },
        Err(error) => Err(chain(&error)),
    }
}

async fn ask_by_http(desk: &Desk<'_>, get: &HTTPGetAction) -> Result<(), String> {
    let path = get.path.clone().unwrap_or_default();
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let address = address(desk, get.host.as_deref(), &get.port)?;
    let stream = dial(address).await.map_err(|problem| format!("Get \"http://{address}{path}\": {problem}"))?;
    let mut request =
        http::Request::builder().uri(&path).header("User-Agent", "kube-probe/1.36").header("Accept", "*/*");
    let headers = get.http_headers.iter().flatten();
    if !headers.clone().any(|header| header.name.eq_ignore_ascii_case("host")) {
        request = request.header("Host", get.host.clone().unwrap_or_else(|| address.to_string()));
    }
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    let problem = |error: &dyn std::error::Error| format!("Get \"http://{address}{path}\": {}", chain(error));
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| problem(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| problem(&error))?;
    let mut exchange = std::pin::pin!(sender.send_request(request));
    // The connection is driven here and dropped with this future: no task is left behind by a timeout. A server that
    // closes right after its answer ends it in the same breath, so the answer is asked for once more then.
    let response = tokio::select! {
        response = &mut exchange => response,
        _ = connection => exchange.await,
    };
    let response = response.map_err(|error| match error.is_incomplete_message() || error.is_canceled() {
        true => format!("Get \"http://{address}{path}\": EOF"),
        false => problem(&error),
    })?;
    let status = response.status().as_u16();
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {status}")) }
}

fn address(desk: &Desk<'_>, host: Option<&str>, port: &IntOrString) -> Result<SocketAddr, String> {
    let port = port_number(&desk.target.container, port)?;
    let host = host.filter(|host| !host.is_empty());
    let address = match host {
        Some(host) => {
            host.parse().map_err(|_| format!("lookup {host}: only addresses are supported as probe hosts"))?
        }
        None => desk.target.address.ok_or("the pod has no address")?,
    };
    Ok(SocketAddr::new(address, port))
}

async fn dial(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await;
    stream.map_err(|error| format!("dial tcp {address}: connect: {}", errno_text(&error)))
}

fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let named = |name: &str| container.ports.iter().flatten().find(|one| one.name.as_deref() == Some(name));
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => named(name).map(|port| port.container_port).or_else(|| name.parse().ok()),
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("invalid port {port:?}"))
}
