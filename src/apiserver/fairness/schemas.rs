//! Which schema a request belongs to, and which of its flows: pure.
//!
//! After `k8s.io/apiserver/pkg/util/flowcontrol/rule.go`: of the schemas that are about a request, that of the lowest
//! precedence counts, and of several of one precedence the first by name.

use api::user::UserInfo;
use serde_json::Value;

use crate::request::RequestInfo;

/// A FlowSchema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    /// The level that it names.
    pub(super) level: String,
    precedence: i64,
    method: Method,
    rules: Vec<Rule>,
}

/// What makes requests one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// That they are of one schema.
    Schema,
    /// That they are about one namespace.
    Namespace,
    /// That they are of one user.
    User,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
    Account { namespace: String, name: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    of_cluster: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

impl Schema {
    pub(super) fn parse(object: &Value) -> Self {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let method = match spec["distinguisherMethod"]["type"].as_str() {
            Some("ByUser") => Method::User,
            Some("ByNamespace") => Method::Namespace,
            _ => Method::Schema,
        };
        Self {
            name: word(metadata, "name"),
            uid: word(metadata, "uid"),
            level: word(&spec["priorityLevelConfiguration"], "name"),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(i64::MAX),
            method,
            rules: list(spec, "rules").map(Rule::parse).collect(),
        }
    }

    /// Which schema is asked first.
    pub(super) fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    pub(super) fn is_about(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.is_about(user, info))
    }

    /// Whose turn a request takes; none if that is its user's.
    pub(super) fn flow(&self, info: &RequestInfo) -> Option<String> {
        match (self.method, info) {
            (Method::User, _) => None,
            (Method::Namespace, RequestInfo::Resource(request)) => Some(request.namespace.clone()),
            (Method::Namespace, RequestInfo::Path { .. }) | (Method::Schema, _) => Some(String::new()),
        }
    }
}

impl Rule {
    fn parse(rule: &Value) -> Self {
        let resource = |rule: &Value| ResourceRule {
            verbs: words(rule, "verbs"),
            groups: words(rule, "apiGroups"),
            resources: words(rule, "resources"),
            namespaces: words(rule, "namespaces"),
            of_cluster: rule["clusterScope"] == true,
        };
        let path = |rule: &Value| PathRule { verbs: words(rule, "verbs"), paths: words(rule, "nonResourceURLs") };
        Self {
            subjects: list(rule, "subjects").filter_map(Subject::parse).collect(),
            resources: list(rule, "resourceRules").map(resource).collect(),
            paths: list(rule, "nonResourceRules").map(path).collect(),
        }
    }

    fn is_about(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let is_about = match info {
            RequestInfo::Resource(request) => self.resources.iter().any(|rule| {
                let full = match request.subresource.as_str() {
                    "" => request.resource.clone(),
                    sub => format!("{}/{sub}", request.resource),
                };
                let namespace = &request.namespace;
                has(&rule.verbs, &request.verb)
                    && has(&rule.groups, &request.group)
                    && has(&rule.resources, &full)
                    && if namespace.is_empty() { rule.of_cluster } else { has(&rule.namespaces, namespace) }
            }),
            RequestInfo::Path { verb, path } => {
                self.paths.iter().any(|rule| has(&rule.verbs, verb) && rule.paths.iter().any(|own| is_path(own, path)))
            }
        };
        is_about && self.subjects.iter().any(|subject| subject.is(user))
    }
}

impl Subject {
    fn parse(subject: &Value) -> Option<Self> {
        match subject["kind"].as_str()? {
            "User" => Some(Self::User(word(&subject["user"], "name"))),
            "Group" => Some(Self::Group(word(&subject["group"], "name"))),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                Some(Self::Account { namespace: word(account, "namespace"), name: word(account, "name") })
            }
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.username,
            Self::Group(name) => name == "*" || user.is_in(name),
            Self::Account { namespace, name } => {
                let own = user.username.strip_prefix("system:serviceaccount:").and_then(|own| own.split_once(':'));
                own.is_some_and(|(of, own)| of == namespace && (name == "*" || own == name))
            }
        }
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|own| own == "*" || own == word)
}

