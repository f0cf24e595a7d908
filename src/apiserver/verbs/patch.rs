//! `PATCH` of an object or its status: JSON patch, merge patch, strategic merge patch. Configurations are applied in
//! [`super::apply`].

use api::patch::{self, PatchType};
use api::status::{ApiError, FieldError};
use api::{json, schema};
use bytes::Bytes;
use serde_json::Value;

use super::write::{Attempt, Concurrency, preconditions, replace};
use super::{ATTEMPTS, apply};
use crate::body::{self, Decoded, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::managed::check_options;
use crate::object::meta;

/// No more of a patched object is shown in an error.
const MAX_SHOWN: usize = 10_000;

/// What a patch may be.
pub(super) const ACCEPTED: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    apply::MEDIA_TYPE,
];

pub(super) async fn patch(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let media_type = body::media_type(&call.headers);
    if media_type == apply::MEDIA_TYPE {
        return apply::apply(call, bytes).await;
    }
    let kind = PatchType::from_media_type(&media_type).ok_or_else(|| ApiError::unsupported_media_type(&ACCEPTED))?;
    check_options(&call.query, "PatchOptions", false)?;
    let validation = FieldValidation::from_query(&call.query, "PatchOptions")?;
    let dry = body::dry_run(call.query.all("dryRun"), "PatchOptions")?;
    let duplicates = duplicates(kind, bytes)?;
    let ty = schema::lookup(call.row.group, call.row.version, call.row.kind);
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(&call.row, call.namespace(), call.name()).await?;
        let patched = patch::apply(kind, ty, &old, bytes)?;
        let decoded = conform(patched, duplicates.clone(), Kind::of(&call.row), validation)?;
        check_name(call, &decoded.object)?;
        // The old object carries its resourceVersion, so one that differs now was set by the patch.
        let concurrency = preconditions(call, &decoded.object, &old)?;
        let named_a_version = concurrency == Concurrency::Certain && sets_version(bytes);
        match replace(call, decoded.object, &old, &entry, dry).await? {
            Attempt::Done(object) => return Ok(Outcome { code: 200, object, warnings: decoded.warnings }),
            Attempt::Lost if named_a_version => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

/// What stands twice in a patch.
pub(super) fn duplicates(kind: PatchType, bytes: &[u8]) -> Result<Vec<String>, ApiError> {
    let found = json::parse(bytes)?.duplicates;
    let prefix = if kind == PatchType::Json { "json patch " } else { "" };
    Ok(found.into_iter().map(|duplicate| format!("{prefix}{duplicate}")).collect())
}

/// Gives a patched object the form of its kind. What cannot have it is the patch's fault, so 422, as upstream has it.
pub(super) fn conform(
    patched: Value,
    oddities: Vec<String>,
    kind: Kind<'_>,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let mut shown = patched.to_string();
    if let Some((end, _)) = shown.char_indices().nth(MAX_SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    let invalid =
        |text: &str| ApiError::invalid("", "", "", &[FieldError::invalid("patch", &shown.clone().into(), text)]);
    let lenient = if validation == FieldValidation::Strict { FieldValidation::Warn } else { validation };
    let decoded = body::conform(patched, oddities, kind, lenient).map_err(|error| invalid(&error.message))?;
    if validation == FieldValidation::Strict && !decoded.warnings.is_empty() {
        return Err(invalid(&format!("strict decoding error: {}", decoded.warnings.join(", "))));
    }
    Ok(decoded)
}

/// A patch cannot rename.
pub(super) fn check_name(call: &Call, object: &Value) -> Result<(), ApiError> {
    let (given, wanted) = (meta(object, "name"), call.name());
    if given == wanted {
        return Ok(());
    }
    Err(ApiError::bad_request(match given {
        "" => format!("the name of the object ({wanted} based on URL) was undeterminable: name must be provided"),
        given => format!("the name of the object ({given}) does not match the name on the URL ({wanted})"),
    }))
}

/// Whether a patch names the resourceVersion that it is for; a repetition would then meet another one anyway, so this
/// only saves the attempt.
pub(super) fn sets_version(patch: &[u8]) -> bool {
    let needle = b"resourceVersion";
    patch.windows(needle.len()).any(|window| window == needle)
}
