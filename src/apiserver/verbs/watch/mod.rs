//! `GET` of a collection with `watch=true`: a stream of changes.
//!
//! ```text
//! rv unset or 0            ADDED for all that is there, then every later change
//! rv N                     every change after N; one ERROR with code 410 if that is no longer known
//! sendInitialEvents=true   ADDED for all, BOOKMARK with the annotation, then every later change (KEP-3157)
//! end                      BOOKMARK if allowed, then the body ends cleanly
//! ```
//! A watch of a custom kind ends when the definition of the kind says something else, as upstream's do
//! (`updateCustomResourceDefinition` of apiextensions): whoever comes back is served by what it says then.
//!
//! The stream pulls from the store as the client reads, so a slow client holds no queue here; one that falls behind the
//! store's history is told so and starts again. Invariant: no change that the selectors match is left out silently.

mod stream;

use std::time::Duration;

use api::status::{ApiError, FieldError};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use store::{Range, Revision, StoreError};

use super::list::{self, parse_revision, reached};
use crate::Body;
use crate::call::Call;
use crate::respond;
use crate::select::Filter;
use crate::storage;
use stream::{Events, Exclusive};

/// How many of the objects that are there are read at once.
const AT_ONCE: usize = 500;

/// What a watch starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// All that is there.
    State { at_least: Revision, marks_end: bool },
    /// Changes after a revision.
    After(Revision),
    /// Changes from now on.
    Now,
}

pub(super) async fn watch(call: &Call) -> Result<Response<Body>, ApiError> {
    let filter = Filter::from_query(&call.row, &call.query)?;
    let start = start(call)?;
    let prefix = list::prefix(call, &filter);
    let store = &call.server.config.store;
    let mut first = Vec::new();
    let after = match start {
        Start::Now => store.revision(),
        Start::After(revision) => {
            reached(call, revision).await?;
            revision
        }
        Start::State { at_least, .. } => {
            reached(call, at_least).await?;
            let range = Range { prefix: prefix.clone(), after: None, limit: None, at: None };
            let page = store.list(range).await.map_err(storage::failed)?;
            first = page.entries;
            page.revision
        }
    };
    let renderer = call.renderer()?;
    let mut events = Events::new(&call.server, renderer, filter, end(call)?, call.query.flag("allowWatchBookmarks"));
    // One that begins with a row of yesterday ends at once.
    let is_current = events.follow_definition().await?;
    match store.watch(&prefix, after).await {
        Ok(watch) if is_current => events.follow(watch),
        Ok(_) => {}
        Err(StoreError::Compacted { asked, oldest }) => {
            events.fail(&ApiError::expired(format!("too old resource version: {asked} ({oldest})")));
        }
        Err(error) => return Err(storage::failed(error)),
    }
    for some in first.chunks(AT_ONCE) {
        for object in call.server.load_all(&call.row, some).await? {
            events.initial(&object);
        }
    }
    if let Start::State { marks_end: true, .. } = start
        && is_current
    {
        events.mark_initial_end(after);
    }
    let frames = Exclusive::new(events.into_frames());
    let mut response = Response::new(StreamBody::new(frames).boxed());
    response.headers_mut().insert(http::header::CONTENT_TYPE, respond::JSON);
    Ok(response)
}

/// What the options ask for, by the rules of `ValidateListOptions` of apimachinery.
fn start(call: &Call) -> Result<Start, ApiError> {
    let invalid = |field: &str, text: &str| {
        Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &[FieldError::forbidden(field, text)]))
    };
    let query = &call.query;
    let version = query.get("resourceVersion").map(parse_revision).transpose()?;
    let matching = query.get("resourceVersionMatch");
    if !query.has("sendInitialEvents") {
        if matching.is_some() {
            let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return invalid("resourceVersionMatch", text);
        }
        return Ok(match version {
            None | Some(Revision(0)) => Start::State { at_least: Revision(0), marks_end: false },
            Some(revision) => Start::After(revision),
        });
    }
    match matching {
        Some("NotOlderThan") => {}
        Some(other) => {
            let error = FieldError::not_supported("resourceVersionMatch", &json!(other), &["NotOlderThan"]);
            return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error]));
        }
        None => {
            let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return invalid("resourceVersionMatch", text);
        }
    }
    let at_least = version.unwrap_or_default();
    if query.flag("sendInitialEvents") {
        return Ok(Start::State { at_least, marks_end: query.flag("allowWatchBookmarks") });
    }
    Ok(if at_least == Revision(0) { Start::Now } else { Start::After(at_least) })
}

/// When the watch ends by itself: as the client says, or after 30 to 60 minutes, spread so that not all end at once.
fn end(call: &Call) -> Result<Duration, ApiError> {
    if let Some(seconds) = call.query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0) {
        // A year is for ever, and keeps the sum with the present within bounds.
        return Ok(Duration::from_secs(seconds.min(365 * 24 * 60 * 60)));
    }
    let mut random = [0; 2];
    call.server.config.entropy.fill(&mut random);
    Ok(Duration::from_secs(1800 + u64::from(u16::from_le_bytes(random)) % 1800))
}

/// The annotation of the bookmark that ends the initial events.
fn initial_end() -> Value {
    json!({ "k8s.io/initial-events-end": "true" })
}
