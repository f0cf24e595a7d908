//! What is to be done about one request.

use std::time::Duration;

use api::resources::certificate::order::Order;
use api::resources::certificate::request::{Request, end_of};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::serving::Reserved;
use super::signer::{Signer, Violation};

pub(super) const APPROVED: &str = "Approved";
pub(super) const DENIED: &str = "Denied";
pub(super) const FAILED: &str = "Failed";
const HOUR: Duration = Duration::from_secs(3600);
/// How long certificates are valid if nothing shorter is asked for: upstream's `--cluster-signing-duration`.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// What is never gone below.
const SHORTEST: Duration = Duration::from_secs(600);

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, or nothing any more.
    Nothing,
    /// Approve it if one of these rights of its author is confirmed.
    Review(Vec<Review>),
    /// Approve it if a node may be known by that.
    Vouch(Box<Request>),
    /// Issue the certificate.
    Sign(Box<Order>),
    /// Say that nobody is to approve it.
    Deny(Violation),
    /// Say that the signer does not issue it.
    Fail(Violation),
}

/// A right by which a request is approved: to create this subresource of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// The subresource.
    pub subresource: &'static str,
    /// What the approval says.
    pub message: &'static str,
}

/// Somebody renews the certificate that they are known by.
const SELF_NODE_CLIENT: Review = Review {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
/// Somebody asks for a node's first certificate.
const NODE_CLIENT: Review = Review {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// Decides about a request that is to be kept.
///
/// What the API server is known by, no node is: upstream leaves that to whoever approves, here nobody else looks.
pub fn decide(request: &CertificateSigningRequest, reserved: &Reserved) -> Step {
    let Some(signer) = Signer::parse(&request.spec.signer_name) else { return Step::Nothing };
    let has = |kind: &str| conditions(request).iter().any(|condition| condition.type_ == kind);
    // What cannot be read was refused when it came.
    let Ok(asked) = Request::parse(&request.spec.request.0) else { return Step::Nothing };
    if certificate(request).is_some() || has(DENIED) || has(FAILED) {
        return Step::Nothing;
    }
    let of_node = matches!(signer, Signer::KubeletClient | Signer::KubeletServing);
    if let Some(name) = of_node.then(|| reserved.name_in(&asked)).flatten() {
        let violation = Violation::Reserved(name.to_owned());
        return if has(APPROVED) { Step::Fail(violation) } else { Step::Deny(violation) };
    }
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    let checked = signer.check(&asked, usages);
    match (has(APPROVED), checked) {
        (true, Ok(usages)) => {
            Step::Sign(Box::new(Order { request: asked, usages, lifetime: lifetime(request.spec.expiration_seconds) }))
        }
        (true, Err(violation)) => Step::Fail(violation),
        (false, Ok(_)) if signer == Signer::KubeletClient => {
            let is_own = request.spec.username.as_ref() == Some(&asked.common_name);
            Step::Review(is_own.then_some(SELF_NODE_CLIENT).into_iter().chain([NODE_CLIENT]).collect())
        }
        (false, Ok(_)) if signer == Signer::KubeletServing => Step::Vouch(Box::new(asked)),
        (false, _) => Step::Nothing,
    }
}

fn lifetime(seconds: Option<i32>) -> Duration {
    let Some(seconds) = seconds else { return LIFETIME };
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).clamp(SHORTEST, LIFETIME)
}

/// When a request is to be removed, as `cleaner/cleaner.go` has it; none if it is kept until something happens to it.
pub fn due(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let conditions = conditions(request);
    if conditions.is_empty() {
        return Some(request.metadata.creation_timestamp.as_ref()?.0 + 24 * HOUR);
    }
    let certificate = certificate(request);
    let dues = conditions.iter().flat_map(|condition| {
        let later = condition.last_update_time.as_ref().map(|time| time.0 + HOUR);
        match (condition.type_.as_str(), certificate) {
            (APPROVED, Some(certificate)) => [later, end_of(certificate)],
            (DENIED | FAILED, _) => [later, None],
            _ => [None, None],
        }
    });
    dues.flatten().min()
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|certificate| !certificate.is_empty())
}
