//! The network's side of the API on a node: what Services, EndpointSlices and NetworkPolicies say becomes what the node's
//! network does.
//!
//! Started by the composition with the node's identity, which may list and watch all of them. [`render`] and [`policy`] are
//! pure; the shells feed them from informers and hand the results to [`net::ServiceTable`] and [`net::PolicyTable`], which
//! change what differs. Deliberately not here: headless Services and those of type ExternalName, which are DNS's. Invariant:
//! what is in the kernel is made of one look at all objects, never of a part of them.

mod facts;
mod health;
pub mod policy;
pub mod render;
pub mod routes;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Dirty, Informer, Key, ListOptions, Scope};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use net::policies::Policies;
use net::services::Services;
use net::{Family, NetworkError, PolicyTable, ServiceTable};
use task::Tasks;

use self::facts::{Known, NamespaceFacts, PodFacts};
use self::health::Health;
pub use self::render::Here;

/// Says where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";
/// How long to wait after the kernel has refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// Leads connections to Services on a node, one of these.
pub fn spawn_services(
    client: &Client,
    tasks: &Tasks,
    (here, nodes): (Here, &Informer<Node>),
    tables: Vec<ServiceTable>,
) {
    let nodes = nodes.clone();
    let services: Informer<Service> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let slices: Informer<EndpointSlice> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let ranges: Informer<ServiceCIDR> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let mut health = Health::new(tasks);
    tasks.spawn("service-proxy", async move {
        let mut dirty = [services.subscribe(), slices.subscribe(), ranges.subscribe(), nodes.subscribe()];
        services.synced().await;
        slices.synced().await;
        ranges.synced().await;
        nodes.synced().await;
        let key = Key::cluster(&here.name);
        let zone = || nodes.get(&key).and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
        loop {
            dirty.iter_mut().for_each(|dirty| while dirty.try_next().is_some() {});
            let here = Here { zone: zone(), ..here.clone() };
            let all = Snapshot { services: services.snapshot(), slices: slices.snapshot(), ranges: ranges.snapshot() };
            let counts = health::render(&all.services, &all.slices, &here);
            let applied = lead(&tables, &all, &here).await;
            health.tell(counts, applied.is_ok());
            match applied {
                Ok(()) => wait(&mut dirty, || zone() != here.zone).await,
                Err(error) => rest(&error, "Services are not forwarded as they should be").await,
            }
        }
    });
}

/// All objects at a time.
struct Snapshot {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    ranges: Vec<Arc<ServiceCIDR>>,
}

/// Does what is to be done in each family.
async fn lead(tables: &[ServiceTable], all: &Snapshot, here: &Here) -> Result<(), NetworkError> {
    let wanted = |family: Family| Services {
        further: render::further(&all.ranges, here, family),
        ..render::render(&all.services, &all.slices, here, family)
    };
    each(tables.iter().map(|table| table.apply(wanted(table.family()))).collect()).await
}

/// Does all steps, for a family must not wait for what is wrong in another; the first error.
async fn each<E>(steps: Vec<impl Future<Output = Result<(), E>>>) -> Result<(), E> {
    let mut all = Ok(());
    for step in steps {
        let done = step.await;
        all = all.and(done);
    }
    all
}

/// Until there is something to do. Nodes change all the time in ways that are of no interest here.
async fn wait([services, slices, ranges, nodes]: &mut [Dirty; 4], has_moved: impl Fn() -> bool) {
    loop {
        tokio::select! {
            _ = services.next() => return,
            _ = slices.next() => return,
            _ = ranges.next() => return,
            _ = nodes.next() => if has_moved() {
                return;
            },
        }
    }
}

/// Keeps NetworkPolicies on a node. Of pods and namespaces nothing is known until there is a policy.
pub fn spawn_policies(client: &Client, tasks: &Tasks, node: &str, tables: Vec<PolicyTable>) {
    let policies: Informer<NetworkPolicy> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let (client, group, node) = (client.clone(), tasks.clone(), node.to_owned());
    tasks.spawn("network-policies", async move {
        let mut dirty = policies.subscribe();
        policies.synced().await;
        // What an earlier agent left goes, before there is any policy.
        while policies.snapshot().is_empty() {
            if apply(&tables, |_| Policies::default()).await {
                dirty.next().await;
            }
        }
        let pods: Arc<Known<PodFacts>> = Known::follow(&client, &group, "/api/v1/pods");
        let namespaces: Arc<Known<NamespaceFacts>> = Known::follow(&client, &group, "/api/v1/namespaces");
        let (mut of_pods, mut of_namespaces) = (pods.changes(), namespaces.changes());
        loop {
            while dirty.try_next().is_some() {}
            of_pods.mark_unchanged();
            of_namespaces.mark_unchanged();
            if let (Some(pods), Some(namespaces)) = (pods.snapshot(), namespaces.snapshot()) {
                let policies = policies.snapshot();
                if !apply(&tables, |family| policy::render(&policies, &pods, &namespaces, &node, family)).await {
                    continue;
                }
            }
            tokio::select! {
                _ = dirty.next() => {}
                Ok(()) = of_pods.changed() => {}
                Ok(()) = of_namespaces.changed() => {}
            }
        }
    });
}

/// Whether the kernel has taken them; else some time has passed.
async fn apply(tables: &[PolicyTable], wanted: impl Fn(Family) -> Policies) -> bool {
    match each(tables.iter().map(|table| table.apply(wanted(table.family()))).collect()).await {
        Ok(()) => true,
        Err(error) => {
            rest(&error, "network policies are not kept as they should be").await;
            false
        }
    }
}

fn rest(error: &(dyn std::error::Error + 'static), what: &str) -> tokio::time::Sleep {
    tracing::warn!(error, "{what}");
    tokio::time::sleep(PATIENCE)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn what_fails_in_one_family_is_told_and_does_not_keep_the_other_from_being_done() {
        let done = RefCell::new(Vec::new());
        let step = async |number: u8| {
            done.borrow_mut().push(number);
            if number == 0 { Ok(()) } else { Err(number) }
        };
        assert_eq!(each(vec![step(1), step(0), step(2)]).await, Err(1));
        assert_eq!(each(vec![step(0)]).await, Ok(()));
        assert_eq!(*done.borrow(), [1, 0, 2, 0]);
    }
}
