//! How many replicas the controllers of some pods want.
//!
//! A pod of a ReplicaSet of a Deployment counts for the Deployment. Whatever has a subresource `scale` will do, custom
//! resources included, as upstream's `getScaleController` does.

use std::collections::BTreeMap;

use client::{Client, ClientError};
use http::Method;
use serde_json::Value;

use super::decide::Scales;
use crate::kinds;

/// Asks for the scales; the inner error is why they cannot be known.
pub(super) async fn of_pods(client: &Client, pods: &[Value]) -> Result<Result<Scales, String>, ClientError> {
    let mut scales = Scales::default();
    // The controller in the end of each one that is named by pods.
    let mut known: BTreeMap<String, ()> = BTreeMap::new();
    for pod in pods {
        let (name, namespace) = (text(&pod["metadata"], "name"), text(&pod["metadata"], "namespace"));
        let Some(reference) = controller(pod) else {
            scales.unmanaged.push(name.to_owned());
            continue;
        };
        if known.insert(text(reference, "uid").to_owned(), ()).is_some() {
            continue;
        }
        match find(client, reference, namespace).await? {
            Some((uid, replicas)) => drop(scales.wanted.insert(uid, replicas)),
            None => return Ok(Err(format!("found no controllers for pod {name:?}"))),
        }
    }
    Ok(Ok(scales))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn controller(object: &Value) -> Option<&Value> {
    object["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}

/// The uid and the wanted number of replicas of what a reference names, or of what manages that in turn.
async fn find(client: &Client, reference: &Value, namespace: &str) -> Result<Option<(String, i64)>, ClientError> {
    let Some(object) = scaled(client, reference, namespace, "").await? else { return Ok(None) };
    if let Some(above) = controller(&object).filter(|_| text(reference, "kind") == "ReplicaSet")
        && text(above, "kind") == "Deployment"
    {
        return Ok(scaled(client, above, namespace, "/scale").await?.map(|scale| replicas(above, &scale)));
    }
    Ok(scaled(client, reference, namespace, "/scale").await?.map(|scale| replicas(reference, &scale)))
}

fn replicas(reference: &Value, scale: &Value) -> (String, i64) {
    (text(reference, "uid").to_owned(), scale["spec"]["replicas"].as_i64().unwrap_or(0))
}

/// What is at a reference, or below it; none if it is not there, or another one by now.
async fn scaled(
    client: &Client,
    reference: &Value,
    namespace: &str,
    below: &str,
) -> Result<Option<Value>, ClientError> {
    let kind = (text(reference, "apiVersion"), text(reference, "kind"));
    let Some(path) = kinds::locate(client, kind, namespace, text(reference, "name")).await? else { return Ok(None) };
    match client.request(Method::GET, &format!("{path}{below}"), None).await {
        Ok(found) if found["metadata"]["uid"] == reference["uid"] => Ok(Some(found)),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
