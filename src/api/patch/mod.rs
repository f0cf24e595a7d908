//! Applies patches to objects: JSON patch, JSON merge patch, strategic merge patch.
//!
//! Pure functions from object and patch to object. Decoding the result by its type, defaulting, validation and retries
//! on conflict are the caller's. Server-side apply is in [`crate::managed`].

use serde_json::Value;

use crate::schema::TypeRef;
use crate::status::ApiError;

mod json;
mod order;
mod strategic;

/// How to read a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7396.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
}

impl PatchType {
    /// The patch type of a media type without parameters.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// Applies a patch. `ty` is the type of the object; without one (custom resources) a strategic patch is a 415.
pub fn apply(kind: PatchType, ty: Option<TypeRef>, original: &Value, patch: &[u8]) -> Result<Value, ApiError> {
    let patch = crate::json::parse(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {}", error.message)))?
        .value;
    let patched = match kind {
        PatchType::Json => json::apply(original, patch),
        PatchType::Merge => {
            if !patch.is_object() {
                return Err(ApiError::bad_request("error decoding patch: a merge patch must be an object"));
            }
            let mut result = original.clone();
            json_patch::merge(&mut result, &patch);
            Ok(result)
        }
        PatchType::Strategic => {
            let Some(ty) = ty else {
                let accepted = ["application/json-patch+json", "application/merge-patch+json"];
                return Err(ApiError::unsupported_media_type(&accepted));
            };
            strategic::apply(ty, original, patch)
        }
    }?;
    crate::json::check_depth(&patched)?;
    Ok(patched)
}

/// Applies a JSON patch; none if one of its tests says that the object is not to be patched.
pub fn apply_tested(original: &Value, patch: Value) -> Result<Option<Value>, ApiError> {
    let Ok(patched) = json::tested(original, patch)? else { return Ok(None) };
    crate::json::check_depth(&patched)?;
    Ok(Some(patched))
}

/// 422: the patch is well-formed but does not fit the object.
fn unprocessable(text: &str) -> ApiError {
    let message = format!("the server rejected our request due to an error in our request: {text}");
    ApiError::new(422, "Invalid", message)
}

#[cfg(test)]
mod tests;
