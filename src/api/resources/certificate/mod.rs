//! CertificateSigningRequests: somebody asks one of the cluster's signers for a certificate, somebody else approves.
//!
//! Follows `pkg/apis/certificates/validation` and `pkg/registry/certificates/certificates/strategy.go` of upstream. Who
//! asks is known from the request that created the object, and fills it in: [`stamp_requestor`]. Invariants: what was
//! asked for never changes; a decision is never taken back; a certificate is set once.

mod check;
pub mod order;
pub mod request;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{ensure_object, items, items_mut, present, put, remove, text};
use super::{BLANK, NameRule, Part, Resource, STATUS_VERBS, Subresource, status_of};
use crate::user::UserInfo;

/// Their API group.
pub const GROUP: &str = "certificates.k8s.io";
/// Their word in paths.
pub const PLURAL: &str = "certificatesigningrequests";
const KIND: &str = "CertificateSigningRequest";

/// `certificatesigningrequests.certificates.k8s.io`.
pub(super) const ROW: Resource = Resource {
    group: GROUP,
    kind: KIND,
    list_kind: "CertificateSigningRequestList",
    plural: PLURAL,
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[
        Subresource { name: "approval", group: GROUP, version: "v1", kind: KIND, verbs: STATUS_VERBS },
        status_of(GROUP, "v1", KIND),
    ],
    parts: &[Part { name: "approval", take: take_conditions, validate: check::approval }],
    name_rule: NameRule::PathSegment,
    prepare_update: |new, old| put(new, "spec", &old["spec"]),
    validate: check::whole,
    validate_update: check::update,
    validate_status: check::status,
    has_status: true,
    new_status: || json!({}),
    columns: &[
        cell::NAME,
        cell::AGE,
        column("SignerName", "string", "", "Who is asked to sign.", 0),
        column("Requestor", "string", "", "Who asks.", 0),
        column("RequestedDuration", "string", "", "How long the certificate is to be valid.", 0),
        column("Condition", "string", "", "What has been decided, and whether a certificate was issued.", 0),
    ],
    cells,
    selectable: &[("spec.signerName", |request| text(&request["spec"], "signerName").to_owned())],
    ..BLANK
};

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let has = |kind: &str| items(status, "conditions").iter().any(|condition| text(condition, "type") == kind);
    let mut condition = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        condition.push_str(",Failed");
    }
    if !text(status, "certificate").is_empty() {
        condition.push_str(",Issued");
    }
    vec![
        cell::name(object),
        cell::age(object, now),
        cell::or(text(spec, "signerName"), "<none>"),
        text(spec, "username").into(),
        spec["expirationSeconds"].as_i64().map_or_else(|| "<none>".to_owned(), cell::human).into(),
        condition.into(),
    ]
}

/// Approval decides by conditions, and may mark the object (`csrApprovalStrategy`).
fn take_conditions(result: &mut Value, new: &Value) {
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        put(ensure_object(result, "metadata"), field, &new["metadata"][field]);
    }
    let status = ensure_object(result, "status");
    put(status, "conditions", &new["status"]["conditions"]);
    if status.as_object().is_some_and(serde_json::Map::is_empty) {
        remove(result, "status");
    }
}

/// Writes down who asks; what the client sent says nothing.
pub fn stamp_requestor(object: &mut Value, user: &UserInfo) {
    let who = serde_json::to_value(user).unwrap_or_default();
    let spec = ensure_object(object, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        put(spec, field, &who[field]);
    }
}

/// Fills in the times of conditions that a client left out (`populateConditionTimestamps` of the strategy).
pub fn stamp_conditions(new: &mut Value, old: &Value, now: Timestamp) {
    let now: Value = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    let Some(status) = super::path::object_mut(new, "status") else { return };
    for condition in items_mut(status, "conditions") {
        if !present(condition, "lastUpdateTime") {
            put(condition, "lastUpdateTime", &now);
        }
        if !present(condition, "lastTransitionTime") {
            let same = |before: &&Value| before["type"] == condition["type"] && before["status"] == condition["status"];
            let before = items(&old["status"], "conditions").iter().find(same);
            let before = before.map(|before| &before["lastTransitionTime"]).filter(|time| !time.is_null());
            let time = before.unwrap_or(&now).clone();
            put(condition, "lastTransitionTime", &time);
        }
    }
}

/// What an object asks for.
///
/// # Errors
/// If that cannot be read.
pub fn asked(object: &Value) -> Result<request::Request, request::RequestError> {
    request::Request::parse(&check::bytes(&object["spec"], "request").ok_or(request::RequestError::NoRequest)?)
}
