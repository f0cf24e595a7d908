//! LimitRanges and quotas of a namespace at work (LimitRanger, ResourceQuota).
//!
//! What is used of a quota is counted from the stored objects each time, under a lock that is held until the write is
//! done: nothing can be charged twice, forgotten, or left charged by a crash. Invariant: under that lock nobody outside is
//! asked; custom objects are counted as they are stored, by no webhook.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use api::resources;
use api::resources::limitrange::apply;
use api::resources::quota::usage::{self, Amounts};
use api::status::ApiError;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::MutexGuard;

use super::is_core;
use crate::call::Call;
use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::storage;

/// Gives the containers of a new pod what the LimitRanges of its namespace say of those that do not say it themselves.
pub(super) async fn default_pod(call: &Call, pod: &mut Value) -> Result<(), ApiError> {
    for range in call.server.objects("limitranges", meta(pod, "namespace")).await? {
        apply::default_pod(pod, &range);
    }
    Ok(())
}

/// Refuses what a LimitRange of the namespace does not permit; pods are looked at only when they are made.
pub(super) async fn check(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let violations: fn(&Value, &Value) -> Vec<String> = match () {
        () if is_core(call, "pods") && old.is_none() => apply::pod_violations,
        () if is_core(call, "persistentvolumeclaims") => apply::claim_violations,
        () => return Ok(()),
    };
    for range in call.server.objects("limitranges", meta(new, "namespace")).await? {
        let wrong = violations(new, &range);
        let text = match wrong.as_slice() {
            [] => continue,
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        return Err(ApiError::forbidden("", call.row.plural, meta(new, "name"), &text));
    }
    Ok(())
}

/// Refuses what does not fit into the quotas of the namespace. The guard must live until the object is stored.
pub(super) async fn charge<'a>(
    call: &'a Call,
    new: &Value,
    old: Option<&Value>,
) -> Result<Option<MutexGuard<'a, ()>>, ApiError> {
    let (row, namespace, now) = (call.row.stored(), meta(new, "namespace"), call.now());
    if old.is_some() && !["pods", "services", "persistentvolumeclaims"].iter().any(|plural| is_core(call, plural)) {
        return Ok(None);
    }
    let quotas = call.server.objects("resourcequotas", namespace).await?;
    let concerns = |quota: &Value| usage::is_about(quota, row) && usage::matches(quota, row, new);
    let quotas: Vec<Value> = quotas.into_iter().filter(concerns).collect();
    if quotas.is_empty() {
        return Ok(None);
    }
    let before = old.map(|old| usage::usage(row, old, now)).unwrap_or_default();
    let more = usage::growth(usage::usage(row, new, now), &before);
    let refuse = |text: String| Err(ApiError::forbidden(row.group, row.plural, meta(new, "name"), &text));
    if is_core(call, "pods") {
        for quota in &quotas {
            if let Some(unsaid) = usage::unsaid(quota, new) {
                return refuse(format!("failed quota: {}: {unsaid}", meta(quota, "name")));
            }
        }
    }
    if more.is_empty() {
        return Ok(None);
    }
    let guard = call.server.charging.lock().await;
    let used = call.server.used(namespace, &quotas, now).await?;
    for (quota, used) in quotas.iter().zip(used) {
        if let Some(text) = usage::exceeded(quota, &used, &more) {
            return refuse(text);
        }
    }
    Ok(Some(guard))
}

impl ApiServer {
    /// All objects of a kind of the core group in a namespace, or in all if it is empty.
    pub(crate) async fn objects(&self, plural: &str, namespace: &str) -> Result<Vec<Value>, ApiError> {
        let row = resources::find("", "v1", plural).ok_or_else(|| ApiError::internal(format!("no {plural}")))?;
        let page = self.page_of(row, namespace).await?;
        page.entries.iter().map(|entry| storage::load(row, entry)).collect()
    }

    async fn page_of(&self, row: &resources::Resource, namespace: &str) -> Result<store::Page, ApiError> {
        let range = store::Range { prefix: storage::prefix(row, namespace), after: None, limit: None, at: None };
        self.config.store.list(range).await.map_err(storage::failed)
    }

    /// What the objects of a namespace use of each of its quotas.
    pub(crate) async fn used(
        &self,
        namespace: &str,
        quotas: &[Value],
        now: Timestamp,
    ) -> Result<Vec<Amounts>, ApiError> {
        let kinds = self.kinds().await?;
        let kinds = kinds.all();
        let mut found: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
        let mut sums = Vec::new();
        for quota in quotas {
            let (mut sum, mut summed) = (Amounts::new(), BTreeSet::new());
            for row in usage::rows(quota, &kinds) {
                let key = (row.group, row.plural);
                // An object of a kind with several versions is one object.
                if !summed.insert(key) {
                    continue;
                }
                let objects = match found.entry(key) {
                    Entry::Occupied(there) => there.into_mut(),
                    Entry::Vacant(free) => {
                        // As they are stored: of a kind that is converted, only how many there are counts.
                        let page = self.page_of(row, namespace).await?;
                        free.insert(page.entries.iter().map(object::of_entry).collect::<Result<_, _>>()?)
                    }
                };
                for object in objects.iter().filter(|object| usage::matches(quota, row, object)) {
                    usage::add(&mut sum, &usage::usage(row, object, now));
                }
            }
            sums.push(sum);
        }
        Ok(sums)
    }
}
