//! Fills Secrets that are to hold the token of a service account, and removes those whose account has gone.
//!
//! After `pkg/controller/serviceaccount/tokens_controller.go`. Somebody makes such a Secret on purpose; nobody does so by
//! itself any more. [`decide`] is pure. Signing is not done here: [`Issue`] has the key. Invariant: a Secret is removed only
//! after the API server itself has confirmed that its account is gone.

use std::sync::Arc;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, DeleteOptions, Informer, Key, ListOptions, Patch, Scope};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Map, Value, json};
use task::Tasks;

use crate::BoxError;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// Secrets worked on at a time.
const WORKERS: usize = 4;

/// A token to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Namespace of both.
    pub namespace: String,
    /// The Secret that is to hold it.
    pub secret: String,
    /// Whose token it is.
    pub account: String,
    /// Which of the accounts that had this name.
    pub account_uid: String,
}

/// Signs the token of a Secret.
pub type Issue = Arc<dyn Fn(&Order) -> Result<String, BoxError> + Send + Sync>;

/// What to do about a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Remove it: its account has gone, or is another.
    Remove,
    /// Give it what it lacks.
    Fill {
        /// Whether it has no token yet.
        lacks_token: bool,
    },
}

/// Decides about a Secret by its account, if that exists.
pub fn decide(secret: &Secret, account: Option<&ServiceAccount>, root_ca: &str) -> Step {
    let name = annotation(secret, NAME);
    if secret.type_.as_deref() != Some(TYPE) || name.is_empty() || secret.metadata.deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    let uid = annotation(secret, UID);
    let account = account.filter(|account| uid.is_empty() || account.metadata.uid.as_deref() == Some(uid));
    if account.is_none() {
        return Step::Remove;
    }
    let lacks = |key: &str| data(secret, key).is_none_or(<[u8]>::is_empty);
    let lacks_token = lacks("token");
    let is_complete = !lacks_token
        && !lacks("namespace")
        && !uid.is_empty()
        && (root_ca.is_empty() || data(secret, "ca.crt") == Some(root_ca.as_bytes()));
    if is_complete { Step::Nothing } else { Step::Fill { lacks_token } }
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(key)).map_or("", String::as_str)
}

fn data<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    Some(secret.data.as_ref()?.get(key)?.0.as_slice())
}

/// Why a Secret could not be dealt with.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the token could not be signed")]
    Issue(#[source] BoxError),
}

struct Shell {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    root_ca: String,
    issue: Issue,
}

