//! Follows schemas and levels in the store, and tells of schemas that name no level.

use std::sync::Arc;
use std::time::Duration;

use api::resources::flowcontrol::GROUP;
use api::status::ApiError;
use futures_util::future::try_join_all;
use http::Method;
use serde_json::{Value, json};
use store::{Range, Watched};

use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::storage;

const RETRY: Duration = Duration::from_secs(1);
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";

impl ApiServer {
    /// Lets requests be sorted by the schemas and levels that there are; returns those with the revision.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn sort_requests(&self) -> Result<(Vec<Value>, store::Revision), ApiError> {
        let range = Range { prefix: prefix(), after: None, limit: None, at: None };
        let page = self.config.store.list(range).await.map_err(storage::failed)?;
        let objects = page.entries.iter().map(object::of_entry).collect::<Result<Vec<_>, _>>()?;
        self.fairness.adopt(&objects);
        Ok((objects, page.revision))
    }

    /// Says of schemas whether their levels are there.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn tell_schemas(self: &Arc<Self>, objects: &[Value]) -> Result<(), ApiError> {
        let now = self.config.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let tell = async |(name, conditions): (String, Vec<Value>)| {
            let status = json!({ "status": { "conditions": conditions } });
            self.send(Method::PATCH, &format!("{SCHEMAS}/{name}/status"), &status).await
        };
        try_join_all(untold(objects, &now).into_iter().map(tell)).await.map(drop)
    }

    /// Takes in every change; never returns.
    pub(crate) async fn keep_requests_sorted(self: Arc<Self>) {
        loop {
            if let Err(error) = self.follow_flows().await {
                tracing::warn!(%error, "the priorities of requests could not be followed");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_flows(self: &Arc<Self>) -> Result<(), ApiError> {
        loop {
            let (objects, revision) = self.sort_requests().await?;
            let mut watch = self.config.store.watch(&prefix(), revision).await.map_err(storage::failed)?;
            self.tell_schemas(&objects).await?;
            match watch.next().await {
                Some(Watched::Changed(_) | Watched::Overrun) => {}
                None => return Ok(()),
            }
        }
    }
}

fn prefix() -> String {
    format!("{GROUP}/")
}

/// Schemas whose condition `Dangling` is not what it should be, and all conditions as they should be
/// (`presyncFlowSchemaStatus`).
fn untold(objects: &[Value], now: &str) -> Vec<(String, Vec<Value>)> {
    let kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let has_level = |name: &str| kind("PriorityLevelConfiguration").any(|level| meta(level, "name") == name);
    let mut untold = Vec::new();
    for schema in kind("FlowSchema") {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
        let (status, reason, tail) = match has_level(level) {
            true => ("False", "Found", "and it exists"),
            false => ("True", "NotFound", "but there is no such object"),
        };
        let message =
            format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {tail}");
        let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let (own, others): (Vec<Value>, Vec<Value>) =
            conditions.into_iter().partition(|condition| condition["type"] == "Dangling");
        if own.first().is_some_and(|own| own["status"] == status && own["message"] == *message) {
            continue;
        }
        let condition = json!({
            "type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
        });
        untold.push((meta(schema, "name").to_owned(), others.into_iter().chain([condition]).collect()));
    }
    untold
}
