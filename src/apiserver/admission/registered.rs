//! Webhooks, policies and bindings as the store has them now, with what is made of them once.
//!
//! There is no task behind it: whoever asks takes in what has changed since the last time, so that a policy counts for
//! the first request after the one that wrote it. What has not changed is not compiled again.

use std::sync::Arc;

use api::resources::admission::policy::Programs;
use futures_util::FutureExt as _;
use serde_json::Value;
use store::{Range, Store, StoreError, Watch};
use tokio::sync::Mutex;

use super::hooks::Hook;
use crate::object::{self, meta};

/// The API group, and with a slash the prefix of all keys.
pub(super) const GROUP: &str = "admissionregistration.k8s.io";
const PREFIX: &str = "admissionregistration.k8s.io/";

/// Everybody who is asked about writes; each list in the order of names.
#[derive(Default)]
pub(super) struct Registered {
    pub(super) mutating: Vec<Arc<Hook>>,
    pub(super) validating: Vec<Arc<Hook>>,
    pub(super) policies: Vec<Arc<Policy>>,
    pub(super) bindings: Vec<Value>,
    /// Policies that change what is written, and their bindings.
    pub(super) mutations: Vec<Arc<Policy>>,
    pub(super) mutation_bindings: Vec<Value>,
}

/// A policy and its expressions.
pub(super) struct Policy {
    pub(super) object: Value,
    pub(super) programs: Programs,
    /// Whether they ask who may do what.
    pub(super) asks: bool,
}

/// A [`Registered`] that follows the store.
#[derive(Default)]
pub(crate) struct RegisteredCache {
    inner: Mutex<Option<Followed>>,
}

struct Followed {
    present: Arc<Registered>,
    watch: Box<dyn Watch>,
}

impl RegisteredCache {
    /// Everybody who is asked now.
    pub(super) async fn now(&self, store: &dyn Store) -> Result<Arc<Registered>, StoreError> {
        let mut inner = self.inner.lock().await;
        let before = match inner.take() {
            Some(mut followed) => match followed.watch.next().now_or_never() {
                None => {
                    let present = Arc::clone(&followed.present);
                    *inner = Some(followed);
                    return Ok(present);
                }
                Some(_) => followed.present,
            },
            None => Arc::default(),
        };
        let page = store.list(Range { prefix: PREFIX.to_owned(), after: None, limit: None, at: None }).await?;
        let watch = store.watch(PREFIX, page.revision).await?;
        let objects = page.entries.iter().filter_map(|entry| object::of_entry(entry).ok());
        let present = Arc::new(Registered::of(objects, &before));
        *inner = Some(Followed { present: Arc::clone(&present), watch });
        Ok(present)
    }
}

impl Registered {
    /// Whether anybody may change what is written.
    pub(super) fn has_mutating(&self) -> bool {
        !self.mutating.is_empty() || !self.mutation_bindings.is_empty()
    }

    /// Whether anybody may refuse what is written.
    pub(super) fn has_validating(&self) -> bool {
        !self.validating.is_empty() || !self.policies.is_empty()
    }

    fn of(objects: impl Iterator<Item = Value>, before: &Self) -> Self {
        let mut present = Self::default();
        for object in objects {
            match object["kind"].as_str().unwrap_or_default() {
                "MutatingWebhookConfiguration" => present.mutating.extend(hooks(&object, &before.mutating)),
                "ValidatingWebhookConfiguration" => present.validating.extend(hooks(&object, &before.validating)),
                "ValidatingAdmissionPolicy" => {
                    present.policies.push(policy(object, &before.policies, Programs::of_policy));
                }
                "ValidatingAdmissionPolicyBinding" => present.bindings.push(object),
                "MutatingAdmissionPolicy" => {
                    present.mutations.push(policy(object, &before.mutations, Programs::of_mutations));
                }
                "MutatingAdmissionPolicyBinding" => present.mutation_bindings.push(object),
                _ => {}
            }
        }
        present
    }
}

fn policy(object: Value, before: &[Arc<Policy>], compile: fn(&Value) -> Programs) -> Arc<Policy> {
    let is_same = |policy: &&Arc<Policy>| {
        ["uid", "resourceVersion"].iter().all(|field| meta(&policy.object, field) == meta(&object, field))
    };
    match before.iter().find(is_same) {
        Some(policy) => Arc::clone(policy),
        None => {
            let programs = compile(&object);
            Arc::new(Policy { asks: programs.ask_authorizer(), programs, object })
        }
    }
}

fn hooks(configuration: &Value, before: &[Arc<Hook>]) -> Vec<Arc<Hook>> {
    let made_from = meta(configuration, "uid").to_owned() + "/" + meta(configuration, "resourceVersion");
    let own = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
    let hook = |(index, hook): (usize, &Value)| {
        let id = format!("{made_from}/{index}");
        let known = before.iter().find(|known| known.id == id);
        known.map_or_else(|| Arc::new(Hook::new(id.clone(), hook)), Arc::clone)
    };
    own.map(hook).collect()
}
