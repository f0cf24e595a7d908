//! A write as those see it who are asked about it: policies and webhooks.

use std::borrow::Cow;

use api::cel::authorizer::Nobody;
use api::resources::admission::policy::{self, Attempt};
use api::resources::scale::Scale;
use api::resources::{self, Resource};
use api::status::ApiError;
use serde_json::{Value, json};

use crate::body::{self, FieldValidation, Kind};
use crate::call::Call;
use crate::object::{meta, metadata_mut};

/// What nobody who is asked changes of metadata.
const FIXED: [&str; 6] =
    ["namespace", "uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "managedFields"];

/// What a request writes, or asks for, that is no object of its row: the name of an operation and that of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) operation: &'static str,
    pub(crate) kind: Kind<'static>,
}

/// A write, and what expressions may know of it.
pub(super) struct Write<'a> {
    pub(super) call: &'a Call,
    /// Whether it is about an object of the row, and none that is only under its name.
    is_of_row: bool,
    pub(super) operation: &'static str,
    pub(super) name: &'a str,
    pub(super) namespace: Value,
    pub(super) request: Value,
    pub(super) object: Cow<'a, Value>,
    pub(super) old: Cow<'a, Value>,
}

/// A write as one of a version of its kind.
pub(super) struct Form<'a> {
    /// The row whose version it is, if that is not the one of the request.
    pub(super) row: Option<Box<Resource>>,
    pub(super) object: Cow<'a, Value>,
    pub(super) old: Cow<'a, Value>,
}

impl<'a> Write<'a> {
    /// The object is absent if it is to go, and `old` if it is new; a dry one is not carried out.
    pub(super) async fn new(
        call: &'a Call,
        subject: Option<Subject>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
        dry: bool,
    ) -> Result<Self, ApiError> {
        const NOTHING: &Value = &Value::Null;
        let operation = match (subject, object, old) {
            (Some(subject), ..) => subject.operation,
            (_, None, _) => "DELETE",
            (_, Some(_), None) => "CREATE",
            (_, Some(_), Some(_)) => "UPDATE",
        };
        let shown = object.or(old).unwrap_or(NOTHING);
        let row = &call.row;
        let (name, own_namespace) = match subject {
            Some(_) if !call.name().is_empty() => (call.name(), call.namespace()),
            Some(_) => (meta(shown, "name"), call.namespace()),
            None => (meta(shown, "name"), meta(shown, "namespace")),
        };
        let namespace = match row.namespaced {
            true => {
                let namespaces = resources::find("", "v1", "namespaces");
                let namespaces = namespaces.ok_or_else(|| ApiError::internal("no namespaces"))?;
                match call.server.read(namespaces, "", own_namespace).await {
                    Ok((namespace, _)) => namespace,
                    // One that is gone has no labels.
                    Err(error) if error.code == 404 => json!({}),
                    Err(error) => return Err(error),
                }
            }
            false => Value::Null,
        };
        let scale = scale_of(call, subject);
        let of_row = match scale {
            Some(_) => Kind::of(&api::resources::scale::ROW),
            None => Kind { group: row.group, version: row.version, kind: row.kind, custom: None },
        };
        let Kind { group, version, kind, .. } = subject.map_or(of_row, |subject| subject.kind);
        let kind = json!({ "group": group, "version": version, "kind": kind });
        let resource = json!({ "group": row.group, "version": row.version, "resource": row.plural });
        let subresource = call.request.subresource.as_str();
        let request = json!({
            "kind": kind, "resource": resource, "subResource": subresource,
            "requestKind": kind, "requestResource": resource, "requestSubResource": subresource,
            "name": name, "namespace": own_namespace, "operation": operation,
            "userInfo": serde_json::to_value(&call.user).unwrap_or_default(),
            "dryRun": dry, "options": options(call, operation, dry),
        });
        let seen = |state: Option<&'a Value>| match (scale, state) {
            (Some(scale), Some(state)) => Cow::Owned(scale.read(state)),
            (_, state) => Cow::Borrowed(state.unwrap_or(NOTHING)),
        };
        let is_of_row = subject.is_none() && scale.is_none();
        Ok(Self { call, is_of_row, operation, name, namespace, request, object: seen(object), old: seen(old) })
    }

    /// The form in which the write is what all of these rules are about, if there is one: its own, or else that of another
    /// version, unless the first of them mean just what they name. Upstream decides by the object as it is as well, and
    /// only what is asked about is made (`ShouldCallHook` of `…/plugin/webhook/generic`): who names a kind has no other
    /// kinds wait for the webhooks that convert them.
    pub(super) async fn form(&self, rules: &[&Value]) -> Result<Option<Form<'_>>, ApiError> {
        let row = &self.call.row;
        let concerned = |row: &Resource| {
            let attempt = self.attempt(row, &self.object, &self.old);
            rules.iter().all(|rules| policy::concerns(rules, &attempt))
        };
        if concerned(row) {
            return self.form_in(None).await.map(Some);
        }
        if rules.first().is_some_and(|rules| rules["matchPolicy"] == "Exact") || !self.is_of_row {
            return Ok(None);
        }
        let Some(other) = self.other_versions().await?.into_iter().find(concerned) else { return Ok(None) };
        self.form_in(Some(Box::new(other))).await.map(Some)
    }

    /// The write in a version, that of the request if none is named.
    pub(super) async fn form_in(&self, row: Option<Box<Resource>>) -> Result<Form<'_>, ApiError> {
        let Some(other) = row else {
            return Ok(Form { row: None, object: Cow::Borrowed(&*self.object), old: Cow::Borrowed(&*self.old) });
        };
        let row = &self.call.row;
        Ok(Form {
            object: Cow::Owned(converted(self.call, row, &other, &self.object).await?),
            old: Cow::Owned(converted(self.call, row, &other, &self.old).await?),
            row: Some(other),
        })
    }

    /// The write as rules and expressions see it, of a version and with the objects in that.
    fn attempt<'b>(&'b self, row: &'b Resource, object: &'b Value, old: &'b Value) -> Attempt<'b> {
        Attempt {
            operation: self.operation,
            group: row.group,
            version: row.version,
            resource: row.plural,
            subresource: &self.call.request.subresource,
            name: self.name,
            namespace: &self.namespace,
            object,
            old,
            request: &self.request,
            authorizer: &Nobody,
        }
    }

    async fn other_versions(&self) -> Result<Vec<Resource>, ApiError> {
        let row = &self.call.row;
        if row.custom.is_some() {
            let snapshot = self.call.server.kinds().await?;
            return Ok(snapshot.versions_of(row).map(|other| Resource::clone(other)).collect());
        }
        Ok(resources::all().iter().filter(|other| is_same(row, other)).map(|other| Resource::clone(other)).collect())
    }
}

