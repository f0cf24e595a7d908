//! The subresource `scale`: reading and setting the number of replicas of whatever has some.
//!
//! A Scale is not stored: it is a view of its object, made and written back as the row says. A write is one of the object,
//! and takes the same way as any other. Follows `ScaleREST` of `pkg/registry/apps/deployment/storage` of upstream.

use api::patch::{self, PatchType};
use api::resources::scale::{ROW, Scale};
use api::status::ApiError;
use api::{json, schema};
use bytes::Bytes;
use serde_json::Value;

use super::ATTEMPTS;
use super::patch::{ACCEPTED, check_name, sets_version};
use super::update::match_path;
use super::write::{Attempt, Concurrency, preconditions, replace};
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::object::meta;

pub(super) async fn get(call: &Call) -> Result<Outcome, ApiError> {
    let (object, _) = call.server.read(call.row, call.namespace(), call.name()).await?;
    Ok(Outcome::ok(description(call)?.read(&object)))
}

pub(super) async fn update(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let description = description(call)?;
    let validation = FieldValidation::from_query(&call.query, "UpdateOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "UpdateOptions")?;
    let decoded = body::decode(bytes, &call.headers, Kind::of(&ROW), validation)?;
    let mut scale = decoded.object;
    match_path(call, &mut scale)?;
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(call.row, call.namespace(), call.name()).await?;
        let (new, concurrency) = scaled(call, description, &old, &scale)?;
        match replace(call, new, &old, &entry, dry).await? {
            Attempt::Done(object) => return done(description, &object, decoded.warnings),
            Attempt::Lost if concurrency == Concurrency::Certain => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

pub(super) async fn patch(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let description = description(call)?;
    let media_type = body::media_type(&call.headers);
    let kind = PatchType::from_media_type(&media_type).ok_or_else(|| ApiError::unsupported_media_type(&ACCEPTED))?;
    let validation = FieldValidation::from_query(&call.query, "PatchOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "PatchOptions")?;
    let duplicates = json::parse(bytes)?.duplicates;
    let ty = schema::lookup(ROW.group, ROW.version, ROW.kind);
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(call.row, call.namespace(), call.name()).await?;
        let patched = patch::apply(kind, ty, &description.read(&old), bytes)?;
        let decoded = body::conform(patched, duplicates.clone(), Kind::of(&ROW), validation)?;
        check_name(call, &decoded.object)?;
        let (new, concurrency) = scaled(call, description, &old, &decoded.object)?;
        match replace(call, new, &old, &entry, dry).await? {
            Attempt::Done(object) => return done(description, &object, decoded.warnings),
            Attempt::Lost if concurrency == Concurrency::Certain && sets_version(bytes) => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

fn description(call: &Call) -> Result<&'static Scale, ApiError> {
    call.row.scale.as_ref().ok_or_else(|| ApiError::internal(format!("{} cannot be scaled", call.row.plural)))
}

/// The object as a Scale wants it.
fn scaled(call: &Call, description: &Scale, old: &Value, scale: &Value) -> Result<(Value, Concurrency), ApiError> {
    let wrong = (ROW.validate)(scale);
    if !wrong.is_empty() {
        return Err(ApiError::invalid(ROW.group, ROW.kind, meta(scale, "name"), &wrong));
    }
    let concurrency = preconditions(call, scale, old)?;
    let mut new = old.clone();
    description.write(&mut new, scale);
    Ok((new, concurrency))
}

fn done(description: &Scale, object: &Value, warnings: Vec<String>) -> Result<Outcome, ApiError> {
    Ok(Outcome { code: 200, object: description.read(object), warnings })
}
