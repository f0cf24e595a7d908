//! Gives every active namespace what pods expect to find: the ServiceAccount `default` and the ConfigMap
//! `kube-root-ca.crt`. Both come back if they are deleted, and the latter is put right if it is changed.
//!
//! After `pkg/controller/serviceaccount` and `pkg/controller/certificates/rootcacertpublisher`. [`decide`] is pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Dirty, Informer, Key, ListOptions, Scope};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use task::Tasks;

/// Namespaces worked on at a time.
const WORKERS: usize = 4;
const ACCOUNT: &str = "default";
const CONFIG_MAP: &str = "kube-root-ca.crt";
const CA_FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

/// What is there of what a namespace needs.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The namespace.
    pub namespace: &'a Namespace,
    /// Whether its account exists.
    pub has_account: bool,
    /// Its ConfigMap, if it exists.
    pub config_map: Option<&'a ConfigMap>,
}

/// What to do for a namespace.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create its account.
    CreateAccount,
    /// Create its ConfigMap.
    CreateConfigMap,
    /// Put this in the place of its ConfigMap.
    ReplaceConfigMap(Box<ConfigMap>),
}

/// Decides what a namespace lacks.
pub fn decide(view: View<'_>, root_ca: &str) -> Vec<Action> {
    let phase = view.namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    if view.namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating") {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if !view.has_account {
        actions.push(Action::CreateAccount);
    }
    match view.config_map {
        None => actions.push(Action::CreateConfigMap),
        Some(config_map) => {
            let data = BTreeMap::from([(CA_FILE.to_owned(), root_ca.to_owned())]);
            if config_map.data.as_ref() != Some(&data) {
                actions.push(Action::ReplaceConfigMap(Box::new(ConfigMap { data: Some(data), ..config_map.clone() })));
            }
        }
    }
    actions
}

struct Shell {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
    config_maps: Informer<ConfigMap>,
    root_ca: String,
}

/// Starts the controller.
pub fn spawn(
    client: &Client,
    tasks: &Tasks,
    namespaces: &Informer<Namespace>,
    accounts: &Informer<ServiceAccount>,
    root_ca: String,
) {
    let own_maps = ListOptions::fields(&format!("metadata.name={CONFIG_MAP}"));
    let shell = Arc::new(Shell {
        client: client.clone(),
        namespaces: namespaces.clone(),
        accounts: accounts.clone(),
        config_maps: Informer::spawn(client, tasks, Scope::Cluster, own_maps),
        root_ca,
    });
    let queue = Queue::default();
    tasks.spawn("account-namespaces", reconcile::feed(namespaces.subscribe(), queue.clone()));
    tasks.spawn("account-accounts", feed_namespaces(shell.accounts.subscribe(), queue.clone()));
    tasks.spawn("account-config-maps", feed_namespaces(shell.config_maps.subscribe(), queue.clone()));
    tasks.spawn("account-controller", async move {
        shell.accounts.synced().await;
        shell.config_maps.synced().await;
        reconcile::run(queue, WORKERS, |key| sync(Arc::clone(&shell), key)).await;
    });
}

async fn feed_namespaces(mut dirty: Dirty, queue: Queue<Key>) {
    loop {
        queue.add(Key::cluster(&dirty.next().await.namespace));
    }
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(namespace) = shell.namespaces.get(&key) else { return Ok(Outcome::Done) };
    let name = key.name.as_str();
    let config_map = shell.config_maps.get(&Key::namespaced(name, CONFIG_MAP));
    let has_account = shell.accounts.get(&Key::namespaced(name, ACCOUNT)).is_some();
    let view = View { namespace: &namespace, has_account, config_map: config_map.as_deref() };
    for action in decide(view, &shell.root_ca) {
        let done = match action {
            Action::CreateAccount => shell.client.create(&account(name)).await.map(drop),
            Action::CreateConfigMap => shell.client.create(&new_config_map(name, &shell.root_ca)).await.map(drop),
            Action::ReplaceConfigMap(config_map) => shell.client.replace(&*config_map).await.map(drop),
        };
        match done {
            // The informers are a moment behind; what they show next brings the key back.
            Err(error) if error.is_already_exists() || error.is_not_found() => {}
            result => result?,
        }
    }
    Ok(Outcome::Done)
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}

fn account(namespace: &str) -> ServiceAccount {
    ServiceAccount { metadata: metadata(namespace, ACCOUNT), ..ServiceAccount::default() }
}

fn new_config_map(namespace: &str, root_ca: &str) -> ConfigMap {
    let text = "Certificates of the authority that the API server's certificate is issued by.";
    let annotations = BTreeMap::from([(DESCRIPTION.to_owned(), text.to_owned())]);
    ConfigMap {
        metadata: ObjectMeta { annotations: Some(annotations), ..metadata(namespace, CONFIG_MAP) },
        data: Some(BTreeMap::from([(CA_FILE.to_owned(), root_ca.to_owned())])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NamespaceStatus;

    use super::*;

    fn namespace(phase: &str) -> Namespace {
        let status = NamespaceStatus { phase: Some(phase.to_owned()), conditions: None };
        Namespace { status: Some(status), ..Namespace::default() }
    }

    #[test]
    fn a_new_namespace_gets_both() {
        let view = View { namespace: &namespace("Active"), has_account: false, config_map: None };
        assert_eq!(decide(view, "CA"), [Action::CreateAccount, Action::CreateConfigMap]);
    }

    #[test]
    fn a_namespace_that_is_going_gets_nothing() {
        let view = View { namespace: &namespace("Terminating"), has_account: false, config_map: None };
        assert_eq!(decide(view, "CA"), []);
    }

    #[test]
    fn a_changed_config_map_is_put_right_and_a_right_one_left_alone() {
        let right = new_config_map("x", "CA");
        let view = View { namespace: &namespace("Active"), has_account: true, config_map: Some(&right) };
        assert_eq!(decide(view, "CA"), []);
        let replacement = ConfigMap { data: new_config_map("x", "new CA").data, ..right.clone() };
        assert_eq!(decide(view, "new CA"), [Action::ReplaceConfigMap(Box::new(replacement))]);
    }
}
