//! Discovery documents, derived from rows: the aggregated form (v2 and v2beta1) and the legacy one.
//!
//! The server negotiates which form a client gets. Everything here takes the rows to describe, so that kinds added at run
//! time appear like built-in ones. Resources are sorted by name and groups keep the order of their first row.

use serde_json::{Value, json};

use crate::resources::{Resource, Subresource, Verb};

/// Versions of the aggregated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`, asked for by kubectl up to 1.29.
    V2Beta1,
}

impl Aggregated {
    /// The version as in the `v` parameter of the media type.
    pub const fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The exact content type of an answer in this form.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// The aggregated document of `/api`.
pub fn aggregated_core(rows: &[&Resource], form: Aggregated) -> Value {
    aggregated(rows, form, |group| group.is_empty())
}

/// The aggregated document of `/apis`.
pub fn aggregated_groups(rows: &[&Resource], form: Aggregated) -> Value {
    aggregated(rows, form, |group| !group.is_empty())
}

/// The legacy document of `/api`; `address` is where the server can be reached, `host:port`.
pub fn versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// The legacy document of `/apis`.
pub fn groups(rows: &[&Resource]) -> Value {
    let groups: Vec<Value> =
        group_names(rows).into_iter().filter(|name| !name.is_empty()).map(|name| group_body(rows, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// The legacy document of `/apis/<group>`, none if there is no such group.
pub fn group(rows: &[&Resource], name: &str) -> Option<Value> {
    if name.is_empty() || !group_names(rows).contains(&name) {
        return None;
    }
    let mut body = group_body(rows, name);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Some(body)
}

/// The legacy document of `/api/v1` or `/apis/<group>/<version>`, none if there is no such version.
pub fn resources(rows: &[&Resource], group: &str, version: &str) -> Option<Value> {
    let rows = sorted(rows, group, version);
    let group_version = rows.first()?.api_version();
    let list: Vec<Value> = rows.iter().flat_map(|row| legacy_resource(row)).collect();
    let mut body = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    if !group.is_empty() {
        body["apiVersion"] = "v1".into();
    }
    Some(body)
}

fn aggregated(rows: &[&Resource], form: Aggregated, wanted: fn(&str) -> bool) -> Value {
    let groups = group_names(rows).into_iter().filter(|group| wanted(group));
    let items: Vec<Value> = groups
        .map(|group| {
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            let versions: Vec<Value> = version_names(rows, group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        sorted(rows, group, version).iter().map(|row| aggregated_resource(row)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let api_version = format!("apidiscovery.k8s.io/{}", form.version());
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items})
}

fn aggregated_resource(row: &Resource) -> Value {
    let mut resource = json!({
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": words(row.verbs),
    });
    put_names(&mut resource, row);
    if !row.subresources.is_empty() {
        let describe = |sub: &Subresource| {
            json!({
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": words(sub.verbs),
            })
        };
        resource["subresources"] = row.subresources.iter().map(describe).collect();
    }
    resource
}

/// The entry of a row, then those of its subresources.
fn legacy_resource(row: &Resource) -> Vec<Value> {
    let mut main = json!({
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": words(row.verbs),
    });
    put_names(&mut main, row);
    let below = row.subresources.iter().map(|sub| {
        let mut entry = json!({
            "name": format!("{}/{}", row.plural, sub.name),
            "singularName": "",
            "namespaced": row.namespaced,
            "kind": sub.kind,
            "verbs": words(sub.verbs),
        });
        if (sub.group, sub.version) != (row.group, row.version) {
            entry["group"] = sub.group.into();
            entry["version"] = sub.version.into();
        }
        entry
    });
    std::iter::once(main).chain(below).collect()
}

fn put_names(entry: &mut Value, row: &Resource) {
    if !row.short_names.is_empty() {
        entry["shortNames"] = row.short_names.into();
    }
    if !row.categories.is_empty() {
        entry["categories"] = row.categories.into();
    }
}

fn words(verbs: &[Verb]) -> Value {
    verbs.iter().map(|verb| verb.word()).collect()
}

fn group_body(rows: &[&Resource], name: &str) -> Value {
    let versions: Vec<Value> = version_names(rows, name)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first().cloned();
    json!({"name": name, "versions": versions, "preferredVersion": preferred})
}

fn group_names<'a>(rows: &[&'a Resource]) -> Vec<&'a str> {
    first_of_each(rows.iter().map(|row| row.group))
}

fn version_names<'a>(rows: &[&'a Resource], group: &str) -> Vec<&'a str> {
    first_of_each(rows.iter().filter(|row| row.group == group).map(|row| row.version))
}

fn first_of_each<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut unique = Vec::new();
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

fn sorted<'a>(rows: &[&'a Resource], group: &str, version: &str) -> Vec<&'a Resource> {
    let mut found: Vec<&Resource> =
        rows.iter().copied().filter(|row| row.group == group && row.version == version).collect();
    found.sort_by_key(|row| row.plural);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::resources::all;

    #[test]
    fn core_resources_are_described_in_the_aggregated_form() {
        golden::check("discovery/aggregated_core.json", &aggregated_core(all(), Aggregated::V2));
    }

    #[test]
    fn groups_are_described_in_the_aggregated_form() {
        golden::check("discovery/aggregated_groups.json", &aggregated_groups(all(), Aggregated::V2));
    }

    #[test]
    fn the_two_aggregated_versions_differ_in_their_version_only() {
        let mut older = aggregated_core(all(), Aggregated::V2Beta1);
        assert_eq!(older["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        older["apiVersion"] = "apidiscovery.k8s.io/v2".into();
        assert_eq!(older, aggregated_core(all(), Aggregated::V2));
    }

    #[test]
    fn resources_are_described_in_the_legacy_form() {
        golden::check("discovery/core_v1.json", &resources(all(), "", "v1").unwrap());
        golden::check("discovery/coordination_v1.json", &resources(all(), "coordination.k8s.io", "v1").unwrap());
        golden::check("discovery/groups.json", &groups(all()));
        golden::check("discovery/group.json", &group(all(), "coordination.k8s.io").unwrap());
        golden::check("discovery/versions.json", &versions("edge-1:6443"));
    }

    #[test]
    fn what_does_not_exist_is_not_described() {
        assert_eq!(resources(all(), "", "v2"), None);
        assert_eq!(resources(all(), "apps", "v2"), None);
        assert_eq!(group(all(), "none.example"), None);
        assert_eq!(group(all(), ""), None);
    }
}
