//! Arguments of requests.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::object::escape;

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ListOptions {
    /// Label selector in Kubernetes' syntax; empty selects all.
    pub labels: String,
    /// Field selector, e.g. `spec.nodeName=edge-1`; empty selects all.
    pub fields: String,
    /// At most so many objects in one page.
    pub limit: Option<u32>,
    /// Where the previous page ended; empty for the first.
    pub continue_token: String,
}

impl ListOptions {
    /// Objects with these fields.
    pub fn fields(selector: &str) -> Self {
        Self { fields: selector.to_owned(), ..Self::default() }
    }

    /// Objects with these labels.
    pub fn labels(selector: &str) -> Self {
        Self { labels: selector.to_owned(), ..Self::default() }
    }

    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("labelSelector", &self.labels);
        query.add("fieldSelector", &self.fields);
        if let Some(limit) = self.limit {
            query.add("limit", &limit.to_string());
        }
        query.add("continue", &self.continue_token);
        query
    }
}

/// A part of a listing.
#[derive(Debug, Clone)]
pub struct Page<K> {
    /// The objects.
    pub items: Vec<K>,
    /// The `resourceVersion` of the listing; a watch goes on from here.
    pub revision: String,
    /// Where the next page starts; empty on the last.
    pub continue_token: String,
}

/// A change of an object, by one of Kubernetes' patch formats.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 7396.
    Merge(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// RFC 6902.
    Json(Value),
    /// Kubernetes' server-side apply: the fields that the caller wants, whose manager the query names.
    Apply(Value),
}

impl Patch {
    pub(crate) fn parts(&self) -> (&'static str, &Value) {
        match self {
            Self::Merge(value) => ("application/merge-patch+json", value),
            Self::Strategic(value) => ("application/strategic-merge-patch+json", value),
            Self::Json(value) => ("application/json-patch+json", value),
            Self::Apply(value) => ("application/apply-patch+yaml", value),
        }
    }
}

/// How to delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// Seconds until the object must be gone; none leaves it to the object.
    pub grace_period_seconds: Option<i64>,
    /// Only an object with this uid; empty for any.
    pub uid: String,
    /// Only an object at this resourceVersion; empty for any.
    pub revision: String,
    /// What is to become of its dependents: `Background`, `Foreground` or `Orphan`; empty leaves it to the kind.
    pub propagation: &'static str,
}

impl DeleteOptions {
    /// Removes exactly this object at once, as a kubelet does once a pod's processes have ended.
    pub fn now(uid: &str) -> Self {
        Self { grace_period_seconds: Some(0), uid: uid.to_owned(), ..Self::default() }
    }

    /// Removes an object only as it was seen: what somebody has changed meanwhile stays.
    pub fn as_seen(metadata: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self { uid: text(&metadata.uid), revision: text(&metadata.resource_version), ..Self::default() }
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if !self.uid.is_empty() {
            body["preconditions"]["uid"] = json!(self.uid);
        }
        if !self.revision.is_empty() {
            body["preconditions"]["resourceVersion"] = json!(self.revision);
        }
        if !self.propagation.is_empty() {
            body["propagationPolicy"] = json!(self.propagation);
        }
        body
    }
}

/// A query string under construction.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    /// Adds a parameter unless its value is empty.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&escape(value));
        }
    }

    /// The query with its question mark, or nothing.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_what_was_set_and_nothing_else() {
        assert_eq!(ListOptions::default().query().as_str(), "");
        let options = ListOptions { limit: Some(500), ..ListOptions::fields("spec.nodeName=edge 1") };
        assert_eq!(options.query().as_str(), "?fieldSelector=spec.nodeName%3Dedge%201&limit=500");
    }

    #[test]
    fn delete_options_carry_preconditions_only_when_asked() {
        assert_eq!(DeleteOptions::default().body(), json!({"kind": "DeleteOptions", "apiVersion": "v1"}));
        assert_eq!(
            DeleteOptions::now("u1").body(),
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "u1"}})
        );
    }
}
