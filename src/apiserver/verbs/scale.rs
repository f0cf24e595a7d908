//! The subresource `scale`: reading and setting the number of replicas of whatever has some.
//!
//! A Scale is not stored: it is a view of its object, made and written back as the row says. A write is one of the object,
//! and takes the same way as any other. Follows `ScaleREST` of `pkg/registry/apps/deployment/storage` of upstream.

use api::patch::{self, PatchType};
use api::resources;
use api::resources::scale::{ROW, Scale};
use api::schema;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;

use super::ATTEMPTS;
use super::apply;
use super::patch::{ACCEPTED, check_name, conform, duplicates, sets_version};
use super::update::match_path;
use super::write::{Attempt, Concurrency, preconditions, replace_applied};
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::managed;
use crate::object::meta;

pub(super) async fn get(call: &Call) -> Result<Outcome, ApiError> {
    let (object, _) = call.server.read(&call.row, call.namespace(), call.name()).await?;
    Ok(Outcome::ok(shown(call, &object)?))
}

pub(super) async fn update(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    managed::check_options(&call.query, "UpdateOptions", false)?;
    let validation = FieldValidation::from_query(&call.query, "UpdateOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "UpdateOptions")?;
    let decoded = body::decode(bytes, &call.headers, Kind::of(&ROW), validation)?;
    let mut scale = decoded.object;
    match_path(call, &mut scale)?;
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(&call.row, call.namespace(), call.name()).await?;
        managed::record_as(call, &ROW, &view(call, &old)?, &mut scale);
        let (new, concurrency) = scaled(call, &old, &scale)?;
        match replace_applied(call, new, &old, &entry, dry).await? {
            Attempt::Done(object) => return done(call, &object, decoded.warnings),
            Attempt::Lost if concurrency == Concurrency::Certain => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

pub(super) async fn patch(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let media_type = body::media_type(&call.headers);
    if media_type == apply::MEDIA_TYPE {
        return apply::apply_scale(call, bytes).await;
    }
    let kind = PatchType::from_media_type(&media_type).ok_or_else(|| ApiError::unsupported_media_type(&ACCEPTED))?;
    managed::check_options(&call.query, "PatchOptions", false)?;
    let validation = FieldValidation::from_query(&call.query, "PatchOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "PatchOptions")?;
    let duplicates = duplicates(kind, bytes)?;
    let ty = schema::lookup(ROW.group, ROW.version, ROW.kind);
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(&call.row, call.namespace(), call.name()).await?;
        let live = view(call, &old)?;
        let patched = patch::apply(kind, ty, &live, bytes)?;
        let mut decoded = conform(patched, duplicates.clone(), Kind::of(&ROW), validation)?;
        check_name(call, &decoded.object)?;
        managed::record_as(call, &ROW, &live, &mut decoded.object);
        let (new, concurrency) = scaled(call, &old, &decoded.object)?;
        match replace_applied(call, new, &old, &entry, dry).await? {
            Attempt::Done(object) => return done(call, &object, decoded.warnings),
            Attempt::Lost if concurrency == Concurrency::Certain && sets_version(bytes) => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

fn description(call: &Call) -> Result<&Scale, ApiError> {
    call.row.scale.as_ref().ok_or_else(|| ApiError::internal(format!("{} cannot be scaled", call.row.plural)))
}

/// Where the replicas are in objects of a version of the kind.
fn place(call: &Call, version: &str) -> Option<&'static str> {
    if call.row.custom.is_some() {
        return call.row.scale.filter(|_| version == call.row.api_version()).map(|scale| scale.wanted);
    }
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    resources::find_kind(group, version, call.row.kind)?.scale.map(|scale| scale.wanted)
}

/// The Scale of an object as clients see it.
pub(super) fn shown(call: &Call, object: &Value) -> Result<Value, ApiError> {
    Ok(description(call)?.read(object))
}

/// The Scale of an object with those who manage its replicas.
pub(super) fn view(call: &Call, object: &Value) -> Result<Value, ApiError> {
    let mut scale = shown(call, object)?;
    api::managed::to_scale(object, &mut scale, |version| place(call, version));
    Ok(scale)
}

/// The object as a Scale wants it, managed as the Scale is.
pub(super) fn scaled(call: &Call, old: &Value, scale: &Value) -> Result<(Value, Concurrency), ApiError> {
    let wrong = (ROW.validate)(scale);
    if !wrong.is_empty() {
        return Err(ApiError::invalid(ROW.group, ROW.kind, meta(scale, "name"), &wrong));
    }
    let concurrency = preconditions(call, scale, old)?;
    let mut new = old.clone();
    description(call)?.write(&mut new, scale);
    api::managed::from_scale(&mut new, scale, &call.row.api_version(), |version| place(call, version));
    Ok((new, concurrency))
}

fn done(call: &Call, object: &Value, warnings: Vec<String>) -> Result<Outcome, ApiError> {
    Ok(Outcome { code: 200, object: shown(call, object)?, warnings })
}
