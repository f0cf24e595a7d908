//! `PATCH` of an object, its status or its scale with an applied configuration (server-side apply).
//!
//! Follows `applyPatcher` of `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`. An object that is not there yet is
//! created, if the client may create it; a subresource of one that is not there is not found.

use api::json::{self, Parsed};
use api::managed::{self, ApplyError, RowKind, Writer};
use api::resources::{Resource, Verb};
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Value, json};

use super::patch::check_name;
use super::write::{Attempt, preconditions, replace_applied};
use super::{ATTEMPTS, create, scale};
use crate::authz;
use crate::body::{self, FieldValidation, Kind};
use crate::call::{Call, Outcome};
use crate::managed::check_options;
use crate::object::{meta, metadata_mut};
use crate::request::RequestInfo;

/// The media type of a configuration, which may be YAML or JSON.
pub(super) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// What a client wants to be applied.
struct Configuration {
    object: Value,
    /// Whether fields of other managers are taken.
    force: bool,
    dry: bool,
    warnings: Vec<String>,
    /// Why the text is refused, if the configuration itself is not.
    strict: Option<ApiError>,
}

impl Configuration {
    /// Reads a configuration of a row's kind.
    fn read(call: &Call, row: &Resource, bytes: &Bytes) -> Result<Self, ApiError> {
        check_options(&call.query, "PatchOptions", true)?;
        let validation = FieldValidation::from_query(&call.query, "PatchOptions")?;
        let dry = body::dry_run(call.query.all("dryRun"), "PatchOptions")?;
        // Most clients send JSON, which is quicker to read, and some escape in it what YAML cannot.
        let parsed = json::parse(bytes).or_else(|_| json::parse_yaml(bytes));
        let Parsed { value: object, duplicates } =
            parsed.map_err(|error| ApiError::bad_request(format!("error decoding YAML: {}", error.message)))?;
        let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
        if (version, kind) != (row.api_version().as_str(), row.kind) {
            let slash = if version.contains('/') { "" } else { "/" };
            return Err(ApiError::bad_request(format!("invalid object type: {slash}{version}, Kind={kind}")));
        }
        if !object["metadata"]["managedFields"].is_null() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let mut configuration =
            Self { object, force: call.query.flag("force"), dry, warnings: Vec::new(), strict: None };
        if let Some(text) = json::duplicate_key(bytes, &duplicates) {
            match validation {
                FieldValidation::Ignore => {}
                FieldValidation::Warn => configuration.warnings.push(text),
                FieldValidation::Strict => {
                    configuration.strict = Some(ApiError::bad_request(format!("error strict decoding YAML: {text}")));
                }
            }
        }
        Ok(configuration)
    }

    /// What the configuration makes of an object, whose kind is that of a row.
    fn apply(&self, call: &Call, row: &Resource, live: &Value) -> Result<Value, ApiError> {
        let subresource = call.request.subresource.as_str();
        let name = call.query.get("fieldManager").unwrap_or_default();
        let writer = Writer { name, subresource, now: call.now() };
        let applied = managed::apply(&RowKind::new(row, subresource), live, &self.object, &writer, self.force);
        let object = applied.map_err(|error| match error {
            ApplyError::Conflicts(error) => error,
            ApplyError::Malformed(text) => {
                let (namespace, name) = (call.namespace(), call.name());
                let (version, kind) = (row.api_version(), row.kind);
                ApiError::bad_request(format!(
                    "failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): {text}"
                ))
            }
        })?;
        if let Some(error) = &self.strict {
            return Err(error.clone());
        }
        // The form of the type, without what a configuration may say and an object need not.
        Ok(body::conform(object, Vec::new(), Kind::of(row), FieldValidation::Ignore)?.object)
    }

    /// Whether it is for one state of the object only.
    fn names_a_version(&self) -> bool {
        !meta(&self.object, "resourceVersion").is_empty()
    }

    fn outcome(self, code: u16, object: Value) -> Outcome {
        Outcome { code, object, warnings: self.warnings }
    }
}

pub(super) async fn apply(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let configuration = Configuration::read(call, &call.row, bytes)?;
    for _ in 0..ATTEMPTS {
        let (old, entry) = match call.server.read(&call.row, call.namespace(), call.name()).await {
            Ok(found) => found,
            Err(error) if error.code == 404 && may_create(call) => match create(call, &configuration).await {
                // Somebody else created it meanwhile.
                Err(error) if error.reason == "AlreadyExists" => continue,
                object => return Ok(configuration.outcome(201, object?)),
            },
            Err(error) => return Err(error),
        };
        let mut new = configuration.apply(call, &call.row, &old)?;
        place(call, &mut new)?;
        // A configuration of an object that is there need not name it.
        check_name(call, &new)?;
        preconditions(call, &new, &old)?;
        match replace_applied(call, new, &old, &entry, configuration.dry).await? {
            Attempt::Done(object) => return Ok(configuration.outcome(200, object)),
            Attempt::Lost if configuration.names_a_version() => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

/// As [`apply`], where the configuration is of a Scale.
pub(super) async fn apply_scale(call: &Call, bytes: &Bytes) -> Result<Outcome, ApiError> {
    let configuration = Configuration::read(call, &api::resources::scale::ROW, bytes)?;
    for _ in 0..ATTEMPTS {
        let (old, entry) = call.server.read(&call.row, call.namespace(), call.name()).await?;
        let scale = configuration.apply(call, &api::resources::scale::ROW, &scale::view(call, &old)?)?;
        check_name(call, &scale)?;
        let (new, _) = scale::scaled(call, &old, &scale)?;
        match replace_applied(call, new, &old, &entry, configuration.dry).await? {
            Attempt::Done(object) => {
                let scale = scale::shown(call, &object)?;
                return Ok(configuration.outcome(200, scale));
            }
            Attempt::Lost if configuration.names_a_version() => break,
            Attempt::Lost => {}
        }
    }
    Err(call.modified(call.name()))
}

/// The namespace of the path is that of the object.
fn place(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let given = meta(object, "namespace");
    if call.row.namespaced && !given.is_empty() && given != call.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !call.row.namespaced {
        metadata_mut(object).remove("namespace");
    }
    Ok(())
}

fn may_create(call: &Call) -> bool {
    call.request.subresource.is_empty() && call.row.verbs.contains(&Verb::Create)
}

async fn create(call: &Call, configuration: &Configuration) -> Result<Value, ApiError> {
    let mut request = call.request.clone();
    "create".clone_into(&mut request.verb);
    let info = RequestInfo::Resource(request);
    let access = call.server.access(&call.user, &info, &call.query).await?;
    if !access.allowed {
        return Err(authz::forbidden(&call.user, &info, &access.reason));
    }
    let uid = meta(&configuration.object, "uid");
    if !uid.is_empty() {
        let text = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(call.conflict(call.name(), &text));
    }
    let object = configuration.apply(call, &call.row, &json!({}))?;
    check_name(call, &object)?;
    create::store_applied(call, object, configuration.dry).await
}
