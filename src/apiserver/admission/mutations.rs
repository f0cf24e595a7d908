//! MutatingAdmissionPolicies: whose expressions change what is written.
//!
//! After `k8s.io/apiserver/pkg/admission/plugin/policy/{generic,mutating}`: which policies, bindings and settings are about
//! a write is decided by the object as it comes; then each changes what those before it have left, in the order of names.
//! What an expression makes is looked at in `api`; here it is brought into the object. Nothing that goes is changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::managed::{self, BuiltIn, Kind as _, RowKind};
use api::patch;
use api::resources::Resource;
use api::resources::admission::mutation::{self, Change};
use api::resources::admission::policy::Attempt;
use api::resources::scale;
use api::schema;
use api::status::{ApiError, Cause};
use serde_json::Value;

use super::attempt::{Form, Subject, Target, Write, scale_of};
use super::policies::params;
use super::registered::{Policy, Registered};
use super::rights::Rights;
use crate::authz::rbac::Policy as Roles;
use crate::body::{self, FieldValidation};
use crate::call::Call;
use crate::object::meta;

/// A policy as one of its bindings asks it with some settings: the names of all three.
pub(super) type Key = (String, String, String);

/// What policies have done.
#[derive(Default)]
pub(super) struct Done {
    pub(super) changed: bool,
    /// Who wants to be asked once more if somebody changes something.
    pub(super) again: BTreeSet<Key>,
}

/// A policy that is about a write.
struct Invocation {
    key: Key,
    policy: Arc<Policy>,
    params: Value,
    /// The version that it is about, if that is not the one of the request.
    row: Option<Box<Resource>>,
}

/// Why a policy could not do what it wants; each is told, unless it lets that pass.
struct Failure {
    message: String,
    reason: &'static str,
}

/// Lets policies change an object: all of them, or only some.
pub(super) async fn mutate(
    call: &Call,
    subject: Option<Subject>,
    registered: &Registered,
    object: &mut Value,
    old: Option<&Value>,
    dry: bool,
    only: Option<&BTreeSet<Key>>,
) -> Result<Done, ApiError> {
    let mut done = Done::default();
    if registered.mutations.is_empty() || registered.mutation_bindings.is_empty() {
        return Ok(done);
    }
    let (invocations, mut failures) =
        invocations(registered, &Target { call, subject, object, old, dry }.write().await?).await?;
    for invocation in invocations.into_iter().filter(|own| only.is_none_or(|only| only.contains(&own.key))) {
        let spec = &invocation.policy.object["spec"];
        match invocation.applies(&Target { call, subject, object, old, dry }).await? {
            Ok(true) => {}
            Ok(false) => continue,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        }
        for mutation in spec["mutations"].as_array().into_iter().flatten() {
            match invocation.change(mutation, &Target { call, subject, object, old, dry }).await? {
                Ok(None) => {}
                Ok(Some(mut new)) => {
                    if subject.is_none() {
                        call.row.fill_defaults(&mut new);
                    }
                    (*object, done.changed) = (new, true);
                }
                Err(_) if spec["failurePolicy"] == "Ignore" => {}
                Err(failure) => failures.push(failure),
            }
        }
        if spec["reinvocationPolicy"] == "IfNeeded" {
            done.again.insert(invocation.key);
        }
    }
    if failures.is_empty() { Ok(done) } else { Err(refused(call, meta(object, "name"), failures)) }
}

/// All policies that are about a write, with their settings.
async fn invocations(registered: &Registered, write: &Write<'_>) -> Result<(Vec<Invocation>, Vec<Failure>), ApiError> {
    let (mut invocations, mut failures) = (Vec::new(), Vec::new());
    for policy in &registered.mutations {
        let name = meta(&policy.object, "name");
        let constraints = &policy.object["spec"]["matchConstraints"];
        for binding in registered.mutation_bindings.iter().filter(|binding| binding["spec"]["policyName"] == name) {
            let Some(form) = write.form(&[constraints, &binding["spec"]["matchResources"]]).await? else { continue };
            for params in params(write.call, &policy.object, binding).await? {
                let by = meta(binding, "name");
                match params {
                    Ok(params) => invocations.push(Invocation {
                        key: (
                            name.to_owned(),
                            by.to_owned(),
                            format!("{}/{}", meta(&params, "namespace"), meta(&params, "name")),
                        ),
                        policy: Arc::clone(policy),
                        params,
                        row: form.row.clone(),
                    }),
                    Err(failure) => failures.extend(
                        failure.map(|failure| Failure { message: denied(name, by, &failure.message), reason: "" }),
                    ),
                }
            }
        }
    }
    Ok((invocations, failures))
}

fn denied(policy: &str, binding: &str, why: &str) -> String {
    format!("policy '{policy}' with binding '{binding}' denied request: {why}")
}

