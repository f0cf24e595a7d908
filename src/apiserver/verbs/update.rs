//! `PUT` of an object or its status.

use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;

use super::write::{Attempt, Concurrency, preconditions, replace};
use super::{ATTEMPTS, create};
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::managed::check_options;
use crate::object::{meta, metadata_mut};

pub(super) async fn update(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    check_options(&call.query, "UpdateOptions", false)?;
    let validation = FieldValidation::from_query(&call.query, "UpdateOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "UpdateOptions")?;
    let decoded = body::decode(bytes, &call.headers, Kind::of(&call.row), validation)?;
    let (mut new, warnings) = (decoded.object, decoded.warnings);
    match_path(call, &mut new)?;
    for _ in 0..ATTEMPTS {
        let (old, entry) = match call.server.read(&call.row, call.namespace(), call.name()).await {
            Ok(found) => found,
            Err(error) if error.code == 404 && may_create(call, &new) => {
                let object = create::store_new(call, new, dry).await?;
                return Ok(Outcome { code: 201, object, warnings });
            }
            Err(error) => return Err(error),
        };
        let concurrency = preconditions(call, &new, &old)?;
        match replace(call, new.clone(), &old, &entry, dry).await? {
            Attempt::Done(object) => return Ok(Outcome { code: 200, object, warnings }),
            Attempt::Lost if concurrency == Concurrency::Certain => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

/// Whether a `PUT` of an absent object creates it.
fn may_create(call: &Call, new: &Value) -> bool {
    call.row.create_on_update
        && call.request.subresource.is_empty()
        && meta(new, "resourceVersion").is_empty()
        && meta(new, "uid").is_empty()
}

/// The body must be about the object that the path names.
pub(super) fn match_path(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let (given, wanted) = (meta(object, "name"), call.name());
    if given != wanted {
        let text = if given.is_empty() {
            format!("the name of the object ({wanted} based on URL) was undeterminable: name must be provided")
        } else {
            format!("the name of the object ({given}) does not match the name on the URL ({wanted})")
        };
        return Err(ApiError::bad_request(text));
    }
    if !call.row.namespaced {
        metadata_mut(object).remove("namespace");
        return Ok(());
    }
    let given = meta(object, "namespace");
    if !given.is_empty() && given != call.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata_mut(object).insert("namespace".to_owned(), call.namespace().into());
    Ok(())
}