/// Starts the controller.
pub fn spawn(client: &Client, tasks: &Tasks, accounts: &Informer<ServiceAccount>, root_ca: String, issue: Issue) {
    let shell = Arc::new(Shell {
        client: client.clone(),
        secrets: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::fields(&format!("type={TYPE}"))),
        accounts: accounts.clone(),
        root_ca,
        issue,
    });
    let queue = Queue::default();
    tasks.spawn("tokens-secrets", reconcile::feed(shell.secrets.subscribe(), queue.clone()));
    tasks.spawn("tokens-accounts", feed_by_accounts(Arc::clone(&shell), queue.clone()));
    tasks.spawn("tokens-controller", async move {
        shell.secrets.synced().await;
        shell.accounts.synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// An account concerns the Secrets that name it.
async fn feed_by_accounts(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.accounts.subscribe();
    loop {
        let account = dirty.next().await;
        let names = |secret: &Secret| {
            secret.metadata.namespace.as_ref() == Some(&account.namespace) && annotation(secret, NAME) == account.name
        };
        for secret in shell.secrets.snapshot().iter().filter(|secret| names(secret)) {
            queue.add(Key::of(&secret.metadata));
        }
    }
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, SyncError> {
    let Some(secret) = shell.secrets.get(&key) else { return Ok(Outcome::Done) };
    let account_key = Key::namespaced(&key.namespace, annotation(&secret, NAME));
    let mut account = shell.accounts.get(&account_key);
    let mut step = decide(&secret, account.as_deref(), &shell.root_ca);
    if step == Step::Remove {
        // The account may have been made just now.
        account = shell.client.get_opt(&account_key).await?.map(Arc::new);
        step = decide(&secret, account.as_deref(), &shell.root_ca);
    }
    let done = match (step, account) {
        (Step::Fill { lacks_token }, Some(account)) => {
            let token = lacks_token.then(|| shell.token(&key, &account)).transpose().map_err(SyncError::Issue)?;
            shell.fill(&secret, &account, token).await
        }
        (Step::Remove, _) => shell.remove(&secret).await,
        _ => Ok(()),
    };
    match done {
        // The informer will tell of the newer state.
        Err(error) if error.is_overtaken() => Ok(Outcome::Done),
        result => Ok(result.map(|()| Outcome::Done)?),
    }
}

impl Shell {
    fn token(&self, secret: &Key, account: &ServiceAccount) -> Result<String, BoxError> {
        (self.issue)(&Order {
            namespace: secret.namespace.clone(),
            secret: secret.name.clone(),
            account: account.metadata.name.clone().unwrap_or_default(),
            account_uid: account.metadata.uid.clone().unwrap_or_default(),
        })
    }

    async fn fill(&self, secret: &Secret, account: &ServiceAccount, token: Option<String>) -> Result<(), ClientError> {
        let (metadata, namespace) = (&secret.metadata, secret.metadata.namespace.clone().unwrap_or_default());
        let ca = (!self.root_ca.is_empty()).then(|| self.root_ca.clone());
        let entries = [("token", token), ("ca.crt", ca), ("namespace", Some(namespace))];
        let entries = entries.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?)));
        let data: Map<String, Value> = entries.map(|(key, text)| (key, json!(ByteString(text.into_bytes())))).collect();
        let patch = json!({
            "metadata": {
                "uid": metadata.uid, "resourceVersion": metadata.resource_version,
                "annotations": {(UID): account.metadata.uid},
            },
            "data": data,
        });
        self.client.patch::<Secret>(&Key::of(metadata), &Patch::Merge(patch)).await.map(drop)
    }

    async fn remove(&self, secret: &Secret) -> Result<(), ClientError> {
        let key = Key::of(&secret.metadata);
        tracing::info!(secret = %key, "removing the token of a service account that is gone");
        self.client.delete::<Secret>(&key, &DeleteOptions::as_seen(&secret.metadata)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(uid: &str, data: Value) -> Secret {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "annotations": {(NAME): "robot", (UID): uid}}, "type": TYPE, "data": data,
        }))
        .unwrap()
    }

    fn account(uid: &str) -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "robot", "uid": uid}})).unwrap()
    }

    #[test]
    fn a_secret_gets_what_it_lacks_and_is_left_alone_then() {
        let step = |uid, data| decide(&secret(uid, data), Some(&account("1")), "CA");
        assert_eq!(step("", json!({})), Step::Fill { lacks_token: true });
        assert_eq!(step("1", json!({"token": ""})), Step::Fill { lacks_token: true });
        let whole = json!({"token": "dA==", "namespace": "eA==", "ca.crt": "Q0E="});
        assert_eq!(step("1", whole.clone()), Step::Nothing);
        assert_eq!(step("", whole.clone()), Step::Fill { lacks_token: false }, "it is to say whose token it is");
        let old = json!({"token": "dA==", "namespace": "eA==", "ca.crt": "b2xk"});
        assert_eq!(step("1", old), Step::Fill { lacks_token: false });
    }

    #[test]
    fn a_secret_of_nobody_goes_and_others_are_nobodys_business() {
        assert_eq!(decide(&secret("1", json!({})), None, "CA"), Step::Remove);
        assert_eq!(decide(&secret("1", json!({})), Some(&account("2")), "CA"), Step::Remove);
        let mut other = secret("1", json!({}));
        other.type_ = Some("Opaque".to_owned());
        assert_eq!(decide(&other, None, "CA"), Step::Nothing);
    }
}
