//! `metrics.k8s.io`: what nodes and pods use, from the summaries of their kubelets.
//!
//! In place of upstream's metrics-server, which asks every fifteen seconds and knows nothing before its second round: here
//! the kubelets are asked when somebody wants to know, and know rates themselves. A node that does not answer in time is
//! left out, as there. Invariant: only objects that exist are told of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::resources::{self, Resource, metrics};
use api::status::ApiError;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::Body;
use crate::body;
use crate::call::{Call, Outcome};
use crate::object::{self, meta};
use crate::respond;
use crate::select::Filter;
use crate::server::ApiServer;
use crate::storage;

/// How long a kubelet may take; upstream's `--metric-resolution` less its margin is as much.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a summary may have at most.
const LIMIT: usize = 64 << 20;
/// What a kubelet that does not say so takes its rates over (`HousekeepingInterval` of cadvisor).
const WINDOW: &str = "10s";

/// Whether objects of a kind are what kubelets measure.
pub(crate) fn is_measured(row: &Resource) -> bool {
    row.group == metrics::GROUP
}

/// `GET` of all.
pub(crate) async fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let filter = Filter::from_query(&call.row, &call.query)?;
    let subjects = subjects(call).await?;
    let mut found = measured(call, subjects).await;
    found.retain(|object| filter.matches(object));
    let list = call.renderer()?.list(&found, &json!({}));
    Ok(respond::large(&call.headers, respond::JSON, list.to_string().into_bytes()))
}

/// `GET` of one.
pub(crate) async fn get(call: &Call) -> Result<Outcome, ApiError> {
    let (namespace, name) = (call.namespace(), call.name());
    let (kind, shown) = match call.row.namespaced {
        true => ("podmetrics", format!("{namespace}/{name}")),
        false => ("nodemetrics", name.to_owned()),
    };
    let absent = || ApiError::not_found(metrics::GROUP, kind, &shown);
    let subject = call.server.read(core(&call.row)?, namespace, name).await;
    let subject = subject.map_err(|error| if error.code == 404 { absent() } else { error })?.0;
    let found = measured(call, vec![subject]).await;
    found.into_iter().next().map(Outcome::ok).ok_or_else(absent)
}

/// The kind whose objects are measured: it has the same name.
fn core(row: &Resource) -> Result<&'static Resource, ApiError> {
    resources::find("", "v1", row.plural).ok_or_else(|| ApiError::internal(format!("no kind {}", row.plural)))
}

async fn subjects(call: &Call) -> Result<Vec<Value>, ApiError> {
    let prefix = storage::prefix(core(&call.row)?, call.namespace());
    let range = store::Range { prefix, after: None, limit: None, at: None };
    let page = call.server.config.store.list(range).await.map_err(storage::failed)?;
    page.entries.iter().map(object::of_entry).collect()
}

/// The node that measures a node or pod.
fn measurer<'a>(row: &Resource, subject: &'a Value) -> &'a str {
    if row.namespaced { subject["spec"]["nodeName"].as_str().unwrap_or_default() } else { meta(subject, "name") }
}

/// What of these nodes or pods is known.
async fn measured(call: &Call, mut subjects: Vec<Value>) -> Vec<Value> {
    let row = &call.row;
    subjects.retain(|subject| !row.namespaced || subject["status"]["phase"] == "Running");
    let nodes: BTreeSet<String> = subjects.iter().map(|subject| measurer(row, subject).to_owned()).collect();
    let asked = nodes.into_iter().filter(|node| !node.is_empty()).map(|node| {
        let server = Arc::clone(&call.server);
        async move { Some((node.clone(), server.summary(&node).await?)) }.boxed()
    });
    let summaries: BTreeMap<String, Value> = join_all(asked).await.into_iter().flatten().collect();
    let of = |subject: &Value| {
        let summary = summaries.get(measurer(row, subject))?;
        if row.namespaced { of_pod(subject, summary) } else { of_node(subject, summary) }
    };
    subjects.iter().filter_map(of).collect()
}

