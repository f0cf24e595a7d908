//! `GET` of a collection.

use std::time::Duration;

use api::status::{ApiError, FieldError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Entry, Key, Page, Range, Revision, StoreError};

use crate::Body;
use crate::call::Call;
use crate::negotiate::Form;
use crate::object;
use crate::respond;
use crate::select::Filter;
use crate::storage;

/// How long a list waits for a revision that has not been reached, as upstream's watch cache does.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
/// How many entries are looked at in one go when a selector may leave most of them out.
const STRIDE: usize = 500;
const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start \
    a new list without the continue parameter, or use the continue token in this response to retrieve the remainder \
    of the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
    modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where a list goes on; opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    v: String,
    /// The revision of the whole list; none to go on with whatever is there now.
    rv: Option<u64>,
    /// The last key that was returned.
    start: String,
}

impl Continue {
    fn encode(revision: Option<Revision>, last: &Key) -> Result<String, ApiError> {
        let token = Self { v: "meta.k8s.io/v1".to_owned(), rv: revision.map(|r| r.0), start: last.0.clone() };
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).map_err(ApiError::internal)?))
    }

    fn decode(text: &str, prefix: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        if token.start.starts_with(prefix) { Ok(token) } else { Err(invalid()) }
    }
}

/// The entries of an answer.
struct Found {
    entries: Vec<Entry>,
    revision: Revision,
    /// Entries that follow; with a selector only whether there may be any.
    remaining: usize,
    /// What the entries are, if that had to be asked already.
    objects: Vec<Value>,
}

pub(super) async fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let filter = Filter::from_query(&call.row, &call.query)?;
    let limit = call.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let prefix = prefix(call, &filter);
    let at = revision(call, limit.is_some()).await?;
    let mut range = Range { prefix: prefix.clone(), after: None, limit, at };
    if let Some(text) = call.query.get("continue") {
        if call.query.get("resourceVersion").is_some_and(|version| version != "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = Continue::decode(text, &prefix)?;
        (range.after, range.at) = (Some(Key(token.start)), token.rv.map(Revision));
    }
    let start = range.after.clone();
    let found = collect(call, &filter, range).await.map_err(|failure| match (failure, start) {
        (Failure::Store(StoreError::Compacted { .. }), Some(key)) => expired(&key),
        (failure, _) => failure.into(),
    })?;
    let metadata = metadata(&found, &filter)?;
    respond_with(call, found, &metadata).await
}

/// The objects that the selectors of a request match, now, or the first of them if it has a limit.
pub(super) async fn matching(call: &Call) -> Result<(Vec<Value>, Revision), ApiError> {
    let filter = Filter::from_query(&call.row, &call.query)?;
    let limit = call.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let range = Range { prefix: prefix(call, &filter), after: None, limit, at: None };
    let found = collect(call, &filter, range).await?;
    let revision = found.revision;
    Ok((found.into_objects(call).await?, revision))
}

/// What a request can be about; a selector for one name leaves one key.
pub(super) fn prefix(call: &Call, filter: &Filter) -> String {
    match filter.name() {
        Some(name) if !call.row.namespaced || !call.namespace().is_empty() => {
            storage::key(&call.row, call.namespace(), name).0
        }
        _ => storage::prefix(&call.row, call.namespace()),
    }
}

fn expired(last: &Key) -> ApiError {
    let mut error = ApiError::expired(TOO_OLD);
    error.continue_token = Continue::encode(None, last).unwrap_or_default();
    error
}

/// The revision that the list is to show; none for the newest.
async fn revision(call: &Call, is_paged: bool) -> Result<Option<Revision>, ApiError> {
    let forbidden = |text: &str| {
        let error = FieldError::forbidden("resourceVersionMatch", text);
        ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error])
    };
    let version = call.query.get("resourceVersion");
    let Some(text) = version else {
        return match call.query.get("resourceVersionMatch") {
            None => Ok(None),
            Some(_) => Err(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")),
        };
    };
    let asked = parse_revision(text)?;
    match call.query.get("resourceVersionMatch") {
        Some("Exact") if asked.0 == 0 => {
            Err(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
        }
        Some("Exact") => Ok(Some(asked)),
        None if is_paged && asked.0 > 0 => Ok(Some(asked)),
        None | Some("NotOlderThan") => reached(call, asked).await.map(|()| None),
        Some(other) => {
            let error = FieldError::not_supported("resourceVersionMatch", &json!(other), &["Exact", "NotOlderThan"]);
            Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error]))
        }
    }
}

pub(super) fn parse_revision(text: &str) -> Result<Revision, ApiError> {
    let wrong = || {
        let error = FieldError::invalid("resourceVersion", &json!(text), "must be a whole number");
        ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error])
    };
    text.parse().map(Revision).map_err(|_| wrong())
}

