//! The verbs: one file each, generic over rows.
//!
//! Each takes a [`Call`] that is authorized and routed, and answers with an object or a stream. Invariants: whatever is
//! stored went through admission, defaulting and validation; a write that lost a race is repeated on the newest state
//! unless the client asked for a certain one.

mod apply;
mod binding;
mod connect;
mod create;
mod delete;
mod evict;
mod finalize;
mod get;
mod list;
mod log;
mod patch;
mod review;
mod scale;
mod token;
mod update;
mod watch;
mod write;

use api::status::ApiError;
use bytes::Bytes;
use http::Response;

use crate::Body;
use crate::call::Call;
use crate::components;
use crate::usage;
pub(crate) use delete::remove;

/// How often a write that lost a race is repeated before the client is told.
const ATTEMPTS: usize = 32;

/// Whether a verb reads the body.
pub(crate) fn takes_body(verb: &str) -> bool {
    matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection")
}

/// Carries out a request; its resource, subresource and verb are known to exist.
pub(crate) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let request = &call.request;
    let outcome = match (request.subresource.as_str(), request.verb.as_str()) {
        ("log", "get") => return log::log(call).await,
        ("attach" | "exec" | "portforward", "get" | "create") => return connect::connect(call).await,
        ("", "list") if components::are_told(&call.row) => return components::list(call).await,
        ("", "list") if usage::is_measured(&call.row) => return usage::list(call).await,
        ("", "get") if usage::is_measured(&call.row) => usage::get(call).await,
        ("", "get") if components::are_told(&call.row) => components::get(call).await,
        ("", "list") => return list::list(call).await,
        ("", "watch") => return watch::watch(call).await,
        ("", "create") if call.row.group.is_empty() && call.row.plural == "bindings" => {
            binding::bind(call, &body).await
        }
        ("", "create") if call.row.is_review => review::review(call, &body).await,
        ("eviction", "create") => evict::evict(call, &body).await,
        ("token", "create") => token::request(call, &body).await,
        ("binding", "create") => binding::bind(call, &body).await,
        ("finalize", "update") => finalize::finalize(call, &body).await,
        ("", "create") => create::create(call, &body).await,
        (part, verb) if call.row.part(part).is_some() => match verb {
            "get" => get::get(call).await,
            "update" => update::update(call, &body).await,
            "patch" => patch::patch(call, &body).await,
            _ => Err(ApiError::method_not_allowed()),
        },
        ("" | "status", "get") => get::get(call).await,
        ("" | "status", "update") => update::update(call, &body).await,
        ("" | "status", "patch") => patch::patch(call, &body).await,
        ("scale", "get") => scale::get(call).await,
        ("scale", "update") => scale::update(call, &body).await,
        ("scale", "patch") => scale::patch(call, &body).await,
        ("", "delete") => delete::delete(call, &body).await,
        ("", "deletecollection") => delete::delete_collection(call, &body).await,
        _ => Err(ApiError::method_not_allowed()),
    }?;
    call.answer(outcome)
}
