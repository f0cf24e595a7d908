//! `PUT` and `DELETE /storage/<name>`: the directory of a claim on this node.
//!
//! Not of upstream's, where a pod of the provider does this. Only the control plane asks for it, through `nodes/proxy`; both
//! may be repeated. Who asks that a directory be made learns where it is.

use http::{Method, Response, StatusCode};
use serde_json::json;
use task::chain;

use super::{Body, json_text, plain};
use crate::shared::Shared;
use crate::volumes::provided;

/// Makes or removes a directory.
pub(super) async fn answer(shared: &Shared, method: &Method, name: &str) -> Response<Body> {
    let Some(place) = provided::place(&shared.config.root, name) else {
        return plain(StatusCode::BAD_REQUEST, format!("{name:?} is no name of a claim's directory\n"));
    };
    let (removes, at) = (method == Method::DELETE, place.clone());
    let work = move || if removes { runtime::remove_tree(&at) } else { provided::make(&at) };
    match task::blocking(work).await {
        Ok(()) => json_text(&json!({ "path": place })),
        Err(error) => {
            let what = if removes { "remove" } else { "make" };
            let text = format!("cannot {what} {}: {}\n", place.display(), chain(&error));
            plain(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}
