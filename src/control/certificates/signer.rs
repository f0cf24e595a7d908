//! The built-in signers, and what each asks of a request.
//!
//! After `pkg/controller/certificates/signer/signer.go` and `pkg/apis/certificates/helpers.go`; the words of [`Violation`]
//! reach users in conditions. `kubernetes.io/legacy-unknown` is none of them: this version of the API takes no request for it.

use std::collections::BTreeSet;

use api::resources::certificate::order::Usage;
use api::resources::certificate::request::Request;

const NODES: &str = "system:nodes";
const NODE: &str = "system:node:";

/// A signer that issues certificates of the cluster's authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// Of clients of the API server.
    Client,
    /// Of kubelets as clients of the API server.
    KubeletClient,
    /// Of kubelets as servers.
    KubeletServing,
}

/// Why a signer does not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the words of each say what it means")]
pub enum Violation {
    #[error("invalid usage for client certificate: {0}")]
    ClientUsage(String),
    #[error("missing required usage for client certificate: client auth")]
    NoClientAuth,
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("DNS or IP subjectAltName is required")]
    NoName,
    #[error("DNS subjectAltNames are not allowed")]
    Name,
    #[error("Email subjectAltNames are not allowed")]
    Email,
    #[error("IP subjectAltNames are not allowed")]
    Address,
    #[error("URI subjectAltNames are not allowed")]
    Uri,
    #[error("usages did not match [{0}]")]
    Usages(&'static str),
    #[error("{0:?} is a name of the API server and of no node")]
    Reserved(String),
}

impl Signer {
    /// The signer of a name; none if somebody else signs.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(Self::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::KubeletClient),
            "kubernetes.io/kubelet-serving" => Some(Self::KubeletServing),
            _ => None,
        }
    }

    /// What the certificate may be used for, if the signer issues it.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(self, request: &Request, usages: &[String]) -> Result<Vec<Usage>, Violation> {
        match self {
            Self::Client => client(usages),
            Self::KubeletClient => kubelet_client(request, usages),
            Self::KubeletServing => kubelet_serving(request, usages),
        }
    }
}

fn client(usages: &[String]) -> Result<Vec<Usage>, Violation> {
    let allowed = |word: &String| match Usage::parse(word) {
        Some(usage) if usage != Usage::ServerAuth => Ok(usage),
        _ => Err(Violation::ClientUsage(word.clone())),
    };
    let usages = usages.iter().map(allowed).collect::<Result<Vec<_>, _>>()?;
    if usages.contains(&Usage::ClientAuth) { Ok(usages) } else { Err(Violation::NoClientAuth) }
}

fn kubelet_client(request: &Request, words: &[String]) -> Result<Vec<Usage>, Violation> {
    of_nodes(request)?;
    refuse(!request.names.is_empty(), Violation::Name)?;
    refuse(!request.emails.is_empty(), Violation::Email)?;
    refuse(!request.addresses.is_empty(), Violation::Address)?;
    refuse(!request.uris.is_empty(), Violation::Uri)?;
    refuse(!request.common_name.starts_with(NODE), Violation::CommonName)?;
    exactly(words, Usage::ClientAuth, "client auth digital signature key encipherment")
}

fn kubelet_serving(request: &Request, words: &[String]) -> Result<Vec<Usage>, Violation> {
    of_nodes(request)?;
    refuse(request.names.is_empty() && request.addresses.is_empty(), Violation::NoName)?;
    refuse(!request.emails.is_empty(), Violation::Email)?;
    refuse(!request.uris.is_empty(), Violation::Uri)?;
    let usages = exactly(words, Usage::ServerAuth, "digital signature key encipherment server auth")?;
    refuse(!request.common_name.starts_with(NODE), Violation::CommonName)?;
    Ok(usages)
}

fn refuse(is_wrong: bool, violation: Violation) -> Result<(), Violation> {
    if is_wrong { Err(violation) } else { Ok(()) }
}

fn of_nodes(request: &Request) -> Result<(), Violation> {
    refuse(request.organizations != [NODES], Violation::Organization)
}

/// Signatures and this purpose, with or without the encryption of keys.
fn exactly(words: &[String], purpose: Usage, expected: &'static str) -> Result<Vec<Usage>, Violation> {
    let known = words.iter().map(|word| Usage::parse(word).ok_or(Violation::Usages(expected)));
    let mut usages = known.collect::<Result<BTreeSet<_>, _>>()?;
    let all: Vec<Usage> = usages.iter().copied().collect();
    usages.remove(&Usage::KeyEncipherment);
    if usages == BTreeSet::from([Usage::DigitalSignature, purpose]) {
        Ok(all)
    } else {
        Err(Violation::Usages(expected))
    }
}
