//! AdmissionReviews (`admission.k8s.io/v1`, and `v1beta1` for webhooks that know nothing newer): pure, but for an identity.
//!
//! After `k8s.io/apiserver/pkg/admission/plugin/webhook/{request,errors}`.

use api::status::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::attempt::{Form, Write};

/// What a webhook is asked.
pub(super) struct Review {
    pub(super) document: Value,
    version: &'static str,
    uid: String,
}

/// What a webhook says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// A JSON patch; empty for none.
    pub(super) patch: Vec<u8>,
    /// Why not.
    pub(super) status: Value,
    pub(super) warnings: Vec<String>,
}

impl Review {
    pub(super) fn new(hook: &Value, write: &Write<'_>, form: &Form<'_>) -> Self {
        let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten();
        let is_old = versions.into_iter().find(|version| *version == "v1" || *version == "v1beta1");
        let version = if is_old.is_some_and(|version| version == "v1beta1") { "v1beta1" } else { "v1" };
        let uid = write.call.server.config.entropy.uuid();
        let mut request = write.request.clone();
        request["uid"] = json!(uid);
        if let Some(row) = &form.row {
            request["kind"] = json!({ "group": row.group, "version": row.version, "kind": row.kind });
            request["resource"] = json!({ "group": row.group, "version": row.version, "resource": row.plural });
        }
        (request["object"], request["oldObject"]) = (form.object.clone().into_owned(), form.old.clone().into_owned());
        for field in ["name", "namespace", "subResource", "requestSubResource"] {
            if request[field] == ""
                && let Some(request) = request.as_object_mut()
            {
                request.remove(field);
            }
        }
        let version_of = format!("admission.k8s.io/{version}");
        let document = json!({ "kind": "AdmissionReview", "apiVersion": version_of, "request": request });
        Self { document, version, uid }
    }

    /// What an answer says, or why it says nothing (`VerifyAdmissionResponse`).
    pub(super) fn read(&self, document: &Value, mutating: bool) -> Result<Answer, String> {
        let response = &document["response"];
        if response.is_null() {
            return Err("webhook response was absent".to_owned());
        }
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let is_v1 = self.version == "v1";
        let uid = text(response, "uid");
        if is_v1 && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        let (group_version, kind) = (text(document, "apiVersion"), text(document, "kind"));
        if is_v1 && (group_version.as_str(), kind.as_str()) != ("admission.k8s.io/v1", "AdmissionReview") {
            let slash = if group_version.contains('/') { "" } else { "/" };
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got \
                 {slash}{group_version}, Kind={kind}"
            ));
        }
        let patch = match response["patch"].as_str() {
            None => Vec::new(),
            Some(text) => STANDARD.decode(text).map_err(|error| format!("response.patch is no base64: {error}"))?,
        };
        let kind = response["patchType"].as_str();
        match (mutating, patch.is_empty(), kind) {
            (false, false, _) if is_v1 => return Err("validating webhook may not return response.patch".to_owned()),
            (false, _, Some(_)) if is_v1 => {
                return Err("validating webhook may not return response.patchType".to_owned());
            }
            (true, false, None) if is_v1 => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) if is_v1 => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, false, Some(kind)) if kind != "JSONPatch" => {
                return Err(format!("webhook returned invalid response.patchType of {kind:?}"));
            }
            _ => {}
        }
        let warnings = response["warnings"].as_array().into_iter().flatten();
        Ok(Answer {
            allowed: response["allowed"] == true,
            patch: if mutating { patch } else { Vec::new() },
            status: response["status"].clone(),
            warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }
}

/// The error of a write that a webhook does not allow (`ToStatusErr`).
pub(super) fn refusal(name: &str, status: &Value) -> ApiError {
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let mut error = ApiError::from_value(code.unwrap_or(400), status);
    let denied = format!("admission webhook {name:?} denied the request");
    error.message = match (error.message.as_str(), error.reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", why) | (why, _) => format!("{denied}: {why}"),
    };
    error
}