/// Waits until the store has reached a revision; 504 if it does not soon.
pub(super) async fn reached(call: &Call, asked: Revision) -> Result<(), ApiError> {
    let store = &call.server.config.store;
    let waiting = async {
        while store.revision() < asked {
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(()) => Ok(()),
        Err(_) => Err(storage::too_new(asked.0, store.revision().0)),
    }
}

/// Why entries cannot be had.
enum Failure {
    Store(StoreError),
    /// A webhook does not convert them.
    Conversion(ApiError),
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => storage::failed(error),
            Failure::Conversion(error) => error,
        }
    }
}

impl Found {
    async fn into_objects(self, call: &Call) -> Result<Vec<Value>, ApiError> {
        if self.objects.is_empty() { call.server.load_all(&call.row, &self.entries).await } else { Ok(self.objects) }
    }
}

/// Reads entries until there are enough that match.
async fn collect(call: &Call, filter: &Filter, mut range: Range) -> Result<Found, Failure> {
    let store = &call.server.config.store;
    if filter.is_everything() {
        let Page { entries, revision, remaining } = store.list(range).await.map_err(Failure::Store)?;
        return Ok(Found { entries, revision, remaining, objects: Vec::new() });
    }
    let wanted = range.limit;
    range.limit = wanted.map(|wanted| wanted.max(STRIDE));
    let mut found = Found { entries: Vec::new(), revision: Revision(0), remaining: 0, objects: Vec::new() };
    loop {
        let page = store.list(range.clone()).await.map_err(Failure::Store)?;
        found.revision = page.revision;
        let last = page.entries.last().map(|entry| entry.key.clone());
        // Those that a webhook converts are asked about all at once.
        let mut converted = match call.row.is_converted_elsewhere() {
            true => call.server.load_all(&call.row, &page.entries).await.map_err(Failure::Conversion)?.into_iter(),
            false => Vec::new().into_iter(),
        };
        let mut left = page.entries.len();
        for entry in page.entries {
            left -= 1;
            match converted.next() {
                Some(object) if filter.matches(&object) => {
                    found.entries.push(entry);
                    found.objects.push(object);
                }
                Some(_) => {}
                None if storage::load(&call.row, &entry).is_ok_and(|object| filter.matches(&object)) => {
                    found.entries.push(entry);
                }
                None => {}
            }
            if wanted.is_some_and(|wanted| found.entries.len() >= wanted) {
                return Ok(Found { remaining: left + page.remaining, ..found });
            }
        }
        if page.remaining == 0 || last.is_none() {
            return Ok(found);
        }
        range.after = last;
        range.at = Some(page.revision);
    }
}

fn metadata(found: &Found, filter: &Filter) -> Result<Value, ApiError> {
    let mut metadata = json!({ "resourceVersion": found.revision.to_string() });
    if let Some(last) = found.entries.last().filter(|_| found.remaining > 0) {
        metadata["continue"] = Continue::encode(Some(found.revision), &last.key)?.into();
        if filter.is_everything() {
            metadata["remainingItemCount"] = found.remaining.into();
        }
    }
    Ok(metadata)
}

async fn respond_with(call: &Call, found: Found, metadata: &Value) -> Result<Response<Body>, ApiError> {
    let text = if call.row.is_served_as_stored() && call.form == Form::Plain {
        let (kind, version) = (call.row.list_kind, call.row.api_version());
        splice(&found, kind, &version, metadata, object::splice)
    } else if call.row.is_served_as_stored() && call.form == Form::Metadata {
        splice(&found, "PartialObjectMetadataList", "meta.k8s.io/v1", metadata, object::splice_partial)
    } else {
        call.renderer()?.list(&found.into_objects(call).await?, metadata).to_string().into_bytes()
    };
    Ok(respond::large(&call.headers, respond::JSON, text))
}

/// The list as it is stored, without parsing its items.
fn splice(
    found: &Found,
    kind: &str,
    version: &str,
    metadata: &Value,
    put: fn(&[u8], Revision, &mut Vec<u8>),
) -> Vec<u8> {
    let size: usize = found.entries.iter().map(|entry| entry.value.len() + 32).sum();
    let mut text = Vec::with_capacity(size + 256);
    let head = format!("{{\"kind\":{kind:?},\"apiVersion\":{version:?},\"metadata\":{metadata},\"items\":[");
    text.extend_from_slice(head.as_bytes());
    for (index, entry) in found.entries.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        put(&entry.value, entry.revision, &mut text);
    }
    text.extend_from_slice(b"]}");
    text
}
