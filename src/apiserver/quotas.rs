//! Keeps `status` of ResourceQuotas true: what is used, counted again whenever it may have changed.
//!
//! It stands here and not among the controllers because every kind of object can be bounded: the server sees each write
//! anyway, where a controller would have to watch all kinds. Quotas themselves are not enforced by what it writes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::resources::Resource;
use api::resources::quota::usage;
use api::status::ApiError;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;
use store::{Change, Watched};
use tokio::time::Instant;

use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::storage;

const RETRY: Duration = Duration::from_secs(1);

impl ApiServer {
    /// Counts until the end of the task.
    pub(crate) async fn count_quotas(self: Arc<Self>) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "the use of quotas could not be counted");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Counts after each change that matters; returns when the watch ends.
    async fn follow(self: &Arc<Self>) -> Result<(), ApiError> {
        let store = &self.config.store;
        let mut watch = store.watch("", store.revision()).await.map_err(storage::failed)?;
        let quotas = self.objects("resourcequotas", "").await?;
        let mut bounded: BTreeSet<String> = quotas.iter().map(|quota| meta(quota, "namespace").to_owned()).collect();
        // Those that could not be counted: they are counted again, and keep nobody else waiting.
        let mut late = bounded.clone();
        let mut again = Instant::now();
        loop {
            if !late.is_empty() && Instant::now() >= again {
                for namespace in std::mem::take(&mut late) {
                    self.recount_or_put_off(&namespace, &mut bounded, &mut late).await;
                }
                again = Instant::now() + RETRY;
            }
            let next = match late.is_empty() {
                true => watch.next().await,
                false => match tokio::time::timeout_at(again, watch.next()).await {
                    Ok(next) => next,
                    Err(_) => continue,
                },
            };
            let Some(Watched::Changed(change)) = next else { return Ok(()) };
            let Some(place) = bounded_place(&change, &bounded) else { continue };
            if matters(&change, place, &self.kinds().await?.all(), self.config.clock.now()) {
                if late.is_empty() {
                    again = Instant::now() + RETRY;
                }
                self.recount_or_put_off(place.namespace, &mut bounded, &mut late).await;
            }
        }
    }

    /// As [`ApiServer::recount`], remembering which namespaces have quotas and which have to be counted once more.
    async fn recount_or_put_off(
        self: &Arc<Self>,
        namespace: &str,
        bounded: &mut BTreeSet<String>,
        late: &mut BTreeSet<String>,
    ) {
        match self.recount(namespace).await {
            Ok(true) => drop(bounded.insert(namespace.to_owned())),
            Ok(false) => drop(bounded.remove(namespace)),
            Err(error) => {
                tracing::warn!(%error, namespace, "the use of the quotas of a namespace could not be counted");
                late.insert(namespace.to_owned());
            }
        }
    }

    /// Puts the status of the quotas of a namespace right; returns whether it has any.
    async fn recount(self: &Arc<Self>, namespace: &str) -> Result<bool, ApiError> {
        let quotas = self.objects("resourcequotas", namespace).await?;
        let used = self.used(namespace, &quotas, self.config.clock.now()).await?;
        let any = !quotas.is_empty();
        for (mut quota, used) in quotas.into_iter().zip(used) {
            let status = usage::status(&quota, &used);
            if quota["status"] == status {
                continue;
            }
            let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/{}/status", meta(&quota, "name"));
            quota["status"] = status;
            // Whatever became of the quota meanwhile, this is what is used.
            object::metadata_mut(&mut quota).remove("resourceVersion");
            match self.send(Method::PUT, &path, &quota).await {
                Err(error) if error.code == 404 => {}
                result => result?,
            }
        }
        Ok(any)
    }
}

/// Where something was changed.
#[derive(Clone, Copy)]
struct Place<'a> {
    group: &'a str,
    plural: &'a str,
    namespace: &'a str,
}

/// The place of a change that may concern a quota: of one, or in a namespace that has some.
fn bounded_place<'a>(change: &'a Change, bounded: &BTreeSet<String>) -> Option<Place<'a>> {
    let mut parts = change.key.0.split('/');
    let (group, plural, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let is_quota = group.is_empty() && plural == "resourcequotas";
    let is_told_of = matches!(plural, "events" | "leases");
    let concerns = !namespace.is_empty() && !is_told_of && (is_quota || bounded.contains(namespace));
    concerns.then_some(Place { group, plural, namespace })
}

/// Whether a change may change what is used.
fn matters(change: &Change, place: Place<'_>, kinds: &[&Resource], now: Timestamp) -> bool {
    let row = kinds.iter().find(|row| (row.group, row.plural) == (place.group, place.plural));
    let (Some(before), Some(after), Some(row)) = (&change.before, &change.after, row) else { return true };
    measure(row, before, now) != measure(row, after, now)
}

/// What of an object decides what it uses.
fn measure(row: &Resource, stored: &Bytes, now: Timestamp) -> Option<(Value, usage::Amounts)> {
    let object: Value = serde_json::from_slice(stored).ok()?;
    Some((object["spec"].clone(), usage::usage(row, &object, now)))
}
