//! ValidatingAdmissionPolicies and their bindings: what they say of a write decides whether it is done.
//!
//! The pure part is [`api::resources::admission::policy`]. What the server writes at its start is not asked about, lest a
//! policy keep it from starting; nor are policies and bindings themselves, lest one keep itself from being mended.

use std::borrow::Cow;

use api::resources::admission::policy::{self, Attempt, Failure};
use api::resources::{self, Resource};
use api::selector::LabelSelector;
use api::status::{ApiError, Cause};
use serde_json::{Value, json};

use super::all;
use crate::call::Call;
use crate::object::meta;
use crate::storage;

const GROUP: &str = "admissionregistration.k8s.io";
const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";
/// Who makes what every cluster has.
const SERVER: &str = "system:apiserver";

/// Refuses a write that a policy denies; the object is absent if it is to go, and `old` if it is new.
pub(crate) async fn check(call: &Call, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
    let is_exempt = call.row.group == GROUP && [POLICIES, BINDINGS].contains(&call.row.plural);
    if is_exempt || call.user.username == SERVER {
        return Ok(());
    }
    let policies = all(call, GROUP, POLICIES).await?;
    if policies.is_empty() {
        return Ok(());
    }
    let operation = match (object, old) {
        (None, _) => "DELETE",
        (Some(_), None) => "CREATE",
        (Some(_), Some(_)) => "UPDATE",
    };
    let write = Write::new(call, operation, object, old).await?;
    for binding in all(call, GROUP, BINDINGS).await? {
        let name = binding["spec"]["policyName"].as_str().unwrap_or_default();
        // A binding may come before its policy.
        let Some(policy) = policies.iter().find(|policy| meta(policy, "name") == name) else { continue };
        for form in write.forms(&policy["spec"]["matchConstraints"]) {
            let attempt = form.attempt(&write);
            let resources = &binding["spec"]["matchResources"];
            if !policy::concerns(&policy["spec"]["matchConstraints"], &attempt)
                || !(resources.is_null() || policy::concerns(resources, &attempt))
            {
                continue;
            }
            for params in params(call, policy, &binding).await? {
                let failures = match params {
                    Ok(params) => policy::judge(policy, &params, &attempt),
                    Err(failure) => failure.into_iter().collect(),
                };
                failures.iter().try_for_each(|failure| act(call, policy, &binding, &write, failure))?;
            }
            break;
        }
    }
    Ok(())
}

/// A write, and what expressions may know of it.
struct Write<'a> {
    call: &'a Call,
    operation: &'static str,
    name: &'a str,
    namespace: Value,
    request: Value,
    object: &'a Value,
    old: &'a Value,
}

/// A write as one of a version of its kind.
struct Form<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
    object: Cow<'a, Value>,
    old: Cow<'a, Value>,
}

impl<'a> Write<'a> {
    async fn new(
        call: &'a Call,
        operation: &'static str,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Result<Self, ApiError> {
        const NOTHING: &Value = &Value::Null;
        let shown = object.or(old).unwrap_or(NOTHING);
        let (row, name) = (&call.row, meta(shown, "name"));
        let namespace = match row.namespaced {
            true => {
                let namespaces = resources::find("", "v1", "namespaces");
                let namespaces = namespaces.ok_or_else(|| ApiError::internal("no namespaces"))?;
                match call.server.read(namespaces, "", meta(shown, "namespace")).await {
                    Ok((namespace, _)) => namespace,
                    // One that is gone has no labels.
                    Err(error) if error.code == 404 => json!({}),
                    Err(error) => return Err(error),
                }
            }
            false => Value::Null,
        };
        let kind = json!({ "group": row.group, "version": row.version, "kind": row.kind });
        let resource = json!({ "group": row.group, "version": row.version, "resource": row.plural });
        let subresource = call.request.subresource.as_str();
        let request = json!({
            "kind": kind, "resource": resource, "subResource": subresource,
            "requestKind": kind, "requestResource": resource, "requestSubResource": subresource,
            "name": name, "namespace": meta(shown, "namespace"), "operation": operation,
            "userInfo": serde_json::to_value(&call.user).unwrap_or_default(),
            "dryRun": call.query.all("dryRun").next().is_some(), "options": {},
        });
        let (object, old) = (object.unwrap_or(NOTHING), old.unwrap_or(NOTHING));
        Ok(Self { call, operation, name, namespace, request, object, old })
    }

    /// The forms in which rules may be about it: its own, and those of the other versions that a rule may mean as well.
    fn forms(&self, constraints: &Value) -> Vec<Form<'_>> {
        let row = &self.call.row;
        let is_custom = row.custom.is_some();
        let is_exact = constraints["matchPolicy"] == "Exact";
        let own = Form {
            group: row.group,
            // The versions of a custom resource differ in name only.
            version: if is_custom && !is_exact { "" } else { row.version },
            plural: row.plural,
            object: Cow::Borrowed(self.object),
            old: Cow::Borrowed(self.old),
        };
        let mut forms = vec![own];
        if !is_custom && !is_exact {
            forms.extend(resources::all().iter().copied().filter(|other| is_same(row, other)).map(|other| Form {
                group: other.group,
                version: other.version,
                plural: other.plural,
                object: Cow::Owned(converted(row, other, self.object)),
                old: Cow::Owned(converted(row, other, self.old)),
            }));
        }
        forms
    }
}