/// The answer to a write with which not all policies could do what they want.
fn refused(call: &Call, name: &str, failures: Vec<Failure>) -> ApiError {
    let mut error = ApiError::forbidden(call.row.group, call.row.plural, name, "admission request denied by policy");
    let first = failures.first();
    if let Some(Failure { message, reason }) = first {
        error.message.clone_from(message);
        if !reason.is_empty() {
            (*reason).clone_into(&mut error.reason);
        }
    }
    if let Some(details) = &mut error.details {
        let cause = |failure: Failure| Cause { reason: String::new(), message: failure.message, field: String::new() };
        details.causes.extend(failures.into_iter().map(cause));
    }
    error
}

impl Invocation {
    fn failure(&self, why: &str) -> Failure {
        let (policy, binding, _) = &self.key;
        Failure { message: denied(policy, binding, why), reason: "Invalid" }
    }

    /// What one of the policy's expressions says, which may ask who may do what.
    async fn asked<T>(
        &self,
        target: &Target<'_>,
        attempt: &Attempt<'_>,
        says: impl Fn(&Attempt<'_>) -> T,
    ) -> Result<T, ApiError> {
        if !self.policy.asks {
            return Ok(says(attempt));
        }
        let asked = |roles: &Roles| {
            let rights = Rights { policy: roles, user: &target.call.user };
            says(&Attempt { authorizer: &rights, ..*attempt })
        };
        target.call.server.ask_policy(asked).await
    }

    async fn applies(&self, target: &Target<'_>) -> Result<Result<bool, Failure>, ApiError> {
        let write = target.write().await?;
        let form = write.form_in(self.row.clone()).await?;
        let Policy { object, programs, .. } = &*self.policy;
        let holds = |attempt: &Attempt<'_>| mutation::conditions_hold(object, programs, &self.params, attempt);
        let held = self.asked(target, &form.attempt(&write), holds).await?;
        Ok(held.map_err(|why| self.failure(&why)))
    }

    /// The object as a mutation wants it, if that is another.
    async fn change(&self, mutation: &Value, target: &Target<'_>) -> Result<Result<Option<Value>, Failure>, ApiError> {
        let write = target.write().await?;
        let form = write.form_in(self.row.clone()).await?;
        let Policy { object, programs, .. } = &*self.policy;
        let made = |attempt: &Attempt<'_>| mutation::change(object, mutation, programs, &self.params, attempt);
        let patched = match self.asked(target, &form.attempt(&write), made).await? {
            Ok(Change::Configuration(configuration)) => laid_over(target, &form, configuration),
            Ok(Change::Operations(operations)) => match patched(target, &form, operations)? {
                Ok(None) => return Ok(Ok(None)),
                Ok(Some(patched)) => Ok(patched),
                Err(why) => Err(why),
            },
            Err(why) => Err(why),
        };
        let patched = match patched {
            Ok(patched) => patched,
            Err(why) => return Ok(Err(self.failure(&why))),
        };
        Ok(target.changed(&form, patched).await.map_err(|error| self.failure(&error.message)))
    }
}

/// An object with a configuration laid over it, as its type says.
fn laid_over(target: &Target<'_>, form: &Form<'_>, mut configuration: Value) -> Result<Value, String> {
    if let Some(fields) = configuration.as_object_mut() {
        // They are those of the object, whatever the expression says.
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    let call = target.call;
    let laid = match (target.subject, scale_of(call, target.subject)) {
        (Some(subject), _) => {
            let kind = subject.kind;
            let ty = schema::lookup(kind.group, kind.version, kind.kind);
            let ty = ty.ok_or_else(|| format!("error applying patch: no type of kind {} is known", kind.kind))?;
            managed::overlay(BuiltIn::of(ty), &form.object, &configuration)
        }
        (_, scale) => {
            let row = if scale.is_some() { &scale::ROW } else { form.row.as_deref().unwrap_or(&call.row) };
            let kind = RowKind::new(row, "");
            let layout = kind.layout(&row.api_version()).ok_or_else(|| "the version is not served".to_owned())?;
            managed::overlay(layout, &form.object, &configuration)
        }
    };
    laid.map_err(|why| format!("error applying patch: {why}"))
}

/// A patched object, none if a test of the patch says that there is nothing to do. What no type has, or what is of another
/// type, is refused even if failures are to be ignored, as upstream does.
fn patched(target: &Target<'_>, form: &Form<'_>, operations: Value) -> Result<Result<Option<Value>, String>, ApiError> {
    let patched = match patch::apply_tested(&form.object, operations) {
        Ok(Some(patched)) => patched,
        Ok(None) => return Ok(Ok(None)),
        Err(error) => return Ok(Err(format!("JSONPath: {}", error.message))),
    };
    let kind = target.kind(form);
    let conformed = body::conform(patched, Vec::new(), kind, FieldValidation::Warn);
    let decoded = conformed.map_err(|error| ApiError::internal(error.message))?;
    if kind.custom.is_none() && !decoded.warnings.is_empty() {
        return Err(ApiError::internal(format!("strict decoding error: {}", decoded.warnings.join(", "))));
    }
    Ok(Ok(Some(decoded.object)))
}
