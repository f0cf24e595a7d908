//! Webhooks: servers of the cluster's users that are asked about writes, and may change what is written.
//!
//! After `k8s.io/apiserver/pkg/admission/plugin/webhook`. Those that may change something are asked one after another, in
//! the order of their configurations' names, and some once more if another has changed something since; the others are
//! asked all at once. [`review`] says what they are sent and what their answers mean, and is pure.
//! Audit annotations are ignored, as no audit log is kept. Invariant: no lock of the server is held while one is asked.

mod review;

use std::sync::Arc;

use api::patch::{self, PatchType};
use api::resources::admission::policy::{self, Attempt, Programs};
use api::status::ApiError;
use futures_util::future::join_all;
use serde_json::{Value, json};

use self::review::{Answer, Review};
use super::attempt::{Form, Subject, Target, Write};
use super::rights::Rights;
use crate::authz::rbac::Policy as Roles;
use crate::call::Call;
use crate::webhook::Reach;

/// One webhook.
pub(super) struct Hook {
    /// Which webhook of which state of its configuration.
    pub(super) id: String,
    hook: Value,
    name: String,
    /// What it is about, in the form in which policies say that.
    constraints: Value,
    programs: Programs,
    /// Whether its conditions ask who may do what.
    asks: bool,
    reach: Reach,
}

impl Hook {
    pub(super) fn new(id: String, hook: &Value) -> Self {
        let constraints = json!({
            "resourceRules": hook["rules"], "matchPolicy": hook["matchPolicy"],
            "namespaceSelector": hook["namespaceSelector"], "objectSelector": hook["objectSelector"],
        });
        let programs = Programs::of_hook(hook);
        Self {
            id,
            asks: programs.ask_authorizer(),
            name: hook["name"].as_str().unwrap_or_default().to_owned(),
            constraints,
            programs,
            reach: Reach::new(&hook["clientConfig"], hook["timeoutSeconds"].as_u64().unwrap_or(10)),
            hook: hook.clone(),
        }
    }

    fn says(&self, field: &str, word: &str) -> bool {
        self.hook[field] == word
    }

    /// The form of a write that the webhook is asked about, if it is.
    async fn form<'w>(&self, write: &'w Write<'_>) -> Result<Option<Form<'w>>, ApiError> {
        if self.hook["rules"].as_array().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let Some(form) = write.form(&[&self.constraints]).await? else { return Ok(None) };
        let holds = |attempt: &Attempt<'_>| policy::conditions_hold(&self.hook, &self.programs, attempt);
        let asked = |roles: &Roles| {
            let rights = Rights { policy: roles, user: &write.call.user };
            holds(&Attempt { authorizer: &rights, ..form.attempt(write) })
        };
        let held = match self.asks {
            true => write.call.server.ask_policy(asked).await?,
            false => holds(&form.attempt(write)),
        };
        match held {
            Ok(true) => Ok(Some(form)),
            Ok(false) => Ok(None),
            Err(text) => {
                let row = &write.call.row;
                Err(ApiError::forbidden(row.group, row.plural, write.name, &text))
            }
        }
    }

    /// Asks about a write that the webhook concerns; none if it cannot be asked, and that is to be ignored.
    async fn ask(&self, write: &Write<'_>, form: &Form<'_>, mutating: bool) -> Result<Option<Answer>, ApiError> {
        let is_dry = write.request["dryRun"] == true;
        if is_dry && !["None", "NoneOnDryRun"].iter().any(|word| self.says("sideEffects", word)) {
            return Err(ApiError::bad_request(format!("admission webhook {:?} does not support dry run", self.name)));
        }
        let review = Review::new(&self.hook, write, form);
        let answer = match self.reach.post(&write.call.server, &review.document).await {
            Ok(document) => {
                review.read(&document, mutating).map_err(|text| format!("received invalid webhook response: {text}"))
            }
            Err(text) => Err(format!("failed to call webhook: {text}")),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(text) if self.says("failurePolicy", "Ignore") => {
                tracing::warn!(webhook = self.name, error = text, "a webhook could not be asked, which it lets pass");
                return Ok(None);
            }
            Err(text) => return Err(ApiError::internal(format!("failed calling webhook {:?}: {text}", self.name))),
        };
        answer.warnings.iter().for_each(|warning| write.call.warn(warning.clone()));
        if answer.allowed { Ok(Some(answer)) } else { Err(review::refusal(&self.name, &answer.status)) }
    }