impl ApiServer {
    /// What a kubelet says; none if it does not answer.
    async fn summary(&self, node: &str) -> Option<Value> {
        let asking = async {
            let request = Request::get("/stats/summary").body(Bytes::new()).map_err(|error| error.to_string())?;
            let response = self.config.nodes.send(node, request).await.map_err(|error| error.source.to_string())?;
            if !response.status().is_success() {
                return Err(response.status().to_string());
            }
            let body = body::whole(response.into_body(), LIMIT).await.map_err(|error| error.to_string())?;
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        };
        let answered = tokio::time::timeout(PATIENCE, asking).await;
        let answered = answered.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
        answered.inspect_err(|error| tracing::debug!(node, error, "a node does not say what it uses")).ok()
    }
}

/// CPU and memory of a part of a summary; none if one of them is not known.
fn usage(part: &Value) -> Option<Value> {
    let (cpu, memory) = (part["cpu"]["usageNanoCores"].as_u64()?, part["memory"]["workingSetBytes"].as_u64()?);
    Some(json!({ "cpu": metrics::cpu(cpu), "memory": metrics::memory(memory) }))
}

/// When a part of a summary was measured, and how long.
fn moment(part: &Value) -> (Value, &str) {
    // In whole seconds, as all times of this kind.
    let time = part["cpu"]["time"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let time = time.and_then(|time| jiff::Timestamp::from_second(time.as_second()).ok());
    (json!(time.map(|time| time.to_string())), part["cpu"]["window"].as_str().unwrap_or(WINDOW))
}

fn described(kind: &str, subject: &Value, part: &Value) -> Value {
    let (timestamp, window) = moment(part);
    let mut metadata = json!({ "name": meta(subject, "name"), "creationTimestamp": timestamp });
    for field in ["namespace", "labels"] {
        if !subject["metadata"][field].is_null() {
            metadata[field] = subject["metadata"][field].clone();
        }
    }
    json!({
        "kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata,
        "timestamp": timestamp, "window": window,
    })
}

fn of_node(node: &Value, summary: &Value) -> Option<Value> {
    let part = &summary["node"];
    let mut object = described("NodeMetrics", node, part);
    object["usage"] = usage(part)?;
    Some(object)
}

/// None of whom nothing is known, or not the whole.
fn of_pod(pod: &Value, summary: &Value) -> Option<Value> {
    let part = summary["pods"].as_array()?.iter().find(|part| part["podRef"]["uid"] == pod["metadata"]["uid"])?;
    let parts = part["containers"].as_array()?;
    let containers = parts.iter().map(|part| Some(json!({ "name": part["name"], "usage": usage(part)? })));
    let containers: Vec<Value> = containers.collect::<Option<_>>()?;
    let mut object = described("PodMetrics", pod, parts.first()?);
    object["containers"] = containers.into();
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, cpu: u64, memory: u64) -> Value {
        json!({
            "name": name, "cpu": { "time": "2026-01-02T03:04:05.678Z", "usageNanoCores": cpu, "window": "12s" },
            "memory": { "workingSetBytes": memory },
        })
    }

    #[test]
    fn a_pod_is_known_by_its_uid_and_as_a_whole() {
        let pod = json!({
            "metadata": { "name": "web", "namespace": "d", "uid": "u1", "labels": { "a": "b" } },
            "status": { "phase": "Running" },
        });
        let summary = |uid: &str, second: Value| {
            let containers = [part("a", 1_500_000, 4096), second];
            json!({ "pods": [{ "podRef": { "uid": uid }, "containers": containers }] })
        };
        let metrics = of_pod(&pod, &summary("u1", part("b", 250, 1 << 20))).unwrap();
        let wanted = json!({
            "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {
                "name": "web", "namespace": "d", "labels": { "a": "b" }, "creationTimestamp": "2026-01-02T03:04:05Z",
            },
            "timestamp": "2026-01-02T03:04:05Z", "window": "12s",
            "containers": [
                { "name": "a", "usage": { "cpu": "1500u", "memory": "4Ki" } },
                { "name": "b", "usage": { "cpu": "250n", "memory": "1Mi" } },
            ],
        });
        assert_eq!(metrics, wanted);
        assert_eq!(of_pod(&pod, &summary("another", part("b", 1, 1))), None);
        assert_eq!(of_pod(&pod, &summary("u1", json!({ "name": "b" }))), None);
        assert_eq!(of_pod(&pod, &json!("nonsense")), None);
    }
}
