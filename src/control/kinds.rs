//! Which kinds there are, asked of the server's discovery, so kinds that came at run time are included.

use client::{Client, ClientError};
use http::Method;
use serde_json::Value;

/// A kind whose objects are listed, in its group's preferred version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// Group; empty for the core group.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// CamelCase word.
    pub kind: String,
    /// The word in paths.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

impl Kind {
    /// Group and version, as objects have them.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`.
    pub fn name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Path of its group and version, e.g. `/apis/apps/v1`.
    pub fn root(&self) -> String {
        format!("{}/{}", if self.group.is_empty() { "/api" } else { "/apis" }, self.api_version())
    }

    /// Path of an object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        let inside = if self.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
        format!("{}{inside}/{}/{name}", self.root(), self.plural)
    }

    /// Whether it is the same kind, whatever its version.
    pub fn is_same(&self, other: &Self) -> bool {
        self.plural == other.plural && self.group == other.group
    }

    /// Whether it can be dealt with in this way.
    pub fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// What discovery said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kinds {
    /// All kinds.
    pub known: Vec<Kind>,
    /// Groups of which the server could not say what kinds they have, and why.
    pub undiscovered: Vec<String>,
}

/// Asks the server.
pub async fn discover(client: &Client) -> Result<Kinds, ClientError> {
    let mut kinds = Kinds::default();
    collect(&mut kinds.known, "", "v1", &client.request(Method::GET, "/api/v1", None).await?);
    let groups = client.request(Method::GET, "/apis", None).await?;
    for group in groups["groups"].as_array().into_iter().flatten() {
        let preferred = group["preferredVersion"]["groupVersion"].as_str().unwrap_or_default();
        let (name, version) = preferred.split_once('/').unwrap_or(("", preferred));
        match client.request(Method::GET, &format!("/apis/{preferred}"), None).await {
            Ok(list) => collect(&mut kinds.known, name, version, &list),
            Err(error) => kinds.undiscovered.push(format!("{preferred}: {error}")),
        }
    }
    Ok(kinds)
}

/// The path of an object by how references name its kind; none if there is no such kind.
pub async fn locate(
    client: &Client,
    (api_version, kind): (&str, &str),
    namespace: &str,
    name: &str,
) -> Result<Option<String>, ClientError> {
    let plural = match (api_version, kind) {
        ("v1", "ReplicationController") => "replicationcontrollers",
        ("apps/v1", "ReplicaSet") => "replicasets",
        ("apps/v1", "Deployment") => "deployments",
        ("apps/v1", "StatefulSet") => "statefulsets",
        // Whatever its version, and what came at run time.
        _ => {
            let (group, _) = api_version.split_once('/').unwrap_or(("", api_version));
            let kinds = discover(client).await?;
            let found = kinds.known.into_iter().find(|known| known.group == group && known.kind == kind);
            return Ok(found.map(|known| known.object(namespace, name)));
        }
    };
    let root = if api_version == "v1" { "/api" } else { "/apis" };
    Ok(Some(format!("{root}/{api_version}/namespaces/{namespace}/{plural}/{name}")))
}

fn collect(kinds: &mut Vec<Kind>, group: &str, version: &str, list: &Value) {
    for resource in list["resources"].as_array().into_iter().flatten() {
        let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
        let verbs = resource["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // What stands below an object is no kind.
        if text("name").contains('/') {
            continue;
        }
        kinds.push(Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text("kind"),
            plural: text("name"),
            namespaced: resource["namespaced"] == true,
            verbs: verbs.map(str::to_owned).collect(),
        });
    }
}
