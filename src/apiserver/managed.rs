//! Managed fields of what the verbs write: who the writer is, and what of an object became its own.
//!
//! Called by the verbs after decoding and defaulting and before admission, so that nobody manages what admission fills
//! in, as upstream has it. The rules are those of `api::managed`.

use api::managed::{self, RowKind, Writer};
use api::resources::Resource;
use api::status::{ApiError, FieldError};
use http::header::USER_AGENT;
use serde_json::Value;

use crate::call::Call;
use crate::query::Query;

/// Upstream's limit of a manager's name.
const MAX_NAME: usize = 128;

/// 422 for options of a write that no manager may have; `kind` is the kind of the options.
pub(crate) fn check_options(query: &Query, kind: &str, is_apply: bool) -> Result<(), ApiError> {
    let name = query.get("fieldManager").unwrap_or_default();
    let mut wrong = managed::check_manager("fieldManager", name);
    if is_apply && name.is_empty() {
        wrong.insert(0, FieldError::required("fieldManager", "is required for apply patch"));
    }
    if !is_apply && kind == "PatchOptions" && query.has("force") {
        wrong.insert(0, FieldError::forbidden("force", "may not be specified for non-apply patch"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", kind, "", &wrong)) }
}

/// Who writes: the manager that the request names, or its program.
pub(crate) fn manager(call: &Call) -> String {
    if let Some(name) = call.query.get("fieldManager") {
        return name.to_owned();
    }
    let agent = call.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let program = agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for character in program.chars().filter(|character| managed::is_printable(*character)) {
        if name.len() + character.len_utf8() > MAX_NAME {
            break;
        }
        name.push(character);
    }
    name
}

/// Gives the writer of a request what differs between an object as it is and as it is to be.
pub(crate) fn record(call: &Call, live: &Value, new: &mut Value) {
    record_as(call, &call.row, live, new);
}

/// As [`record`], for objects of another row: the Scale of what the request names.
pub(crate) fn record_as(call: &Call, row: &Resource, live: &Value, new: &mut Value) {
    let (name, subresource) = (manager(call), call.request.subresource.as_str());
    let kind = RowKind::new(row, subresource);
    managed::update(&kind, live, new, &Writer { name: &name, subresource, now: call.now() });
}

/// Whether two states of an object differ in their managed fields, but by times alone.
pub(crate) fn differ_by_times(new: &Value, old: &Value) -> bool {
    new["metadata"]["managedFields"] != old["metadata"]["managedFields"]
        && managed::without_times(new) == managed::without_times(old)
}
