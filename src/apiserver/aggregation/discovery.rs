//! Discovery documents with the groups that others serve; pure.

use serde_json::{Map, Value, json};

use super::{Remote, Remotes};

/// Groups that come by definitions have this priority; what is above it stands before them.
const CUSTOM: i64 = 1000;

/// Puts the groups of others into the legacy document of `/apis`; `custom` is where those of definitions begin.
pub(crate) fn into_groups(document: &mut Value, custom: usize, remotes: &Remotes) {
    let Some(groups) = document["groups"].as_array_mut() else { return };
    let mut place = custom.min(groups.len());
    for remote in remotes.sorted() {
        let found = groups.iter().position(|group| group["name"] == remote.group.as_str());
        let index = found.unwrap_or_else(|| {
            let index = if remote.minimum > CUSTOM { place } else { groups.len() };
            place += usize::from(remote.minimum > CUSTOM);
            groups.insert(index, json!({ "name": remote.group, "versions": [] }));
            index
        });
        add_version(&mut groups[index], remote);
    }
}

/// The legacy document of `/apis/<group>` with the versions that others serve.
pub(crate) fn into_group(document: Option<Value>, name: &str, remotes: &Remotes) -> Option<Value> {
    let mut document = document;
    for remote in remotes.sorted().into_iter().filter(|remote| remote.group == name) {
        let empty = || json!({ "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [] });
        add_version(document.get_or_insert_with(empty), remote);
    }
    document
}

fn add_version(group: &mut Value, remote: &Remote) {
    let version = json!({ "groupVersion": format!("{}/{}", remote.group, remote.version), "version": remote.version });
    if group["preferredVersion"].is_null() {
        group["preferredVersion"] = version.clone();
    }
    if let Some(versions) = group["versions"].as_array_mut().filter(|versions| !versions.contains(&version)) {
        versions.push(version);
    }
}

/// Puts the groups of others into the aggregated document of `/apis`.
pub(crate) fn into_aggregated(document: &mut Value, custom: usize, remotes: &Remotes) {
    let Some(items) = document["items"].as_array_mut() else { return };
    let mut place = custom.min(items.len());
    for remote in remotes.sorted() {
        let found = items.iter().position(|item| item["metadata"]["name"] == remote.group.as_str());
        let index = found.unwrap_or_else(|| {
            let index = if remote.minimum > CUSTOM { place } else { items.len() };
            place += usize::from(remote.minimum > CUSTOM);
            items.insert(index, json!({ "metadata": { "name": remote.group }, "versions": [] }));
            index
        });
        let Some(versions) = items[index]["versions"].as_array_mut() else { continue };
        // What somebody else serves here now is served by nobody else.
        versions.retain(|version| version["version"] != remote.version.as_str());
        versions.push(version_of(remote));
    }
}

fn version_of(remote: &Remote) -> Value {
    let freshness = if remote.is_available && remote.resources.is_some() { "Current" } else { "Stale" };
    let mut version = json!({ "version": remote.version, "freshness": freshness });
    if let Some(list) = &remote.resources {
        version["resources"] = resources(list, &remote.group, &remote.version);
    }
    version
}

/// The resources of a legacy document in the aggregated form.
fn resources(list: &Value, group: &str, version: &str) -> Value {
    let all = || list["resources"].as_array().into_iter().flatten();
    let name = |resource: &Value| resource["name"].as_str().unwrap_or_default().to_owned();
    let kind = |resource: &Value| {
        let or = |field: &str, own: &str| match resource[field].as_str() {
            Some(given) if !given.is_empty() => given.to_owned(),
            _ => own.to_owned(),
        };
        json!({ "group": or("group", group), "version": or("version", version), "kind": resource["kind"] })
    };
    let below = |of: &str| -> Vec<Value> {
        let own = all().filter_map(|resource| {
            let name = name(resource);
            let (parent, subresource) = name.split_once('/')?;
            let verbs = resource["verbs"].clone();
            (parent == of)
                .then(|| json!({ "subresource": subresource, "responseKind": kind(resource), "verbs": verbs }))
        });
        own.collect()
    };
    let mains = all().filter(|resource| !name(resource).contains('/')).map(|resource| {
        let mut main = Map::new();
        let mut put = |field: &str, value: Value| drop(main.insert(field.to_owned(), value));
        put("resource", name(resource).into());
        put("responseKind", kind(resource));
        put("scope", if resource["namespaced"] == true { "Namespaced" } else { "Cluster" }.into());
        put("singularResource", resource["singularName"].clone());
        put("verbs", resource["verbs"].clone());
        for field in ["shortNames", "categories"] {
            if resource[field].is_array() {
                put(field, resource[field].clone());
            }
        }
        let below = below(&name(resource));
        if !below.is_empty() {
            put("subresources", below.into());
        }
        Value::Object(main)
    });
    mains.collect()
}

/// Puts the addresses of others' documents into the index of OpenAPI version 3.
pub(crate) fn into_index(document: &mut Value, remotes: &Remotes) {
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for remote in remotes.sorted() {
        let path = format!("apis/{}/{}", remote.group, remote.version);
        match &remote.schema {
            Some(address) => drop(paths.insert(path, json!({ "serverRelativeURL": address }))),
            None => drop(paths.remove(&path)),
        }
    }
}
