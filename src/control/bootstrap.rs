//! Removes bootstrap tokens that have run out.
//!
//! After `pkg/controller/bootstrap/tokencleaner.go`. [`decide`] is pure. Such a token is refused from its end on anyway;
//! this takes away what lies about.

use std::sync::Arc;
use std::time::Duration;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, ListOptions, Scope, unless_overtaken};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use task::{SharedClock, Tasks};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// What is to become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has no end.
    Stays,
    /// It has run out, or its end cannot be read.
    Expired,
    /// It runs out after this time.
    DueIn(Duration),
}

/// Decides by the moment that a token's Secret names.
pub fn decide(secret: &Secret, now: Timestamp) -> Verdict {
    let end = secret.data.as_ref().and_then(|data| data.get("expiration")).map(|end| end.0.as_slice());
    let Some(end) = end.filter(|end| !end.is_empty()) else { return Verdict::Stays };
    let end = std::str::from_utf8(end).ok().and_then(|end| end.parse::<Timestamp>().ok());
    match end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()) {
        Some(left) if !left.is_zero() => Verdict::DueIn(left),
        _ => Verdict::Expired,
    }
}

struct Shell {
    client: Client,
    clock: SharedClock,
    secrets: Informer<Secret>,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks) {
    let options = ListOptions::fields(&format!("type={TYPE}"));
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: SharedClock::clone(clock),
        secrets: Informer::spawn(client, tasks, Scope::namespace(NAMESPACE), options),
    });
    let queue = Queue::default();
    tasks.spawn("bootstrap-feed", reconcile::feed(shell.secrets.subscribe(), queue.clone()));
    tasks.spawn("bootstrap-controller", reconcile::run(queue, 1, move |key| sync(Arc::clone(&shell), key)));
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(secret) = shell.secrets.get(&key) else { return Ok(Outcome::Done) };
    match decide(&secret, shell.clock.now()) {
        Verdict::Stays => return Ok(Outcome::Done),
        Verdict::DueIn(left) => return Ok(Outcome::Again(left)),
        Verdict::Expired => {}
    }
    tracing::info!(secret = %key, "removing a bootstrap token that has run out");
    // One that somebody has prolonged meanwhile stays.
    unless_overtaken(shell.client.delete::<Secret>(&key, &DeleteOptions::as_seen(&secret.metadata)).await)
        .map(|_| Outcome::Done)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_token_goes_at_its_end_and_one_whose_end_is_nonsense_at_once() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let verdict = |end: Option<&str>| {
            let data = end.map(|end| [("expiration".to_owned(), ByteString(end.as_bytes().to_vec()))].into());
            decide(&Secret { data, ..Secret::default() }, now)
        };
        assert_eq!((verdict(None), verdict(Some(""))), (Verdict::Stays, Verdict::Stays));
        assert_eq!(verdict(Some("2026-01-02T03:05:05Z")), Verdict::DueIn(Duration::from_secs(60)));
        assert_eq!(verdict(Some("2026-01-02T05:04:05+02:00")), Verdict::Expired);
        assert_eq!(verdict(Some("2026-01-02T03:04:05Z")), Verdict::Expired);
        assert_eq!(verdict(Some("tomorrow")), Verdict::Expired);
    }
}
