//! What the client works on: objects, their keys, and where lists look.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An object of the API; implemented by every type that has what it needs.
pub trait Object:
    Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static
{
}

/// An object's place among those of its kind. The namespace of cluster-scoped objects is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object in a namespace.
    pub fn namespaced(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Self::namespaced("", name)
    }

    /// The key of an object with this metadata; an object that has no name yet has an empty one.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Where a list or watch looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// The whole cluster: cluster-scoped kinds, or all namespaces.
    #[default]
    Cluster,
    /// One namespace.
    Namespace(String),
}

impl Scope {
    /// One namespace.
    pub fn namespace(name: &str) -> Self {
        Self::Namespace(name.to_owned())
    }

    fn name(&self) -> &str {
        match self {
            Self::Cluster => "",
            Self::Namespace(name) => name,
        }
    }
}

/// Path of a collection, e.g. `/apis/apps/v1/namespaces/default/deployments`.
pub(crate) fn collection_path<K: Resource>(scope: &Scope) -> String {
    let root = if K::GROUP.is_empty() { "/api" } else { "/apis" };
    let namespace = scope.name();
    let inside = if namespace.is_empty() { String::new() } else { format!("/namespaces/{}", escape(namespace)) };
    format!("{root}/{}{inside}/{}", K::API_VERSION, K::URL_PATH_SEGMENT)
}

/// Path of an object, e.g. `/api/v1/namespaces/default/pods/web`.
pub(crate) fn object_path<K: Resource>(key: &Key) -> String {
    let scope = if key.namespace.is_empty() { Scope::Cluster } else { Scope::namespace(&key.namespace) };
    format!("{}/{}", collection_path::<K>(&scope), escape(&key.name))
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, section 2.3.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[test]
    fn paths_name_group_version_namespace_and_resource() {
        assert_eq!(collection_path::<Pod>(&Scope::Cluster), "/api/v1/pods");
        assert_eq!(collection_path::<Pod>(&Scope::namespace("kube-system")), "/api/v1/namespaces/kube-system/pods");
        assert_eq!(object_path::<Node>(&Key::cluster("edge-1")), "/api/v1/nodes/edge-1");
        assert_eq!(
            object_path::<Deployment>(&Key::namespaced("default", "web")),
            "/apis/apps/v1/namespaces/default/deployments/web"
        );
    }

    #[test]
    fn a_name_cannot_leave_its_path_segment() {
        assert_eq!(object_path::<Node>(&Key::cluster("../secrets?x=ü")), "/api/v1/nodes/..%2Fsecrets%3Fx%3D%C3%BC");
    }
}
