//! Role-based access control: who may do what, by the roles that are bound to a user and his groups.
//!
//! After `plugin/pkg/auth/authorizer/rbac` of upstream. [`Policy`] is pure: roles and bindings as they are stored,
//! indexed by key. [`cache`] keeps one up to date, [`bootstrap`] lists what every cluster has, [`rule`] says what one
//! rule permits and whether rules contain others. Rules only permit; nothing of this denies. Invariant: a request sees
//! every role and binding whose write was acknowledged before it came.

pub(crate) mod bootstrap;
pub(crate) mod cache;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::resources::rbac::GROUP;
use api::user::UserInfo;
use serde_json::Value;

pub(crate) use rule::{Rule, uncovered};

use crate::request::RequestInfo;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempt<'a> {
    /// With objects.
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    /// With any other path.
    Path { verb: &'a str, path: &'a str },
}

impl<'a> From<&'a RequestInfo> for Attempt<'a> {
    fn from(info: &'a RequestInfo) -> Self {
        match info {
            RequestInfo::Path { verb, path } => Self::Path { verb, path },
            RequestInfo::Resource(r) => Self::Resource {
                verb: &r.verb,
                group: &r.group,
                resource: &r.resource,
                subresource: &r.subresource,
                namespace: &r.namespace,
                name: &r.name,
            },
        }
    }
}

impl<'a> Attempt<'a> {
    fn namespace(self) -> &'a str {
        match self {
            Self::Resource { namespace, .. } => namespace,
            Self::Path { .. } => "",
        }
    }
}

/// The rules of a role.
type Rules = Vec<Rule>;

/// A role bound to subjects.
#[derive(Debug, Clone)]
struct Binding {
    name: String,
    /// Whether the role is a ClusterRole.
    of_cluster: bool,
    role: String,
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
    /// The user name of a service account.
    Account(String),
}

impl Subject {
    fn parse(subject: &Value, namespace: &str) -> Option<Self> {
        let name = subject["name"].as_str()?.to_owned();
        match subject["kind"].as_str()? {
            "User" => Some(Self::User(name)),
            "Group" => Some(Self::Group(name)),
            "ServiceAccount" => {
                let namespace = subject["namespace"].as_str().filter(|given| !given.is_empty()).unwrap_or(namespace);
                Some(Self::Account(format!("system:serviceaccount:{namespace}:{name}")))
            }
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) | Self::Account(name) => user.username == *name,
            Self::Group(name) => user.is_in(name),
        }
    }
}

/// Namespace, empty for those of the cluster, and name.
type ObjectKey = (String, String);

/// All roles and bindings.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    roles: BTreeMap<ObjectKey, Rules>,
    bindings: BTreeMap<ObjectKey, Binding>,
}

impl Policy {
    /// Takes in a stored object, or its removal.
    pub(crate) fn put(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        match (resource, object) {
            ("roles" | "clusterroles", Some(role)) => drop(self.roles.insert(key, Rule::list(&role["rules"]))),
            ("roles" | "clusterroles", None) => drop(self.roles.remove(&key)),
            ("rolebindings" | "clusterrolebindings", Some(binding)) => {
                let subjects = binding["subjects"].as_array().into_iter().flatten();
                let binding = Binding {
                    name: name.to_owned(),
                    of_cluster: binding["roleRef"]["kind"] == "ClusterRole",
                    role: binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned(),
                    subjects: subjects.filter_map(|subject| Subject::parse(subject, namespace)).collect(),
                };
                self.bindings.insert(key, binding);
            }
            ("rolebindings" | "clusterrolebindings", None) => drop(self.bindings.remove(&key)),
            _ => {}
        }
    }

    /// Whether the user may do it; the binding that says so, for the reason of a review.
    pub(crate) fn permits(&self, user: &UserInfo, attempt: Attempt<'_>) -> Option<String> {
        self.bound(user, attempt.namespace()).find_map(|(namespace, binding, rules)| {
            rules.iter().any(|rule| rule.permits(attempt)).then(|| reason(namespace, binding, user))
        })
    }

    /// All rules of the user in a namespace, those of the whole cluster included.
    pub(crate) fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.bound(user, namespace).flat_map(|(_, _, rules)| rules.iter().cloned()).collect()
    }

    /// The rules of a role that a binding names; none if there is no such role.
    pub(crate) fn role(&self, namespace: &str, kind: &str, name: &str) -> Option<&[Rule]> {
        let namespace = if kind == "ClusterRole" { "" } else { namespace };
        self.roles.get(&(namespace.to_owned(), name.to_owned())).map(Vec::as_slice)
    }

    /// Bindings of the user that hold in a namespace, with the rules that they bring.
    fn bound<'p>(
        &'p self,
        user: &'p UserInfo,
        namespace: &'p str,
    ) -> impl Iterator<Item = (&'p str, &'p Binding, &'p [Rule])> {
        let of = |namespace: &str| {
            let (from, to) = ((namespace.to_owned(), String::new()), (format!("{namespace}\0"), String::new()));
            self.bindings.range(from..to)
        };
        let of_namespace = (!namespace.is_empty()).then(|| of(namespace)).into_iter().flatten();
        of("")
            .chain(of_namespace)
            .filter(|(_, binding)| binding.subjects.iter().any(|subject| subject.is(user)))
            .filter_map(|((namespace, _), binding)| {
                let kind = if binding.of_cluster { "ClusterRole" } else { "Role" };
                Some((namespace.as_str(), binding, self.role(namespace, kind, &binding.role)?))
            })
    }
}

fn reason(namespace: &str, binding: &Binding, user: &UserInfo) -> String {
    let role = if binding.of_cluster { "ClusterRole" } else { "Role" };
    let subject =
        binding.subjects.iter().find(|subject| subject.is(user)).map_or_else(String::new, |subject| match subject {
            Subject::User(name) => format!("User {name:?}"),
            Subject::Group(name) => format!("Group {name:?}"),
            Subject::Account(name) => {
                let account = name.trim_start_matches("system:serviceaccount:").replace(':', "/");
                format!("ServiceAccount {account:?}")
            }
        });
    let (kind, place) = match namespace {
        "" => ("ClusterRoleBinding", binding.name.clone()),
        namespace => ("RoleBinding", format!("{}/{namespace}", binding.name)),
    };
    format!("RBAC: allowed by {kind} {place:?} of {role} {:?} to {subject}", binding.role)
}

/// The prefix of all keys of this group in the store.
pub(crate) fn prefix() -> String {
    format!("{GROUP}/")
}
