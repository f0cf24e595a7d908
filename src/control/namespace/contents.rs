//! Looks into a namespace: which kinds there are, what is there of each, and how to delete it.

use client::{Client, ClientError};
use http::Method;
use serde_json::{Value, json};

use super::decide::{Contents, Remaining, Resource};

/// Objects listed at once.
const PAGE: u32 = 500;

/// Everything in a namespace.
pub(super) async fn observe(client: &Client, namespace: &str) -> Result<Contents, ClientError> {
    let mut contents = Contents::default();
    for resource in discover(client, &mut contents.undiscovered).await? {
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

/// All namespaced kinds that can be listed and deleted, each in its group's preferred version.
async fn discover(client: &Client, undiscovered: &mut Vec<String>) -> Result<Vec<Resource>, ClientError> {
    let mut resources = Vec::new();
    collect(&mut resources, "", "/api/v1", &client.request(Method::GET, "/api/v1", None).await?);
    let groups = client.request(Method::GET, "/apis", None).await?;
    for group in groups["groups"].as_array().into_iter().flatten() {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default();
        let root = format!("/apis/{version}");
        match client.request(Method::GET, &root, None).await {
            Ok(kinds) => collect(&mut resources, group["name"].as_str().unwrap_or_default(), &root, &kinds),
            Err(error) => undiscovered.push(format!("{version}: {error}")),
        }
    }
    Ok(resources)
}

fn collect(resources: &mut Vec<Resource>, group: &str, root: &str, kinds: &Value) {
    for kind in kinds["resources"].as_array().into_iter().flatten() {
        let plural = kind["name"].as_str().unwrap_or_default();
        let has = |verb: &str| kind["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|known| known == verb));
        if kind["namespaced"] != true || plural.contains('/') || !has("list") || !has("delete") {
            continue;
        }
        resources.push(Resource {
            name: if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") },
            root: root.to_owned(),
            plural: plural.to_owned(),
            by_collection: has("deletecollection"),
        });
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
