//! The service proxy of a node: what Services and EndpointSlices say becomes what the node's network does.
//!
//! To be started by the composition with the node's identity, which may list and watch both; it is not yet, for the table that
//! it makes cannot be shown by the nft(8) of Debian 12, see [`net::ServiceTable`]. [`render`] is pure; the shell feeds it
//! from informers and hands the result to [`net::ServiceTable`], which changes what differs. Deliberately not here: headless
//! Services and those of type ExternalName, which are DNS's; IPv6, for pods have IPv4 alone; `loadBalancerSourceRanges`, so
//! addresses of load balancers with such ranges are not served at all; `healthCheckNodePort`. Invariant: what is in the
//! kernel is made of one look at all objects, never of a part of them.

pub mod render;

use std::time::Duration;

use client::{Client, Dirty, Informer, ListOptions, Scope};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use net::ServiceTable;
use task::Tasks;

/// How long to wait after the kernel has refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the proxy of a node.
pub fn spawn(client: &Client, tasks: &Tasks, node: &str, table: ServiceTable) {
    let services: Informer<Service> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let slices: Informer<EndpointSlice> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
    let node = node.to_owned();
    tasks.spawn("service-proxy", async move {
        let mut dirty = [services.subscribe(), slices.subscribe()];
        services.synced().await;
        slices.synced().await;
        loop {
            dirty.iter_mut().for_each(|dirty| while dirty.try_next().is_some() {});
            let wanted = render::render(&services.snapshot(), &slices.snapshot(), &node);
            if let Err(error) = table.apply(wanted).await {
                warn(&error);
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
            wait(&mut dirty).await;
        }
    });
}

fn warn(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "Services are not forwarded as they should be");
}

async fn wait([services, slices]: &mut [Dirty; 2]) {
    tokio::select! {
        _ = services.next() => {}
        _ = slices.next() => {}
    }
}
