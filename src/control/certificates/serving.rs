//! Whether a node may be known as a server by what it asks for.
//!
//! A node says itself where it is, so its word alone would let one that was taken over pass for another, or for the API
//! server. What it asks for must be its own name, or an address that its status has and that nobody else has. Another node
//! that is there first keeps its address; so does the API server, whose names are no node's either.

use std::net::IpAddr;
use std::sync::Arc;

use api::resources::certificate::request::Request;
use k8s_openapi::api::core::v1::Node;

/// What an approval says.
pub(super) const MESSAGE: &str = "Auto approving kubelet serving certificate: these are the node's name and addresses.";

/// What the API server is known by, which is for no node.
#[derive(Debug, Clone, Default)]
pub struct Reserved {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its names; one may begin with `*.`, which stands for one label.
    pub names: Vec<String>,
}

impl Reserved {
    /// The name of the API server's that a certificate of a node would have, or that a node would have by it.
    pub(super) fn name_in<'r>(&self, asked: &'r Request) -> Option<&'r str> {
        let node = asked.common_name.strip_prefix("system:node:");
        node.into_iter().chain(asked.names.iter().map(String::as_str)).find(|name| self.has(name))
    }

    fn has(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().map(|own| own.trim_end_matches('.').to_ascii_lowercase()).any(|own| {
            let wild = own.strip_prefix("*.");
            own == name || (wild.is_some() && wild == parent)
        })
    }
}

/// Why a certificate is not approved (yet).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the words of each say what it means")]
pub enum Doubt {
    #[error("a node asks for itself only, and its author is another")]
    Author,
    #[error("there is no node {0:?}")]
    NoNode(String),
    #[error("{0:?} is not the node's name")]
    Name(String),
    #[error("{0} is not among the addresses in the node's status")]
    Address(IpAddr),
    #[error("{0} is the address of node {1:?}")]
    Taken(IpAddr, String),
    #[error("{0} is no address of a node")]
    Reserved(IpAddr),
}

/// Checks what a request asks for, whose author has this user name.
///
/// # Errors
/// If it is not to be approved as things are.
pub fn vouch(asked: &Request, author: &str, nodes: &[Arc<Node>], reserved: &Reserved) -> Result<(), Doubt> {
    let Some(name) = author.strip_prefix("system:node:").filter(|_| asked.common_name == author) else {
        return Err(Doubt::Author);
    };
    let named = |node: &&Arc<Node>| node.metadata.name.as_deref() == Some(name);
    let own = nodes.iter().find(named).ok_or_else(|| Doubt::NoNode(name.to_owned()))?;
    if let Some(other) = asked.names.iter().find(|asked| *asked != name) {
        return Err(Doubt::Name(other.clone()));
    }
    for address in &asked.addresses {
        // An address of IPv4 in the clothes of IPv6 is taken for the former by some clients.
        let is_disguised = address.to_canonical() != *address;
        if is_disguised || address.is_loopback() || address.is_unspecified() || reserved.addresses.contains(address) {
            return Err(Doubt::Reserved(*address));
        }
        if !has(own, *address) {
            return Err(Doubt::Address(*address));
        }
        if let Some(other) = nodes.iter().find(|node| !named(node) && has(node, *address)) {
            return Err(Doubt::Taken(*address, other.metadata.name.clone().unwrap_or_default()));
        }
    }
    Ok(())
}

fn has(node: &Node, address: IpAddr) -> bool {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.into_iter().any(|own| own.address.parse() == Ok(address))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_the_api_server_are_found_however_they_are_written() {
        let names = ["kubernetes.default.svc", "API.Example.org", "*.wild.example"].map(str::to_owned).to_vec();
        let reserved = Reserved { addresses: Vec::new(), names };
        let found = |name: &str, others: &[&str]| {
            let asked = Request {
                common_name: format!("system:node:{name}"),
                names: others.iter().map(|&name| name.to_owned()).collect(),
                ..Request::default()
            };
            reserved.name_in(&asked).map(str::to_owned)
        };
        assert_eq!(found("a", &["a"]), None);
        assert_eq!(found("kubernetes.default.svc", &[]).as_deref(), Some("kubernetes.default.svc"));
        assert_eq!(found("a", &["a", "Kubernetes.Default.SVC."]).as_deref(), Some("Kubernetes.Default.SVC."));
        assert_eq!(found("api.example.org", &[]).as_deref(), Some("api.example.org"));
        assert_eq!(found("x.wild.example", &[]).as_deref(), Some("x.wild.example"));
        assert_eq!(found("*.wild.example", &[]).as_deref(), Some("*.wild.example"));
        assert_eq!(found("x.y.wild.example", &["wild.example", "x.kubernetes.default.svc", "example.org"]), None);
    }

    #[test]
    fn a_node_is_known_by_its_own_name_and_addresses_only() {
        let node = |name: &str, address: &str| -> Arc<Node> {
            let status = json!({ "addresses": [{ "type": "InternalIP", "address": address }] });
            Arc::new(serde_json::from_value(json!({ "metadata": { "name": name }, "status": status })).unwrap())
        };
        let nodes =
            [node("a", "192.0.2.1"), node("b", "192.0.2.2"), node("copies", "192.0.2.2"), node("server", "192.0.2.9")];
        let reserved = Reserved { addresses: vec!["192.0.2.9".parse().unwrap()], names: Vec::new() };
        let check = |author: &str, subject: &str, names: &[&str], addresses: &[&str]| {
            let asked = Request {
                common_name: subject.to_owned(),
                names: names.iter().map(|&name| name.to_owned()).collect(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                ..Request::default()
            };
            vouch(&asked, author, &nodes, &reserved).err().map_or_else(String::new, |doubt| doubt.to_string())
        };
        let (a, copies) = ("system:node:a", "system:node:copies");
        assert_eq!(check(a, a, &["a"], &["192.0.2.1"]), "");
        assert_eq!(check("admin", a, &["a"], &[]), "a node asks for itself only, and its author is another");
        assert_eq!(check(a, "system:node:b", &[], &[]), "a node asks for itself only, and its author is another");
        assert_eq!(check("system:node:c", "system:node:c", &["c"], &[]), "there is no node \"c\"");
        assert_eq!(check(a, a, &["a", "kubernetes"], &[]), "\"kubernetes\" is not the node's name");
        assert_eq!(check(a, a, &[], &["192.0.2.2"]), "192.0.2.2 is not among the addresses in the node's status");
        assert_eq!(check(a, a, &[], &["127.0.0.1"]), "127.0.0.1 is no address of a node");
        assert_eq!(check(copies, copies, &[], &["192.0.2.2"]), "192.0.2.2 is the address of node \"b\"");
        assert_eq!(
            check("system:node:server", "system:node:server", &[], &["192.0.2.9"]),
            "192.0.2.9 is no address of a node"
        );
    }
}