fn is_path(own: &str, path: &str) -> bool {
    own == "*" || own == path || own.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn word(parent: &Value, field: &str) -> String {
    parent[field].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(parent: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    parent[field].as_array().into_iter().flatten()
}

fn words(parent: &Value, field: &str) -> Vec<String> {
    list(parent, field).filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use api::resources::flowcontrol::bootstrap;
    use api::user::{MASTERS, NODES};
    use http::Method;

    use super::*;
    use crate::query::Query;

    fn schema_of(user: &UserInfo, method: &Method, address: &str) -> String {
        let objects = bootstrap::objects();
        let mut schemas: Vec<Schema> =
            objects.iter().filter(|object| object["kind"] == "FlowSchema").map(Schema::parse).collect();
        schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        let info = RequestInfo::parse(method, address, &Query::parse(""));
        let found = schemas.iter().find(|schema| schema.is_about(user, &info)).unwrap();
        format!("{} {}", found.name, found.flow(&info).map_or_else(|| "by user".to_owned(), |flow| format!("{flow:?}")))
    }

    #[test]
    fn everybody_has_the_schema_that_a_cluster_has_for_them() {
        let pods = "/api/v1/namespaces/default/pods";
        let leases = "/apis/coordination.k8s.io/v1/namespaces/a/leases/x";
        let (get, put, post) = (&Method::GET, &Method::PUT, &Method::POST);
        let named = |name: &str| UserInfo::authenticated(name, &[]);
        let account = |name: &str| UserInfo::authenticated(name, &["system:serviceaccounts"]);
        let node = UserInfo::authenticated("system:node:n", &[NODES]);
        let (manager, scheduler) = (named("system:kube-controller-manager"), named("system:kube-scheduler"));
        let system = account("system:serviceaccount:kube-system:dns");
        let cases = [
            (UserInfo::authenticated("admin", &[MASTERS]), get, pods, "exempt \"\""),
            (UserInfo::anonymous(), get, "/livez", "probes \"\""),
            (UserInfo::anonymous(), get, "/version", "global-default by user"),
            (scheduler.clone(), put, leases, "system-leader-election by user"),
            (manager.clone(), put, "/api/v1/namespaces/a/endpoints/x", "endpoint-controller by user"),
            (system.clone(), put, "/api/v1/namespaces/a/configmaps/x", "workload-leader-election by user"),
            (node.clone(), put, "/api/v1/nodes/n/status", "system-node-high by user"),
            (node.clone(), get, pods, "system-nodes by user"),
            (node, put, leases, "system-node-high by user"),
            (manager, post, pods, "kube-controller-manager \"default\""),
            (scheduler, get, "/api/v1/pods", "kube-scheduler \"\""),
            (system, get, pods, "kube-system-service-accounts \"default\""),
            (account("system:serviceaccount:default:x"), get, pods, "service-accounts by user"),
            (named("jane"), get, pods, "global-default by user"),
        ];
        for (user, method, address, expected) in cases {
            assert_eq!(schema_of(&user, method, address), expected, "{} {address}", user.username);
        }
    }

    #[test]
    fn rules_are_about_subresources_scopes_and_paths_that_they_name() {
        let rule = |of: Value| Rule::parse(&of);
        let jane = UserInfo::authenticated("jane", &[]);
        let subjects = serde_json::json!([{ "kind": "User", "user": { "name": "*" } }]);
        let is_about = |rule: &Rule, address: &str| {
            rule.is_about(&jane, &RequestInfo::parse(&Method::GET, address, &Query::parse("")))
        };
        let status = rule(serde_json::json!({ "subjects": subjects, "resourceRules": [{
            "verbs": ["*"], "apiGroups": [""], "resources": ["pods/status"], "namespaces": ["a"],
        }] }));
        assert!(is_about(&status, "/api/v1/namespaces/a/pods/p/status"));
        assert!(!is_about(&status, "/api/v1/namespaces/a/pods/p"));
        assert!(!is_about(&status, "/api/v1/namespaces/b/pods/p/status"));
        assert!(!is_about(&status, "/api/v1/pods"));
        let paths = rule(serde_json::json!({ "subjects": subjects, "nonResourceRules": [{
            "verbs": ["get"], "nonResourceURLs": ["/openapi/*", "/version"],
        }] }));
        assert!(is_about(&paths, "/openapi/v3") && is_about(&paths, "/version"));
        assert!(!is_about(&paths, "/openapi") && !is_about(&paths, "/version/x"));
    }
}
