//! Approves, signs and removes requests for certificates.
//!
//! After `pkg/controller/certificates`: the approver takes what kubelets ask for themselves, if the API server says that they
//! may (`approver/sarapprove.go`); the signers issue what is approved and fits them, and say why the rest does not
//! ([`signer`]); the cleaner removes what is over ([`due`]). [`decide`] and [`due`] are pure. The key of the authority is
//! not here: [`Sign`] has it. Requests for signers of other names are left to whoever signs them.
//!
//! Upstream leaves it to people, or to a provider's controller, to approve what kubelets ask for as servers. Here nobody else
//! is there, so [`vouch`] looks whether a node may be known by that.

mod decide;
mod serving;
mod signer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use api::resources::certificate::order::Order;
use api::resources::certificate::request::Request;
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, ListOptions, Scope};
use http::Method;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use task::{SharedClock, Tasks};

use crate::BoxError;
pub use decide::{Review, Step, decide, due};
pub use serving::{Doubt, Reserved, vouch};
pub use signer::{Signer, Violation};

/// Requests worked on at a time.
const WORKERS: usize = 4;
/// How soon and how late a request is looked at again whose author may not have it approved yet.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(1000);
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Signs with the key of the cluster's authority; the certificate is a PEM text.
pub type Sign = Arc<dyn Fn(&Order) -> Result<String, BoxError> + Send + Sync>;

/// Why a request could not be dealt with.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the authority does not sign")]
    Sign(#[source] BoxError),
}

/// The cluster's authority.
#[derive(Clone)]
pub struct Authority {
    /// Signs with its key.
    pub sign: Sign,
    /// What no node may be known by.
    pub reserved: Reserved,
}

struct Shell {
    client: Client,
    clock: SharedClock,
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
    authority: Authority,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, nodes: &Informer<Node>, authority: Authority) {
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: SharedClock::clone(clock),
        requests: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        nodes: nodes.clone(),
        authority,
    });
    let queue = Queue::default();
    tasks.spawn("certificates-feed", reconcile::feed(shell.requests.subscribe(), queue.clone()));
    tasks.spawn("certificates-controller", async move {
        shell.requests.synced().await;
        shell.nodes.synced().await;
        reconcile::run(queue, WORKERS, |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, SyncError> {
    let Some(request) = shell.requests.get(&key) else { return Ok(Outcome::Done) };
    let now = shell.clock.now();
    let due = due(&request);
    if due.is_some_and(|due| due <= now) {
        settled(shell.remove(&request).await)?;
        return Ok(Outcome::Done);
    }
    let end = due.and_then(|due| Duration::try_from(due.duration_since(now)).ok());
    let is_waiting = match decide(&request, &shell.authority.reserved) {
        Step::Nothing => false,
        Step::Review(reviews) => !settled(shell.approve(&request, &reviews).await)?.unwrap_or(true),
        Step::Vouch(asked) => !settled(shell.vouch(&request, &asked).await)?.unwrap_or(true),
        Step::Sign(order) => {
            let certificate = (shell.authority.sign)(&order).map_err(SyncError::Sign)?;
            settled(shell.issue(&request, certificate).await)?;
            false
        }
        Step::Deny(violation) => {
            settled(shell.deny(&request, &violation, now).await)?;
            false
        }
        Step::Fail(violation) => {
            settled(shell.fail(&request, &violation, now).await)?;
            false
        }
    };
    let again = is_waiting.then(|| age(&request, now).clamp(SOONEST, LATEST));
    Ok(again.into_iter().chain(end).min().map_or(Outcome::Done, Outcome::Again))
}

/// What has changed or gone meanwhile is told by the informer.
fn settled<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Err(error) if error.is_overtaken() => Ok(None),
        result => result.map(Some),
    }
}

/// Waiting as long as it has waited already makes a back-off that needs no memory.
fn age(request: &CertificateSigningRequest, now: Timestamp) -> Duration {
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
    Duration::try_from(now.duration_since(created)).unwrap_or_default()
}

impl Shell {
    /// Approves a request if its author may have that done; whether it was.
    async fn approve(&self, request: &CertificateSigningRequest, reviews: &[Review]) -> Result<bool, ClientError> {
        for review in reviews {
            let answer = self.client.request(Method::POST, REVIEWS, Some(&access_review(request, review))).await?;
            if answer["status"]["allowed"] == true {
                self.write_approval(request, review.message).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Approves what a node asks for as a server, unless there is a doubt; whether it was.
    async fn vouch(&self, request: &CertificateSigningRequest, asked: &Request) -> Result<bool, ClientError> {
        let author = request.spec.username.as_deref().unwrap_or_default();
        match vouch(asked, author, &self.nodes.snapshot(), &self.authority.reserved) {
            Ok(()) => self.write_approval(request, serving::MESSAGE).await.map(|()| true),
            Err(doubt) => {
                let name = request.metadata.name.as_deref().unwrap_or_default();
                tracing::warn!(request = name, author, %doubt, "a request for a server's certificate is not approved");
                Ok(false)
            }
        }
    }

    async fn write_approval(&self, request: &CertificateSigningRequest, message: &str) -> Result<(), ClientError> {
        let approved = json!(with_condition(request, decide::APPROVED, "AutoApproved", message, None));
        let name = request.metadata.name.as_deref().unwrap_or_default();
        tracing::info!(request = name, message, "approved a request of a node");
        self.client.request(Method::PUT, &format!("{REQUESTS}/{name}/approval"), Some(&approved)).await.map(drop)
    }

    async fn deny(
        &self,
        request: &CertificateSigningRequest,
        violation: &Violation,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let message = violation.to_string();
        let approved = json!(with_condition(request, decide::DENIED, "AutoDenied", &message, Some(now)));
        let name = request.metadata.name.as_deref().unwrap_or_default();
        tracing::warn!(request = name, author = request.spec.username, message, "denied a request of a node");
        self.client.request(Method::PUT, &format!("{REQUESTS}/{name}/approval"), Some(&approved)).await.map(drop)
    }

    async fn issue(&self, request: &CertificateSigningRequest, certificate: String) -> Result<(), ClientError> {
        let mut issued = request.clone();
        let status = issued.status.get_or_insert_with(CertificateSigningRequestStatus::default);
        status.certificate = Some(ByteString(certificate.into_bytes()));
        self.client.replace_status(&issued).await.map(drop)
    }

    async fn fail(
        &self,
        request: &CertificateSigningRequest,
        violation: &Violation,
        now: Timestamp,
    ) -> Result<(), ClientError> {
        let message = violation.to_string();
        let failed = with_condition(request, decide::FAILED, "SignerValidationFailure", &message, Some(now));
        self.client.replace_status(&failed).await.map(drop)
    }

    async fn remove(&self, request: &CertificateSigningRequest) -> Result<(), ClientError> {
        let options = DeleteOptions::as_seen(&request.metadata);
        self.client.delete::<CertificateSigningRequest>(&Key::of(&request.metadata), &options).await
    }
}

fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
    now: Option<Timestamp>,
) -> CertificateSigningRequest {
    let mut request = request.clone();
    let status = request.status.get_or_insert_with(CertificateSigningRequestStatus::default);
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: now.map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time),
        last_transition_time: None,
    });
    request
}

/// Asks whether the author of a request may have it approved.
fn access_review(request: &CertificateSigningRequest, review: &Review) -> Value {
    let spec = &request.spec;
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io", "version": "*", "resource": "certificatesigningrequests",
                "subresource": review.subresource, "verb": "create",
            },
        },
    })
}