/// Whether two rows are versions of one kind.
fn is_same(row: &Resource, other: &Resource) -> bool {
    let of = |row: &Resource| (row.stored().group, row.stored().version, row.stored().plural);
    (row.group, row.version) != (other.group, other.version) && of(row) == of(other)
}

fn converted(row: &Resource, other: &Resource, object: &Value) -> Value {
    if object.is_null() { Value::Null } else { other.of_stored(row.to_stored(object).into_owned()) }
}

impl Form<'_> {
    fn attempt<'b>(&'b self, write: &'b Write<'_>) -> Attempt<'b> {
        Attempt {
            operation: write.operation,
            group: self.group,
            version: self.version,
            resource: self.plural,
            subresource: &write.call.request.subresource,
            name: write.name,
            namespace: &write.namespace,
            object: &self.object,
            old: &self.old,
            request: &write.request,
        }
    }
}

/// What is done about a failure: the write is refused, or its author is told.
fn act(call: &Call, policy: &Value, binding: &Value, write: &Write<'_>, failure: &Failure) -> Result<(), ApiError> {
    let (policy, by) = (meta(policy, "name"), meta(binding, "name"));
    let message = &failure.message;
    let has =
        |word: &str| binding["spec"]["validationActions"].as_array().into_iter().flatten().any(|action| action == word);
    if has("Warn") {
        call.warn(format!("Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{by}': {message}"));
    }
    if has("Audit") {
        tracing::info!(policy, binding = by, message, "a write fails a policy");
    }
    if !has("Deny") {
        return Ok(());
    }
    let text = format!("ValidatingAdmissionPolicy '{policy}' with binding '{by}' denied request: {message}");
    let mut error = ApiError::forbidden(call.row.group, call.row.plural, write.name, &text);
    (error.code, error.reason) = match failure.reason.as_str() {
        "Forbidden" => (403, "Forbidden".to_owned()),
        "Unauthorized" => (401, "Unauthorized".to_owned()),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge".to_owned()),
        _ => (422, "Invalid".to_owned()),
    };
    if let Some(details) = &mut error.details {
        details.causes.push(Cause { reason: String::new(), message: text, field: String::new() });
    }
    Err(error)
}

/// The settings with which a policy is asked, one after another: null if it has none, and a failure instead if they cannot
/// be had, none of which is none if that is nothing to anybody.
async fn params(call: &Call, policy: &Value, binding: &Value) -> Result<Vec<Result<Value, Option<Failure>>>, ApiError> {
    let (kind, reference) = (&policy["spec"]["paramKind"], &binding["spec"]["paramRef"]);
    if kind.is_null() {
        return Ok(vec![Ok(Value::Null)]);
    }
    let fail = |message: String| {
        let ignored = policy["spec"]["failurePolicy"] == "Ignore";
        vec![Err((!ignored).then_some(Failure { message, reason: String::new() }))]
    };
    if reference.is_null() {
        return Ok(vec![Ok(Value::Null)]);
    }
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let version = text(kind, "apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let word = text(kind, "kind");
    let kinds = call.server.kinds().await?;
    let found = kinds.all().into_iter().find(|row| row.group == group && row.version == version && row.kind == word);
    let Some(row) = found else {
        return Ok(fail(format!(
            "failed to configure binding: failed to find resource referenced by paramKind: '{word}'"
        )));
    };
    let own = text(reference, "namespace");
    let namespace = if own.is_empty() { call.namespace().to_owned() } else { own };
    if row.namespaced && namespace.is_empty() {
        let message = "failed to configure binding: cannot use namespaced paramRef in policy binding that matches \
                       cluster-scoped resources";
        return Ok(fail(message.to_owned()));
    }
    let mut objects = Vec::new();
    let name = text(reference, "name");
    if name.is_empty() {
        let range = store::Range { prefix: storage::prefix(row, &namespace), after: None, limit: None, at: None };
        let page = call.server.config.store.list(range).await.map_err(storage::failed)?;
        let selector = LabelSelector::from_object(&reference["selector"])?;
        for entry in &page.entries {
            let object = storage::load(row, entry)?;
            if selector.matches(object["metadata"]["labels"].as_object()) {
                objects.push(Ok(object));
            }
        }
    } else {
        match call.server.read(row, &namespace, &name).await {
            Ok((object, _)) => objects.push(Ok(object)),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    if objects.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        let message = "failed to configure binding: no params found for policy binding with `Deny` \
                       parameterNotFoundAction";
        return Ok(fail(message.to_owned()));
    }
    Ok(objects)
}
