//! `POST` of an Eviction: a deletion of a pod that its disruption budget may refuse
//! (`pkg/registry/core/pod/storage/eviction.go`).
//!
//! ```text
//! pod ── ended, ending or pending ─────────────────────────────► condition DisruptionTarget ─► deletion
//!   └─── running ── its budget ─┬─ 0 allowed ──► 429                        ▲
//!                               ├─ more ───────► one less ──────────────────┤
//!                               └─ unhealthy pod that does not count ───────┘ in exactly this state
//! ```

mod budget;

use api::resources;
use api::selector::LabelSelector;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Entry, Expect, Range, StoreError};

use super::ATTEMPTS;
use super::delete::{self, Options};
use crate::admission::{self, Subject};
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::object::meta;
use crate::storage;
use budget::{Answer, Gate};

const KIND: Kind<'static> = Kind { group: "policy", version: "v1", kind: "Eviction", custom: None };

pub(super) async fn evict(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let validation = FieldValidation::from_query(&call.query, "CreateOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "CreateOptions")?;
    let mut parsed = body::parse(bytes, &body::media_type(&call.headers))?;
    // The old version says the same.
    if parsed.value["apiVersion"] == "policy/v1beta1" {
        parsed.value["apiVersion"] = json!("policy/v1");
    }
    let decoded = body::conform(parsed.value, parsed.duplicates, KIND, validation)?;
    if meta(&decoded.object, "name") != call.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let (mut eviction, warnings) = (decoded.object, decoded.warnings);
    let asked = Options::of_value(&eviction["deleteOptions"])?;
    let subject = Subject { operation: "CREATE", kind: KIND };
    admission::beside(call, subject, &mut eviction, dry | asked.dry).await?;
    let mut options = Options::of_value(&eviction["deleteOptions"])?;
    options.dry |= dry;
    admission::delete(call, call.name())?;
    for _ in 0..ATTEMPTS {
        match attempt(call, &options).await {
            Ok(()) => {
                let status =
                    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
                return Ok(Outcome { code: 201, object: status, warnings });
            }
            // The state that a client named will not come back.
            Err(Failure::Lost) if options.version.is_some() => break,
            Err(Failure::Lost) => {}
            Err(Failure::Refused(error)) => return Err(error),
        }
    }
    Err(call.modified(call.name()))
}

/// Why an attempt did not succeed.
enum Failure {
    /// Somebody else was faster: it may succeed on the newest state.
    Lost,
    /// It would not succeed again.
    Refused(ApiError),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

async fn attempt(call: &Call, options: &Options) -> Result<(), Failure> {
    let (pod, entry) = call.server.read(&call.row, call.namespace(), call.name()).await?;
    let mut exact = options.clone();
    let now_only = |exact: &mut Options| {
        exact.version.get_or_insert_with(|| meta(&pod, "resourceVersion").to_owned());
    };
    // A stale precondition must not cost a disruption.
    delete::check(call, &pod, options)?;
    let mut asked = None;
    match budget::gate(&pod) {
        Gate::Open { exactly } => {
            if exactly {
                now_only(&mut exact);
            }
        }
        Gate::Budgets => {
            if let Some((budget, at)) = the_budget(call, &pod).await? {
                asked = Some(meta(&budget, "name").to_owned());
                match budget::ask(&budget, &pod, call.now())? {
                    Answer::Free => now_only(&mut exact),
                    Answer::Spend(after) if !options.dry => {
                        spend(call, &after, &at).await?;
                        asked = None;
                    }
                    Answer::Spend(_) => asked = None,
                }
            }
        }
    }
    match finish(call, &pod, &entry, &exact).await {
        // It was free in a state that it is in no more.
        Err(Failure::Lost) if options.version.is_none() && asked.is_some() => {
            Err(Failure::Refused(budget::in_work(asked.as_deref().unwrap_or_default())))
        }
        other => other,
    }
}

/// The one budget that covers a pod, with its entry.
async fn the_budget(call: &Call, pod: &Value) -> Result<Option<(Value, Entry)>, ApiError> {
    let row = resources::find("policy", "v1", "poddisruptionbudgets");
    let row = row.ok_or_else(|| ApiError::internal("no poddisruptionbudgets"))?;
    let prefix = storage::prefix(row, call.namespace());
    let page = call.server.config.store.list(Range { prefix, after: None, limit: None, at: None }).await;
    let mut found = None;
    for entry in page.map_err(storage::failed)?.entries {
        let budget = storage::load(row, &entry)?;
        // A selector that cannot be read selects nothing.
        let covers = LabelSelector::from_object(&budget["spec"]["selector"])
            .is_ok_and(|selector| selector.matches(pod["metadata"]["labels"].as_object()));
        if covers && found.replace((budget, entry)).is_some() {
            let text =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::new(500, "", text));
        }
    }
    Ok(found)
}

async fn spend(call: &Call, budget: &Value, at: &Entry) -> Result<(), Failure> {
    let row = resources::find("policy", "v1", "poddisruptionbudgets");
    let row = row.ok_or_else(|| ApiError::internal("no poddisruptionbudgets"))?;
    let value = storage::encode(row, budget)?;
    let durability = storage::durability(row, budget, None);
    match call.server.config.store.put(&at.key, value, Expect::At(at.revision), durability).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { .. }) => Err(Failure::Lost),
        Err(error) => Err(storage::failed(error).into()),
    }
}

/// Says on the pod why it goes, and deletes it.
async fn finish(call: &Call, pod: &Value, entry: &Entry, options: &Options) -> Result<(), Failure> {
    let mut options = options.clone();
    if !options.dry {
        let mut told = pod.clone();
        target(&mut told, &call.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let (value, durability) =
            (storage::encode(&call.row, &told)?, storage::durability(&call.row, &told, Some(pod)));
        match call.server.config.store.put(&entry.key, value, Expect::At(entry.revision), durability).await {
            Ok(revision) if options.version.is_some() => options.version = Some(revision.to_string()),
            Ok(_) => {}
            // The budget has been charged for this pod by its name: the next attempt finds that it has been.
            Err(StoreError::Conflict { .. }) if options.version.is_some() => return Err(Failure::Lost),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(storage::failed(error).into()),
        }
    }
    match delete::delete_one(call, call.name(), call.namespace(), &options).await {
        Ok(_) => Ok(()),
        Err(error) if error.reason == "Conflict" && options.version.is_some() => Err(Failure::Lost),
        Err(error) => Err(error.into()),
    }
}

/// Sets the condition `DisruptionTarget`.
fn target(pod: &mut Value, now: &str) {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
        "observedGeneration": pod["metadata"]["generation"],
    });
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(list) = conditions.as_array_mut() {
        match list.iter_mut().find(|old| old["type"] == "DisruptionTarget") {
            Some(old) if old["status"] == "True" && old["reason"] == condition["reason"] => {}
            Some(old) => *old = condition,
            None => list.push(condition),
        }
    }
}