/// How the number of replicas is read and written that a request is about: whoever is asked sees a Scale.
pub(super) fn scale_of(call: &Call, subject: Option<Subject>) -> Option<&Scale> {
    call.row.scale.as_ref().filter(|_| call.request.subresource == "scale" && subject.is_none())
}

/// The options of the request, as an object.
fn options(call: &Call, operation: &str, dry: bool) -> Value {
    let kind = match (operation, call.request.verb.as_str()) {
        ("CONNECT", _) => return Value::Null,
        (_, "patch") => "PatchOptions",
        ("CREATE", _) => "CreateOptions",
        ("DELETE", _) => "DeleteOptions",
        _ => "UpdateOptions",
    };
    let mut options = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
    if dry {
        options["dryRun"] = json!(["All"]);
    }
    for field in ["fieldManager", "fieldValidation"] {
        if let Some(value) = call.query.get(field) {
            options[field] = json!(value);
        }
    }
    options
}

/// Whether two rows are versions of one kind.
fn is_same(row: &Resource, other: &Resource) -> bool {
    let of = |row: &Resource| (row.stored().group, row.stored().version, row.stored().plural);
    (row.group, row.version) != (other.group, other.version) && of(row) == of(other)
}

/// An object of a row as one of another version.
pub(super) async fn converted(
    call: &Call,
    row: &Resource,
    other: &Resource,
    object: &Value,
) -> Result<Value, ApiError> {
    if object.is_null() {
        return Ok(Value::Null);
    }
    if row.is_converted_elsewhere() {
        return call.server.converted_to(row, object, &other.api_version()).await;
    }
    Ok(other.of_stored(row.to_stored(object).into_owned()))
}

/// What is written of an object.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) call: &'a Call,
    pub(super) subject: Option<Subject>,
    /// The object as it is to be so far.
    pub(super) object: &'a Value,
    /// As it is, if it is not new.
    pub(super) old: Option<&'a Value>,
    pub(super) dry: bool,
}

impl<'a> Target<'a> {
    pub(super) async fn write(&self) -> Result<Write<'a>, ApiError> {
        Write::new(self.call, self.subject, Some(self.object), self.old, self.dry).await
    }

    /// The kind of what those who are asked see, in a version.
    pub(super) fn kind<'k>(&self, form: &'k Form<'_>) -> Kind<'k>
    where
        'a: 'k,
    {
        match (self.subject, scale_of(self.call, self.subject), form.row.as_deref()) {
            (Some(subject), ..) => subject.kind,
            (_, Some(_), _) => Kind::of(&api::resources::scale::ROW),
            (_, _, other) => Kind::of(other.unwrap_or(&self.call.row)),
        }
    }

    /// The object as it is after somebody has changed a form of it, if that changes anything.
    pub(super) async fn changed(&self, form: &Form<'_>, patched: Value) -> Result<Option<Value>, ApiError> {
        let (call, row) = (self.call, &self.call.row);
        if let Some(scale) = scale_of(call, self.subject) {
            let mut new = self.object.clone();
            scale.write(&mut new, &patched);
            keep(&mut new, self.object, true);
            return Ok((new != *self.object).then_some(new));
        }
        let patched = match &form.row {
            Some(other) => converted(call, other, row, &patched).await?,
            None => patched,
        };
        let kind = self.subject.map_or_else(|| Kind::of(row), |subject| subject.kind);
        let mut new = body::conform(patched, Vec::new(), kind, FieldValidation::Ignore)?.object;
        keep(&mut new, self.object, self.old.is_some());
        Ok((new != *self.object).then_some(new))
    }
}

/// Puts back what nobody who is asked changes.
fn keep(new: &mut Value, before: &Value, is_update: bool) {
    let name = is_update.then_some("name");
    let metadata = metadata_mut(new);
    for field in FIXED.into_iter().chain(name) {
        match &before["metadata"][field] {
            Value::Null => drop(metadata.remove(field)),
            value => drop(metadata.insert(field.to_owned(), value.clone())),
        }
    }
}

impl Form<'_> {
    pub(super) fn attempt<'b>(&'b self, write: &'b Write<'_>) -> Attempt<'b> {
        write.attempt(self.row.as_deref().unwrap_or(&write.call.row), &self.object, &self.old)
    }
}
