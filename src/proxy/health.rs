//! Tells load balancers elsewhere whether this node has an endpoint of a Service: the port `healthCheckNodePort`.
//!
//! After `pkg/proxy/healthcheck/service_health.go`: whatever is asked, the answer is how many ready endpoints are here, with
//! 200 if there is one and the node's Services are as they should be, else with 503. Ports open and close with the Services
//! that name them; one that another program has is tried again. Nobody needs credentials, as the answer has no secret; so
//! connections are few and short.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use net::Family;
use task::Tasks;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};

use crate::render::{self, Here, SERVICE};

/// How many ask about one Service at a time.
const CONNECTIONS: usize = 32;
/// How many may wait to be let in.
const BACKLOG: u32 = 64;
/// How long a question may take to arrive, and a client may say nothing.
const SLOW: Duration = Duration::from_secs(10);
/// How long to wait for a port that another program has.
const PATIENCE: Duration = Duration::from_secs(5);
/// By which some load balancers weigh nodes.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// A Service about which is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    namespace: String,
    name: String,
    port: u16,
}

/// Services with such a port, and how many ready endpoints each has here.
pub(crate) fn render(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    here: &Here,
) -> BTreeMap<Subject, usize> {
    let with_port = services.iter().filter_map(|service| {
        let spec = render::own(service)?;
        let is_asked =
            spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
        let port = spec.health_check_node_port.filter(|_| is_asked)?;
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        let (namespace, name) = (service.metadata.namespace.clone()?, service.metadata.name.clone()?);
        Some(Subject { namespace, name, port })
    });
    with_port.map(|subject| (subject.clone(), count(&subject, slices, here))).collect()
}

/// Whoever has addresses of both families is counted once.
fn count(subject: &Subject, slices: &[Arc<EndpointSlice>], here: &Here) -> usize {
    let of = |family: &str| count_of(subject, slices, here, family);
    of("IPv4").max(of("IPv6"))
}

fn count_of(subject: &Subject, slices: &[Arc<EndpointSlice>], here: &Here, family: &str) -> usize {
    let of_service = slices.iter().filter(|slice| {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
        slice.address_type == family
            && slice.metadata.namespace.as_ref() == Some(&subject.namespace)
            && name == Some(&subject.name)
    });
    let endpoints = of_service.flat_map(|slice| slice.endpoints.iter().flatten()).filter(|endpoint| {
        let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        is_ready && endpoint.node_name.as_ref() == Some(&here.name)
    });
    endpoints.filter_map(|endpoint| endpoint.addresses.first()).collect::<BTreeSet<_>>().len()
}

/// What is answered now.
#[derive(Debug, Default)]
struct Known {
    counts: BTreeMap<Subject, usize>,
    is_healthy: bool,
}

/// The ports that are open.
#[derive(Debug)]
pub(crate) struct Health {
    tasks: Tasks,
    known: watch::Sender<Known>,
    open: BTreeMap<Subject, Tasks>,
}

impl Health {
    pub(crate) fn new(tasks: &Tasks) -> Self {
        Self { tasks: tasks.clone(), known: watch::Sender::default(), open: BTreeMap::new() }
    }

    /// Answers about these Services from now on, and whether they are as they should be.
    pub(crate) fn tell(&mut self, counts: BTreeMap<Subject, usize>, is_healthy: bool) {
        self.open.retain(|subject, tasks| {
            let stays = counts.contains_key(subject);
            if !stays {
                tasks.stop();
            }
            stays
        });
        for subject in counts.keys().filter(|subject| !self.open.contains_key(subject)).cloned().collect::<Vec<_>>() {
            let (tasks, known) = (self.tasks.child(), self.known.subscribe());
            tasks.spawn("service-health", listen(tasks.clone(), subject.clone(), known));
            self.open.insert(subject, tasks);
        }
        self.known.send_replace(Known { counts, is_healthy });
    }
}

async fn listen(tasks: Tasks, subject: Subject, known: watch::Receiver<Known>) {
    let listener = |family: Family| {
        let (tasks, subject, known) = (tasks.clone(), subject.clone(), known.clone());
        async move {
            let listener = loop {
                match bind(family, subject.port) {
                    Ok(listener) => break listener,
                    // A host without IPv6 is asked by IPv4 alone.
                    Err(error) if family == Family::V6 && has_no_family(&error) => return,
                    Err(error) => {
                        let (namespace, name, port) = (&subject.namespace, &subject.name, subject.port);
                        tracing::warn!(%error, %family, namespace, name, port, "a healthCheckNodePort cannot be listened on");
                        tokio::time::sleep(PATIENCE).await;
                    }
                }
            };
            serve(tasks, listener, subject, known).await;
        }
    };
    tokio::join!(listener(Family::V4), listener(Family::V6));
}

/// One family does not stand in for the other: somebody else may have the port in one of them.
fn bind(family: Family, port: u16) -> io::Result<TcpListener> {
    let (socket, address): (TcpSocket, IpAddr) = match family {
        Family::V4 => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
    };
    if family == Family::V6 {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address, port))?;
    socket.listen(BACKLOG)
}

fn has_no_family(error: &io::Error) -> bool {
    let numbers = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL].map(|errno| errno.raw_os_error());
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

async fn serve(tasks: Tasks, listener: TcpListener, subject: Subject, known: watch::Receiver<Known>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (subject, known) = (subject.clone(), known.clone());
        tasks.spawn("service-health connection", async move {
            let service = service_fn(|_: Request<Incoming>| {
                let answer = answer(&subject, &known.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(SLOW);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a question about the endpoints of a Service failed");
            }
            drop(place);
        });
    }
}

fn answer(subject: &Subject, known: &Known) -> Response<String> {
    let (count, is_healthy) = (known.counts.get(subject).copied().unwrap_or_default(), known.is_healthy);
    let Subject { namespace, name, .. } = subject;
    // Names of objects have nothing in them that would have to be escaped. Clients see the tabs.
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {is_healthy}\n}}"
    );
    let mut response = Response::new(body);
    if count == 0 || !is_healthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(WEIGHT, HeaderValue::from(count));
    response
}

#[cfg(test)]
mod tests;
