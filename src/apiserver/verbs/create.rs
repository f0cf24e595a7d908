//! `POST` to a collection.

use api::names::generate_name;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Expect, StoreError};

use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::object::{self, meta, metadata_mut};
use crate::{admission, managed, services, storage};

/// How many generated names are tried, as upstream does (KEP-4420).
const NAME_ATTEMPTS: usize = 8;

pub(super) async fn create(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    if call.request.named_by_path {
        return Err(ApiError::method_not_allowed());
    }
    managed::check_options(&call.query, "CreateOptions", false)?;
    let validation = FieldValidation::from_query(&call.query, "CreateOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "CreateOptions")?;
    let decoded = body::decode(bytes, &call.headers, Kind::of(&call.row), validation)?;
    let object = store_new(call, decoded.object, dry).await?;
    Ok(Outcome { code: 201, object, warnings: decoded.warnings })
}

/// Puts a decoded object through admission, defaults and checks, and stores it under its name or a generated one. All of
/// it is its writer's.
pub(super) async fn store_new(call: &Call, mut object: Value, dry: bool) -> Result<Value, ApiError> {
    call.row.fill_defaults(&mut object);
    managed::record(call, &json!({}), &mut object);
    store_applied(call, object, dry).await
}

/// As [`store_new`], for an object whose managed fields are as they are to be.
pub(super) async fn store_applied(call: &Call, mut object: Value, dry: bool) -> Result<Value, ApiError> {
    place(call, &mut object)?;
    let metadata = metadata_mut(&mut object);
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    metadata.insert("uid".to_owned(), call.server.config.entropy.uuid().into());
    let now = call.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    metadata.insert("creationTimestamp".to_owned(), now.into());
    let base = meta(&object, "generateName").to_owned();
    let generated = meta(&object, "name").is_empty() && !base.is_empty();
    let attempts = if generated { NAME_ATTEMPTS } else { 1 };
    let mut clash = None;
    for _ in 0..attempts {
        let mut candidate = object.clone();
        if generated {
            let mut random = [0; 5];
            call.server.config.entropy.fill(&mut random);
            metadata_mut(&mut candidate).insert("name".to_owned(), generate_name(&base, random).into());
        }
        admission::create(call, &mut candidate, dry).await?;
        match finish(call, candidate, dry).await {
            Err(error) if error.reason == "AlreadyExists" => clash = Some(error),
            other => return other,
        }
    }
    Err(clash.unwrap_or_else(|| ApiError::internal("no name was tried")))
}

/// Puts the object where the path says.
fn place(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let metadata = metadata_mut(object);
    if !call.row.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    match metadata.get("namespace").and_then(Value::as_str).unwrap_or_default() {
        "" => {
            metadata.insert("namespace".to_owned(), json!(call.namespace()));
            Ok(())
        }
        given if given == call.namespace() => Ok(()),
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

async fn finish(call: &Call, mut object: Value, dry: bool) -> Result<Value, ApiError> {
    let row = &call.row;
    row.fill_defaults(&mut object);
    row.prepare_create(&mut object);
    let given = services::give(call, &mut object, None).await?;
    let name = meta(&object, "name").to_owned();
    let mut wrong = admission::devices::check(call, &object).await?;
    wrong.extend(row.check(&object));
    if !wrong.is_empty() {
        let shown = if name.is_empty() { meta(&object, "generateName") } else { &name };
        return Err(ApiError::invalid(row.group, row.kind, shown, &wrong));
    }
    let given = admission::ask(call, &mut object, None, dry, given).await?;
    // Before anything is charged: a webhook may be asked for it, for which no other write is to wait.
    let (mut object, stored) = call.server.settle(row, object).await?;
    let _charged = admission::check(call, &object, None).await?;
    let key = storage::key(row, call.namespace(), &name);
    let exists = || ApiError::already_exists(row.group, row.plural, &name);
    if dry {
        let taken = call.server.config.store.get(&key).await.map_err(storage::failed)?;
        return if taken.is_some() { Err(exists()) } else { Ok(object) };
    }
    let (value, durability) = (object::encode(&stored)?, storage::durability(row, &object, None));
    match call.server.config.store.put(&key, value, Expect::Absent, durability).await {
        Ok(revision) => {
            object::stamp(&mut object, revision);
            services::given(call, &object, None, given).await;
            Ok(object)
        }
        Err(StoreError::Exists { .. } | StoreError::Conflict { .. }) => Err(exists()),
        Err(error) => Err(storage::failed(error)),
    }
}
