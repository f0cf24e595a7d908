//! One request for objects, on its way through the verbs.

use std::sync::{Arc, Mutex, PoisonError};

use api::resources::{Resource, scale};
use api::status::ApiError;
use api::user::UserInfo;
use http::{HeaderMap, Response};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use serde_json::Value;

use crate::Body;
use crate::negotiate::Form;
use crate::query::Query;
use crate::render::{Renderer, include_object};
use crate::request::ResourceRequest;
use crate::respond;
use crate::server::ApiServer;

/// A request that is authorized, routed to a row and negotiated.
pub(crate) struct Call {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) user: UserInfo,
    pub(crate) request: ResourceRequest,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// The row of the kind; a kind that came at run time may be gone before the request is answered.
    pub(crate) row: Resource,
    pub(crate) form: Form,
    /// The connection itself, if the client wants it to speak another protocol.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// What the client is to be told besides the answer.
    pub(crate) warnings: Mutex<Vec<String>>,
}

/// What a verb has to say when it is about one object.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// HTTP status.
    pub(crate) code: u16,
    /// The object, or a `Status`.
    pub(crate) object: Value,
    /// For `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

impl Outcome {
    pub(crate) fn ok(object: Value) -> Self {
        Self { code: 200, object, warnings: Vec::new() }
    }
}

impl Call {
    /// Tells the client something besides the answer, once.
    pub(crate) fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The answer to a request that is refused, with what the client is to be told besides.
    pub(crate) fn refuse(&self, error: &ApiError) -> Response<Body> {
        let mut response = respond::error(error);
        respond::warn(&mut response, &self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        response
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Timestamp {
        self.server.config.clock.now()
    }

    /// The namespace that the request names; empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        if self.row.namespaced { &self.request.namespace } else { "" }
    }

    /// The object that the path names.
    pub(crate) fn name(&self) -> &str {
        &self.request.name
    }

    pub(crate) fn renderer(&self) -> Result<Renderer, ApiError> {
        let include = include_object(&self.query)?;
        let row = if self.request.subresource == "scale" { &scale::ROW } else { &self.row };
        Ok(Renderer { row: row.clone(), form: self.form, include, now: self.now() })
    }

    /// The outcome in the form that the client asked for.
    pub(crate) fn answer(&self, outcome: Outcome) -> Result<Response<Body>, ApiError> {
        let kind = &outcome.object["kind"];
        let is_other = kind == "Status" || kind == self.row.list_kind;
        let mut warnings = outcome.warnings;
        warnings.append(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        let subresource = self.request.subresource.as_str();
        let is_write = ["create", "update", "patch"].contains(&self.request.verb.as_str());
        if !is_other && is_write && (subresource.is_empty() || self.row.part(subresource).is_some()) {
            warnings.extend((self.row.warn)(&outcome.object));
        }
        let document = if is_other { outcome.object } else { self.renderer()?.object(outcome.object) };
        let mut response = respond::large(&self.headers, respond::JSON, document.to_string().into_bytes());
        *response.status_mut() = http::StatusCode::from_u16(outcome.code).unwrap_or_default();
        respond::warn(&mut response, &warnings);
        Ok(response)
    }

    pub(crate) fn conflict(&self, name: &str, message: &str) -> ApiError {
        ApiError::conflict(self.row.group, self.row.plural, name, message)
    }

    pub(crate) fn modified(&self, name: &str) -> ApiError {
        ApiError::modified(self.row.group, self.row.plural, name)
    }
}
