//! Gives Services of type LoadBalancer the addresses of nodes, on which every node's service proxy answers for them.
//!
//! As k3s's servicelb from the outside: all ready nodes, of a Service with `externalTrafficPolicy: Local` those with an
//! endpoint that answers; external addresses of nodes where there are any, else internal ones. A port of the nodes belongs to
//! one Service, the eldest that asks for it; others, and those that ask for a port of the API server or the kubelet, wait
//! without an address and an event says so. Services of a `loadBalancerClass` are somebody else's. [`decide`] is pure.

mod decide;

use std::collections::BTreeSet;
use std::sync::Arc;

use client::events::{EventType, Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key};
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Node, Service, ServiceStatus};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use task::{SharedClock, Tasks};

/// How Services of that type are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadBalancers {
    /// They get addresses, but no port on which the node itself is called.
    On { reserved: BTreeSet<u16> },
    /// They wait for another controller.
    Off,
}

/// What the controller looks at.
#[derive(Clone)]
pub struct Watched {
    /// All Services.
    pub services: Informer<Service>,
    /// All slices.
    pub slices: Informer<EndpointSlice>,
    /// All nodes.
    pub nodes: Informer<Node>,
}

struct Shell {
    client: Client,
    recorder: Recorder,
    watched: Watched,
    reserved: BTreeSet<u16>,
}

/// Starts the controller, unless it is not wanted.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, watched: Watched, wanted: LoadBalancers) {
    let LoadBalancers::On { reserved } = wanted else { return };
    let source = Source { component: "service-controller".to_owned(), host: String::new() };
    let recorder = Recorder::spawn(client, tasks, SharedClock::clone(clock), source);
    let shell = Arc::new(Shell { client: client.clone(), recorder, watched, reserved });
    let queue = Queue::default();
    tasks.spawn("load-balancer-changes", feed(Arc::clone(&shell), queue.clone()));
    tasks.spawn("load-balancer-controller", async move {
        shell.watched.services.synced().await;
        shell.watched.slices.synced().await;
        shell.watched.nodes.synced().await;
        reconcile::run(queue, 1, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// Each may take a port from any other, or leave it; slices and nodes concern all.
async fn feed(shell: Arc<Shell>, queue: Queue<Key>) {
    let Watched { services, slices, nodes } = &shell.watched;
    let (mut of_services, mut of_slices, mut of_nodes) = (services.subscribe(), slices.subscribe(), nodes.subscribe());
    loop {
        tokio::select! {
            key = of_services.next() => queue.add(key),
            _ = of_slices.next() => while of_slices.try_next().is_some() {},
            _ = of_nodes.next() => while of_nodes.try_next().is_some() {},
        }
        let balanced = services.snapshot().into_iter().filter(|service| decide::is_balanced(service));
        balanced.for_each(|service| queue.add(Key::of(&service.metadata)));
    }
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Watched { services, slices, nodes } = &shell.watched;
    let Some(service) = services.get(&key) else { return Ok(Outcome::Done) };
    let view = decide::View {
        services: &services.snapshot(),
        slices: &slices.snapshot(),
        nodes: &nodes.snapshot(),
        reserved: &shell.reserved,
    };
    let verdict = decide::decide(&service, &view);
    if let Some(reason) = &verdict.waits_for {
        shell.recorder.event(&reference(&*service), EventType::Warning, "SyncLoadBalancerFailed", reason);
    }
    let Some(ingress) = verdict.ingress else { return Ok(Outcome::Done) };
    let balancer = LoadBalancerStatus { ingress: Some(ingress).filter(|all| !all.is_empty()) };
    let status = ServiceStatus { load_balancer: Some(balancer), ..service.status.clone().unwrap_or_default() };
    match shell.client.replace_status(&Service { status: Some(status), ..(*service).clone() }).await {
        // The informer will tell of the newer state.
        Err(error) if error.is_overtaken() => Ok(Outcome::Done),
        result => result.map(|_| Outcome::Done),
    }
}
