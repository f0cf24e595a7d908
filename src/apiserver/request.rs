//! What a request asks for, read from method and path alone.
//!
//! Authorization decides on this before anybody looks whether the resource exists, so that a path tells a stranger
//! nothing. Follows `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use http::Method;

use crate::query::{Query, decode};

/// A request, as authorization sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestInfo {
    /// Below `/api/<version>/` or `/apis/<group>/<version>/`.
    Resource(ResourceRequest),
    /// Anything else.
    Path { verb: String, path: String },
}

/// A request for objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourceRequest {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub(crate) verb: String,
    /// Empty for the core group.
    pub(crate) group: String,
    /// The version of the group.
    pub(crate) version: String,
    /// Empty for cluster-scoped objects and for all namespaces.
    pub(crate) namespace: String,
    /// The plural.
    pub(crate) resource: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// Empty for collections; also taken from a `metadata.name` field selector.
    pub(crate) name: String,
    /// Whether the path names the object, not only a selector.
    pub(crate) named_by_path: bool,
    /// The path has more segments than a subresource has, and they are not what `proxy` passes on.
    pub(crate) too_deep: bool,
}

impl ResourceRequest {
    /// Whether it goes on to whoever serves at the object's address.
    pub(crate) fn is_proxied(&self) -> bool {
        self.subresource == "proxy"
    }
}

impl RequestInfo {
    /// Whether the answer is somebody else's.
    pub(crate) fn is_proxied(&self) -> bool {
        matches!(self, Self::Resource(request) if request.is_proxied())
    }

    /// Reads a request; total.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let segments: Vec<String> =
            path.split('/').filter(|segment| !segment.is_empty()).map(|segment| decode(segment, false)).collect();
        let other = || Self::Path { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned() };
        let (group, version, rest) = match segments.as_slice() {
            [prefix, version, rest @ ..] if prefix == "api" && !rest.is_empty() => ("", version, rest),
            [prefix, group, version, rest @ ..] if prefix == "apis" && !rest.is_empty() => {
                (group.as_str(), version, rest)
            }
            _ => return other(),
        };
        let mut request =
            ResourceRequest { group: group.to_owned(), version: version.clone(), ..ResourceRequest::default() };
        locate(&mut request, rest);
        request.named_by_path = !request.name.is_empty();
        request.verb = verb(method, request.named_by_path, query);
        if let ("list" | "watch" | "deletecollection", Some(selector)) =
            (request.verb.as_str(), query.get("fieldSelector"))
        {
            request.name = selected_name(selector).unwrap_or_default();
        }
        Self::Resource(request)
    }
}

/// Namespace, resource, name and subresource from the segments behind the version.
fn locate(request: &mut ResourceRequest, rest: &[String]) {
    let mut parts = rest;
    if let [first, namespace, tail @ ..] = rest
        && first == "namespaces"
    {
        request.namespace.clone_from(namespace);
        // `namespaces/x/status` and `…/finalize` are subresources of the namespace, not resources in it.
        if tail.first().is_some_and(|next| next != "status" && next != "finalize") {
            parts = tail;
        }
    }
    let mut parts = parts.iter();
    let mut next = || parts.next().cloned().unwrap_or_default();
    (request.resource, request.name, request.subresource) = (next(), next(), next());
    request.too_deep = parts.next().is_some() && !request.is_proxied();
}

fn verb(method: &Method, named: bool, query: &Query) -> String {
    let verb = match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" if named => "get",
        "GET" | "HEAD" if query.flag("watch") => "watch",
        "GET" | "HEAD" => "list",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        other => return other.to_ascii_lowercase(),
    };
    verb.to_owned()
}

/// The name that `metadata.name=x` selects, if that is one of the conditions.
fn selected_name(selector: &str) -> Option<String> {
    let conditions = selector.split(',').filter_map(|condition| condition.split_once('='));
    conditions
        .map(|(field, value)| (field.trim(), value.trim_start_matches('=').trim()))
        .find(|(field, _)| *field == "metadata.name")
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, address: &str, wanted: &str) {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let got = match RequestInfo::parse(method, path, &Query::parse(query)) {
            RequestInfo::Path { verb, path } => format!("{verb} path {path}"),
            RequestInfo::Resource(r) => format!(
                "{} {}/{} {} ns={} name={} sub={}",
                r.verb, r.group, r.version, r.resource, r.namespace, r.name, r.subresource
            ),
        };
        assert_eq!(got, wanted, "{method} {address}");
    }

    #[test]
    fn paths_and_methods_become_verbs_and_resources() {
        let cases = [
            (Method::GET, "/api/v1/pods", "list /v1 pods ns= name= sub="),
            (Method::GET, "/api/v1/pods?watch=1", "watch /v1 pods ns= name= sub="),
            (Method::GET, "/api/v1/namespaces/a/pods/b?watch=1", "get /v1 pods ns=a name=b sub="),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "get /v1 pods ns=a name=b sub=log"),
            (Method::POST, "/api/v1/namespaces/a/pods/b/binding", "create /v1 pods ns=a name=b sub=binding"),
            (Method::GET, "/api/v1/namespaces", "list /v1 namespaces ns= name= sub="),
            (Method::GET, "/api/v1/namespaces/a", "get /v1 namespaces ns=a name=a sub="),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 namespaces ns=a name=a sub=finalize"),
            (Method::PATCH, "/api/v1/nodes/n/status", "patch /v1 nodes ns= name=n sub=status"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection /v1 pods ns=a name= sub="),
            (Method::DELETE, "/api/v1/namespaces/a/pods/b", "delete /v1 pods ns=a name=b sub="),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n",
                "update coordination.k8s.io/v1 leases ns=kube-node-lease name=n sub=",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?watch=true&fieldSelector=metadata.name%3Db",
                "watch /v1 pods ns=a name=b sub=",
            ),
            (Method::GET, "/api/v1/namespaces/a/pods/b:80/proxy", "get /v1 pods ns=a name=b:80 sub=proxy"),
            (Method::POST, "/api/v1/namespaces/a/services/b/proxy/x/y", "create /v1 services ns=a name=b sub=proxy"),
            (Method::HEAD, "/api/v1/nodes/n/proxy/x/?watch=1", "get /v1 nodes ns= name=n sub=proxy"),
            (Method::OPTIONS, "/api/v1/nodes/n/proxy/", "options /v1 nodes ns= name=n sub=proxy"),
            (Method::GET, "/api", "get path /api"),
            (Method::GET, "/api/v1", "get path /api/v1"),
            (Method::GET, "/apis/apps/v1", "get path /apis/apps/v1"),
            (Method::GET, "/healthz", "get path /healthz"),
            (Method::POST, "/", "post path /"),
        ];
        for (method, address, wanted) in cases {
            check(&method, address, wanted);
        }
    }
}
