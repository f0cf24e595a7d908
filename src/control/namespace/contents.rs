//! Looks into a namespace: what is there of each kind, and how to delete it.

use client::{Client, ClientError};
use http::Method;
use serde_json::{Value, json};

use super::decide::{Contents, Remaining, Resource};
use crate::kinds::{self, Kind};

/// Objects listed at once.
const PAGE: u32 = 500;

/// Everything in a namespace.
pub(super) async fn observe(client: &Client, namespace: &str) -> Result<Contents, ClientError> {
    let found = kinds::discover(client).await?;
    let mut contents = Contents { undiscovered: found.undiscovered, ..Contents::default() };
    let listed = found.known.iter().filter(|kind| kind.namespaced && kind.has("list") && kind.has("delete"));
    for resource in listed.map(resource) {
        match list(client, namespace, &resource).await {
            Ok(objects) if objects.is_empty() => {}
            Ok(objects) => drop(contents.objects.insert(resource, objects)),
            // A kind that went away since it was discovered has no objects.
            Err(error) if error.is_not_found() => {}
            Err(error) => contents.failures.push(format!("{}: {error}", resource.name)),
        }
    }
    Ok(contents)
}

fn resource(kind: &Kind) -> Resource {
    Resource {
        name: kind.name(),
        root: kind.root(),
        plural: kind.plural.clone(),
        by_collection: kind.has("deletecollection"),
    }
}

async fn list(client: &Client, namespace: &str, resource: &Resource) -> Result<Vec<Remaining>, ClientError> {
    let mut objects = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("{}?limit={PAGE}{next}", resource.path(namespace));
        let page = client.request(Method::GET, &path, None).await?;
        objects.extend(page["items"].as_array().into_iter().flatten().map(remaining));
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = format!("&continue={token}"),
            _ => return Ok(objects),
        }
    }
}

fn remaining(object: &Value) -> Remaining {
    let metadata = &object["metadata"];
    let finalizers = metadata["finalizers"].as_array().into_iter().flatten();
    Remaining {
        name: metadata["name"].as_str().unwrap_or_default().to_owned(),
        is_deleting: metadata["deletionTimestamp"].is_string(),
        finalizers: finalizers.filter_map(|name| name.as_str().map(str::to_owned)).collect(),
    }
}

/// Deletes all objects of a kind in a namespace.
pub(super) async fn delete_all(client: &Client, namespace: &str, resource: &Resource) -> Result<(), ClientError> {
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    let path = resource.path(namespace);
    if resource.by_collection {
        return client.request(Method::DELETE, &path, Some(&body)).await.map(drop);
    }
    for object in list(client, namespace, resource).await?.iter().filter(|object| !object.is_deleting) {
        match client.request(Method::DELETE, &format!("{path}/{}", object.name), Some(&body)).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
