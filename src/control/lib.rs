//! The scheduler and the controllers: what keeps the objects of a cluster in agreement with each other.
//!
//! Only the composition starts them, with [`Controllers::spawn`]. They act through the API like any other client. Each
//! consists of a pure decision over a snapshot and a thin shell that feeds it from informers and carries out what it
//! decides. Invariant: none keeps state that it could not rebuild from the API after a crash.

pub mod aggregation;
pub mod autoapply;
pub mod autoscale;
pub mod balancer;
pub mod bootstrap;
pub mod certificates;
pub mod disruption;
pub mod dns;
pub mod endpoints;
pub mod expiry;
pub mod garbage;
pub mod kinds;
pub mod localpath;
pub mod namespace;
pub mod node;
pub mod nodeipam;
pub mod podgc;
pub mod scheduler;
pub mod serviceaccount;
pub mod tainteviction;
pub mod tokens;
pub mod volumes;
pub mod workload;

use std::fmt;
use std::net::Ipv4Addr;

use client::{Client, Informer, ListOptions, Scope};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use task::{SharedClock, Tasks};

/// What the controllers need to know.
#[derive(Clone)]
pub struct ControllersConfig {
    /// Certificate of the cluster's authority, PEM; published in every namespace as `kube-root-ca.crt`.
    pub root_ca: String,
    /// Signs what signing requests ask for, with the authority's key.
    pub authority: certificates::Authority,
    /// How long a node may show no sign of life.
    pub node_grace: std::time::Duration,
    /// Addresses of all pods, of which each node gets some; none if nodes bring their own.
    pub pods: Option<nodeipam::Ranges>,
    /// Signs tokens of service accounts that lie in Secrets.
    pub issue: tokens::Issue,
    /// Whether Services get addresses of load balancers.
    pub load_balancers: balancer::LoadBalancers,
    /// Whether volumes are provided of nodes' own disks.
    pub local_storage: localpath::LocalStorage,
    /// Address of the Service of the cluster's DNS; none if pods are told of another.
    pub dns: Option<Ipv4Addr>,
}

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl fmt::Debug for ControllersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllersConfig").field("root_ca", &self.root_ca).finish_non_exhaustive()
    }
}

/// The identities under which they act.
#[derive(Clone)]
pub struct Clients {
    /// Of the scheduler.
    pub scheduler: Client,
    /// Of all controllers.
    pub controllers: Client,
}

/// The running scheduler and controllers.
#[derive(Debug)]
pub struct Controllers;

impl Controllers {
    /// Starts the scheduler and all controllers; they run until the task group ends.
    pub fn spawn(clients: &Clients, clock: &SharedClock, tasks: &Tasks, config: ControllersConfig) -> Self {
        let client = &clients.controllers;
        let namespaces: Informer<Namespace> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
        let pods: Informer<Pod> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
        let nodes: Informer<Node> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
        let accounts: Informer<ServiceAccount> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
        serviceaccount::spawn(client, tasks, &namespaces, &accounts, config.root_ca.clone());
        tokens::spawn(client, tasks, &accounts, config.root_ca, config.issue);
        bootstrap::spawn(client, clock, tasks);
        namespace::spawn(client, clock, tasks, &namespaces, &pods);
        node::spawn(client, clock, tasks, (&nodes, &pods), config.node_grace);
        nodeipam::spawn(client, clock, tasks, &nodes, config.pods);
        tainteviction::spawn(client, clock, tasks, (&nodes, &pods));
        podgc::spawn(client, clock, tasks, &nodes, &pods);
        aggregation::spawn(client, tasks);
        autoscale::spawn(client, clock, tasks, &pods);
        certificates::spawn(client, clock, tasks, &nodes, config.authority);
        disruption::spawn(client, clock, tasks, &pods);
        dns::spawn(client, tasks, &nodes, config.dns);
        let services: Informer<Service> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
        let slices: Informer<EndpointSlice> = Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default());
        endpoints::spawn(client, tasks, (&pods, &nodes), &services, &slices);
        let balanced = balancer::Watched { services, slices, nodes: nodes.clone() };
        balancer::spawn(client, clock, tasks, balanced, config.load_balancers);
        expiry::spawn(client, clock, tasks);
        garbage::spawn(client, clock, tasks);
        let storage = volumes::spawn(client, clock, tasks, &pods);
        let claims = storage.claims.clone();
        localpath::spawn(client, clock, tasks, (storage, &nodes), config.local_storage);
        workload::spawn(client, clock, tasks, workload::Watched { pods: &pods, nodes: &nodes, claims: &claims });
        scheduler::spawn(&clients.scheduler, clock, tasks, scheduler::Watched { pods, nodes, namespaces });
        Self
    }
}