    /// Lets the webhook change an object: whether it was asked, and the changed one, if it does.
    async fn change(&self, target: &Target<'_>) -> Result<(bool, Option<Value>), ApiError> {
        let write = target.write().await?;
        let Some(form) = self.form(&write).await? else { return Ok((false, None)) };
        let patch = self.ask(&write, &form, true).await?.map(|answer| answer.patch).unwrap_or_default();
        if patch.is_empty() {
            return Ok((true, None));
        }
        let patched = patch::apply(PatchType::Json, None, &form.object, &patch);
        let patched = patched.map_err(|error| ApiError::internal(error.message))?;
        let new = target.changed(&form, patched).await.map_err(|error| ApiError::internal(error.message))?;
        Ok((true, new))
    }
}

/// The webhooks that have been asked and may be asked once more, and what they have left.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) changed: bool,
    /// Each with whether something was changed after it.
    hooks: Vec<(Arc<Hook>, bool)>,
    /// The object after the last, if there is one of these.
    output: Option<Value>,
}

/// Lets webhooks change a new object or the next state of one.
pub(super) async fn mutate(
    call: &Call,
    subject: Option<Subject>,
    hooks: &[Arc<Hook>],
    object: &mut Value,
    old: Option<&Value>,
    dry: bool,
) -> Result<Asked, ApiError> {
    let mut asked = Asked::default();
    for hook in hooks {
        let (was_asked, new) = hook.change(&Target { call, subject, object, old, dry }).await?;
        if let Some(new) = new {
            (*object, asked.changed) = (new, true);
            asked.hooks.iter_mut().for_each(|(_, again)| *again = true);
        }
        if was_asked && hook.says("reinvocationPolicy", "IfNeeded") {
            asked.hooks.push((Arc::clone(hook), false));
        }
    }
    asked.output = (!asked.hooks.is_empty()).then(|| object.clone());
    Ok(asked)
}

impl Asked {
    /// Asks those once more for whom something has changed; nobody a third time.
    pub(super) async fn again(
        self,
        call: &Call,
        subject: Option<Subject>,
        object: &mut Value,
        old: Option<&Value>,
        dry: bool,
    ) -> Result<(), ApiError> {
        let is_other = self.output.is_some_and(|output| output != *object);
        for (hook, _) in self.hooks.iter().filter(|(_, again)| *again || is_other) {
            if let (_, Some(new)) = hook.change(&Target { call, subject, object, old, dry }).await? {
                *object = new;
            }
        }
        Ok(())
    }
}

/// Asks those about the end of an object that may change others.
pub(super) async fn mutate_end(hooks: &[Arc<Hook>], write: &Write<'_>) -> Result<(), ApiError> {
    for hook in hooks {
        let Some(form) = hook.form(write).await? else { continue };
        let answer = hook.ask(write, &form, true).await?;
        if answer.is_some_and(|answer| !answer.patch.is_empty()) {
            let name = &hook.name;
            return Err(ApiError::internal(format!(
                "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
            )));
        }
    }
    Ok(())
}

/// Asks those who only say yes or no, all at once; of several that say no, the first is heard.
pub(super) async fn validate(hooks: &[Arc<Hook>], write: &Write<'_>) -> Result<(), ApiError> {
    let one = async |hook: &Arc<Hook>| match hook.form(write).await? {
        Some(form) => hook.ask(write, &form, false).await.map(drop),
        None => Ok(()),
    };
    join_all(hooks.iter().map(one)).await.into_iter().collect()
}
