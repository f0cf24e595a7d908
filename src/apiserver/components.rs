//! How the parts of the control plane are: the objects of the kind ComponentStatus, made whenever somebody asks.
//!
//! What runs in this process says so once it has been started ([`ApiServer::hosts`]), and lives as long as whoever answers;
//! of others nothing is known here. The store is asked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use api::resources::{Resource, componentstatus};
use api::status::ApiError;
use http::Response;
use serde_json::{Value, json};
use store::Key;

use crate::Body;
use crate::call::{Call, Outcome};
use crate::respond;
use crate::select::Filter;
use crate::server::ApiServer;

/// A part of the control plane beside the server and its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// What gives pods their nodes.
    Scheduler,
    /// What keeps objects in agreement with each other.
    ControllerManager,
}

impl Component {
    const ALL: [Self; 2] = [Self::Scheduler, Self::ControllerManager];

    fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::ControllerManager => "controller-manager",
        }
    }
}

/// What runs in this process.
#[derive(Debug, Default)]
pub(crate) struct Components(Mutex<BTreeSet<Component>>);

/// Whether objects of a kind are made when somebody asks.
pub(crate) fn are_told(row: &Resource) -> bool {
    row.group.is_empty() && row.plural == "componentstatuses"
}

impl ApiServer {
    /// Says that a component has been started in this process.
    pub fn hosts(&self, component: Component) {
        self.components.0.lock().unwrap_or_else(PoisonError::into_inner).insert(component);
    }

    async fn component_statuses(&self) -> Vec<Value> {
        let hosted = self.components.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |component: Component| {
            let result = hosted.contains(&component).then_some(());
            componentstatus::status(component.name(), result.ok_or_else(|| "it does not run in this server".to_owned()))
        };
        let probe = self.config.store.get(&Key("/namespaces//default".to_owned())).await;
        let store = componentstatus::status("etcd-0", probe.map(drop).map_err(|error| error.to_string()));
        Component::ALL.into_iter().map(of).chain([store]).collect()
    }
}

/// `GET` of all.
pub(crate) async fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let filter = Filter::from_query(&call.row, &call.query)?;
    let mut objects = call.server.component_statuses().await;
    objects.retain(|object| filter.matches(object));
    let list = call.renderer()?.list(&objects, &json!({}));
    Ok(respond::large(&call.headers, respond::JSON, list.to_string().into_bytes()))
}

/// `GET` of one.
pub(crate) async fn get(call: &Call) -> Result<Outcome, ApiError> {
    let objects = call.server.component_statuses().await;
    let found = objects.into_iter().find(|object| object["metadata"]["name"] == call.name());
    found.map(Outcome::ok).ok_or_else(|| ApiError::not_found(call.row.group, call.row.plural, call.name()))
}
