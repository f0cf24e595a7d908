//! Who makes a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An authenticated user, as `authentication.k8s.io/v1 UserInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Unique name, e.g. `system:node:edge-1` or `system:serviceaccount:default:default`.
    pub username: String,
    /// Identity that survives renaming; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups, `system:authenticated` included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What else the authenticator knows, e.g. the pod whose token it was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Group that may do everything.
pub const MASTERS: &str = "system:masters";
/// Group of all users that proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of kubelets.
pub const NODES: &str = "system:nodes";
/// Group of machines that join the cluster with a token.
pub const JOINERS: &str = "system:bootstrappers:coracle:join";
/// What a group begins with whose members may join as one node only.
const JOINER: &str = "system:bootstrappers:coracle:node:";

impl UserInfo {
    /// A user with its groups; `system:authenticated` is added.
    pub fn authenticated(username: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { username: username.to_owned(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// Somebody who showed no credentials.
    pub fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { username: "system:anonymous".to_owned(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// The group of those who may join as one node only. Tokens give groups without dots, and names of nodes have no colons.
    pub fn joiners_as(node: &str) -> String {
        format!("{JOINER}{}", node.replace('.', ":"))
    }

    /// The only node as which the user may join, if there is just one.
    pub fn joins_as(&self) -> Option<String> {
        let node = self.groups.iter().find_map(|group| group.strip_prefix(JOINER))?;
        Some(node.replace(':', "."))
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node name, if the user is a kubelet.
    pub fn node_name(&self) -> Option<&str> {
        self.is_in(NODES).then(|| self.username.strip_prefix("system:node:")).flatten()
    }
}
