//! ValidatingAdmissionPolicies: which writes they are about, and what they say of one.
//!
//! After `k8s.io/apiserver/pkg/admission/plugin/policy/{matching,validating}` and `…/plugin/webhook/predicates/rules`. Pure
//! and bounded: all expressions of one policy pay from one budget. Webhooks are matched in the same way, and have
//! conditions too. Expressions are compiled once ([`Programs`]).

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::mutation;
use crate::cel::authorizer::{Access, Authorize, Question};
use crate::cel::{Budget, Program, Scope, Val, Wanted};
use crate::resources::path::{items, text};
use crate::selector::LabelSelector;

/// What the expressions of one policy may cost for one write (`RuntimeCELCostBudget`).
const STEPS: u64 = 10_000_000;
/// Most bytes of a message that an expression makes.
const MAX_MESSAGE: usize = 5 * 1024;
const VARIABLES: [&str; 7] = ["object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer"];
/// What the conditions of a webhook may name.
const OF_HOOKS: [&str; 4] = ["object", "oldObject", "request", "authorizer"];

/// Somebody wants to write something.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'a str,
    /// API group of the path.
    pub group: &'a str,
    /// Its version; empty for one that is as good as any other.
    pub version: &'a str,
    /// The plural.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// The Namespace that the object is in, null for objects of the cluster.
    pub namespace: &'a Value,
    /// The object as it will be, null if it is to go.
    pub object: &'a Value,
    /// As it is, null if it is new.
    pub old: &'a Value,
    /// What else is known of the request.
    pub request: &'a Value,
    /// Knows who may do what.
    pub authorizer: &'a dyn Authorize,
}

/// Why a write is not to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What its author is told.
    pub message: String,
    /// The word of the Status; empty for the usual one.
    pub reason: String,
}

/// Whether what a policy or a binding says of matching resources is about a write.
pub fn concerns(constraints: &Value, attempt: &Attempt<'_>) -> bool {
    let any = |field: &str| items(constraints, field).iter().any(|rule| is_ruled(rule, attempt));
    (items(constraints, "resourceRules").is_empty() || any("resourceRules"))
        && !any("excludeResourceRules")
        && in_namespaces(&constraints["namespaceSelector"], attempt)
        && is_selected(&constraints["objectSelector"], &[attempt.object, attempt.old])
}

fn is_ruled(rule: &Value, attempt: &Attempt<'_>) -> bool {
    let has = |field: &str, word: &str| items(rule, field).iter().any(|own| own == "*" || own == word);
    let (names, is_namespace) = (items(rule, "resourceNames"), is_namespace(attempt));
    let in_scope = match text(rule, "scope") {
        "Namespaced" => !attempt.namespace.is_null() && !is_namespace,
        "Cluster" => attempt.namespace.is_null() || is_namespace,
        _ => true,
    };
    let is_resource = |word: &Value| {
        let word = word.as_str().unwrap_or_default();
        let (resource, sub) = word.split_once('/').unwrap_or((word, ""));
        (resource == "*" || resource == attempt.resource) && (sub == "*" || sub == attempt.subresource)
    };
    in_scope
        && has("operations", attempt.operation)
        && has("apiGroups", attempt.group)
        && (attempt.version.is_empty() || has("apiVersions", attempt.version))
        && items(rule, "resources").iter().any(is_resource)
        && (names.is_empty() || names.iter().any(|name| name == attempt.name))
}

fn is_namespace(attempt: &Attempt<'_>) -> bool {
    attempt.group.is_empty() && attempt.resource == "namespaces"
}

fn in_namespaces(selector: &Value, attempt: &Attempt<'_>) -> bool {
    let of_namespace = if attempt.object.is_null() { attempt.old } else { attempt.object };
    match is_namespace(attempt) {
        true => is_selected(selector, &[of_namespace]),
        false => attempt.namespace.is_null() || is_selected(selector, &[attempt.namespace]),
    }
}

/// Whether one of these has the labels; a selector that says nothing asks for none.
fn is_selected(selector: &Value, objects: &[&Value]) -> bool {
    let is_empty = selector.as_object().is_none_or(serde_json::Map::is_empty);
    let matches = |selector: &LabelSelector, object: &Value| {
        !object.is_null() && selector.matches(object["metadata"]["labels"].as_object())
    };
    // One that cannot be read was refused when it was written.
    is_empty
        || LabelSelector::from_object(selector)
            .is_ok_and(|selector| objects.iter().any(|object| matches(&selector, object)))
}

/// An expression of a policy, or a sentence why it cannot be evaluated.
pub fn compile(expression: &str) -> Result<Program, String> {
    Program::compile(expression, &scope(false))
}

/// Why an expression of a policy is none whose value is of this kind.
pub fn compile_for(expression: &str, wanted: Wanted) -> Result<Program, String> {
    Program::compile_for(expression, &scope(matches!(wanted, Wanted::Configuration | Wanted::Operations)), wanted)
}

fn scope(patches: bool) -> Scope<'static> {
    Scope { variables: VARIABLES.map(|name| (name, None)).into(), patches }
}

/// Why an expression of a webhook's condition cannot be evaluated; a sentence.
pub fn compile_of_hook(expression: &str) -> Result<Program, String> {
    Program::compile(expression, &Scope { variables: OF_HOOKS.map(|name| (name, None)).into(), ..Scope::default() })
}

/// The expressions of a policy or of a webhook, compiled.
#[derive(Debug, Default)]
pub struct Programs(HashMap<String, Result<Program, String>>);

impl Programs {
    /// Those of a policy.
    pub fn of_policy(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let fields = [
            ("matchConditions", "expression"),
            ("variables", "expression"),
            ("validations", "expression"),
            ("validations", "messageExpression"),
        ];
        let own = |(list, word)| items(spec, list).iter().map(move |parent| text(parent, word));
        Self(fields.into_iter().flat_map(own).map(|own| (own.to_owned(), compile(own))).collect())
    }

    /// Those of a policy that changes what is written.
    pub fn of_mutations(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let plain = ["matchConditions", "variables"].into_iter().flat_map(|list| items(spec, list));
        let plain = plain.map(|parent| text(parent, "expression")).map(|own| (own.to_owned(), compile(own)));
        let patches = items(spec, "mutations").iter().map(mutation::expression);
        let patches = patches.map(|(own, _)| (own.to_owned(), Program::compile(own, &scope(true))));
        Self(plain.chain(patches).collect())
    }

    /// Whether one of them asks who may do what.
    pub fn ask_authorizer(&self) -> bool {
        self.0.values().flatten().any(|program| program.uses("authorizer"))
    }

    /// Those of a webhook.
    pub fn of_hook(hook: &Value) -> Self {
        let own = items(hook, "matchConditions").iter().map(|condition| text(condition, "expression"));
        Self(own.map(|own| (own.to_owned(), compile_of_hook(own))).collect())
    }
}

/// Whether the conditions of a webhook hold.
///
/// # Errors
/// A sentence if one cannot be evaluated, none of the others fails, and the webhook does not ignore that.
pub fn conditions_hold(hook: &Value, programs: &Programs, attempt: &Attempt<'_>) -> Result<bool, String> {
    Court::new(programs, &Value::Null, attempt).conditions_hold(hook)
}

/// What a policy that is about a write says of it: nothing, or why it is not to be.
pub fn judge(policy: &Value, programs: &Programs, params: &Value, attempt: &Attempt<'_>) -> Vec<Failure> {
    let spec = &policy["spec"];
    let ignores_errors = text(spec, "failurePolicy") == "Ignore";
    let mut court = Court::new(programs, params, attempt);
    match court.conditions_hold(spec) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(message) => return vec![Failure { message, reason: String::new() }],
    }
    court.define_all(spec);
    let mut failures = Vec::new();
    for validation in items(spec, "validations") {
        match court.holds(text(validation, "expression")) {
            Ok(true) => {}
            Ok(false) => {
                let reason = text(validation, "reason").to_owned();
                failures.push(Failure { message: court.message(validation), reason });
            }
            Err(_) if ignores_errors => {}
            Err(message) => failures.push(Failure { message, reason: String::new() }),
        }
    }
    failures
}

/// What a request is about, for those who ask whether somebody may do something there.
fn own_question(attempt: &Attempt<'_>) -> Question {
    Question {
        group: attempt.group.to_owned(),
        resource: attempt.resource.to_owned(),
        subresource: attempt.subresource.to_owned(),
        namespace: text(&attempt.namespace["metadata"], "name").to_owned(),
        name: attempt.name.to_owned(),
        ..Question::default()
    }
}

/// Evaluates the expressions of one policy.
pub(super) struct Court<'p, 'v> {
    programs: &'p Programs,
    values: Vec<(&'static str, Val<'v>)>,
    variables: Vec<(Val<'v>, Val<'v>)>,
    budget: Budget,
}

impl<'p, 'v> Court<'p, 'v> {
    pub(super) fn new(programs: &'p Programs, params: &'v Value, attempt: &Attempt<'v>) -> Self {
        let values = [attempt.object, attempt.old, attempt.request, params, attempt.namespace];
        let values = VARIABLES.into_iter().zip(values).map(|(name, value)| (name, Val::of(value, None))).collect();
        let mut court = Self { programs, values, variables: Vec::new(), budget: Budget::new(STEPS) };
        let access = Access::new(attempt.authorizer, own_question(attempt));
        court.values.push(("authorizer", Val::Access(Rc::new(access))));
        // The last, as it grows.
        court.values.push(("variables", Val::Map(Rc::default())));
        court
    }

    pub(super) fn eval(&mut self, expression: &str) -> Result<Val<'v>, String> {
        let said = |error: String| format!("expression '{}' resulted in error: {error}", expression.trim());
        let program = self.programs.0.get(expression).ok_or_else(|| said("it was not compiled".to_owned()))?;
        let program = program.as_ref().map_err(|error| said(format!("compilation failed: {error}")))?;
        program.eval(&self.values, &mut self.budget).map_err(|error| said(error.to_string()))
    }

    fn holds(&mut self, expression: &str) -> Result<bool, String> {
        match self.eval(expression)? {
            Val::Bool(truth) => Ok(truth),
            _ => Err(format!("expression '{}' resulted in error: it is neither true nor false", expression.trim())),
        }
    }

    /// Whether all conditions hold; one that fails weighs more than one that cannot be evaluated.
    pub(super) fn conditions_hold(&mut self, parent: &Value) -> Result<bool, String> {
        let mut first = None;
        for condition in items(parent, "matchConditions") {
            match self.holds(text(condition, "expression")) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        match first {
            None => Ok(true),
            Some(_) if text(parent, "failurePolicy") == "Ignore" => Ok(false),
            Some(error) => Err(error),
        }
    }

    pub(super) fn define_all(&mut self, spec: &Value) {
        for variable in items(spec, "variables") {
            self.define(text(variable, "name"), text(variable, "expression"));
        }
    }

    /// A variable without a value is missed by those who use it only.
    fn define(&mut self, name: &str, expression: &str) {
        let Ok(value) = self.eval(expression) else { return };
        self.variables.push((Val::Text(name.into()), value));
        if let Some(variables) = self.values.last_mut() {
            variables.1 = Val::Map(Rc::new(self.variables.clone()));
        }
    }

    fn message(&mut self, validation: &Value) -> String {
        let (made, fixed) = (text(validation, "messageExpression"), text(validation, "message").trim());
        let made = if made.is_empty() { None } else { self.eval(made).ok() };
        let made = made.as_ref().and_then(Val::as_text).map(str::trim);
        match made.filter(|made| !made.is_empty() && !made.contains('\n') && made.len() <= MAX_MESSAGE) {
            Some(made) => made.to_owned(),
            None if !fixed.is_empty() => fixed.to_owned(),
            None => format!("failed expression: {}", text(validation, "expression").trim()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cel::authorizer::{Decision, Nobody};

    const NULL: Value = Value::Null;

    fn said(spec: Value, object: &Value) -> Vec<String> {
        let attempt = Attempt {
            operation: "CREATE",
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "",
            name: "p",
            namespace: &NULL,
            object,
            old: &NULL,
            request: &NULL,
            authorizer: &Nobody,
        };
        let params = json!({ "most": 3 });
        let policy = json!({ "spec": spec });
        let failures = judge(&policy, &Programs::of_policy(&policy), &params, &attempt);
        failures.into_iter().map(|failure| format!("{}{}", failure.reason, failure.message)).collect()
    }

    #[test]
    fn what_does_not_hold_is_told_in_the_policys_words() {
        let object = json!({ "spec": { "replicas": 5, "image": "evil/x" } });
        let validation = |validation: Value| said(json!({ "validations": [validation] }), &object);
        let wrong = "object.spec.replicas <= params.most";
        assert_eq!(validation(json!({ "expression": " object.spec.replicas == 5" })), [""; 0]);
        assert_eq!(validation(json!({ "expression": wrong })), [format!("failed expression: {wrong}")]);
        assert_eq!(validation(json!({ "expression": wrong, "message": "no" })), ["no"]);
        let made =
            json!({ "expression": wrong, "message": "no", "messageExpression": "'at most ' + string(params.most)" });
        assert_eq!(validation(made), ["at most 3"]);
        let broken = json!({ "expression": wrong, "message": "no", "messageExpression": "object.none" });
        assert_eq!(validation(broken), ["no"]);
        assert_eq!(validation(json!({ "expression": wrong, "message": "no", "reason": "Forbidden" })), ["Forbiddenno"]);
    }

    #[test]
    fn errors_count_as_the_policy_says() {
        let spec =
            |policy: &str| json!({ "failurePolicy": policy, "validations": [{ "expression": "object.none == 1" }] });
        let told = said(spec("Fail"), &json!({}));
        assert!(told[0].starts_with("expression 'object.none == 1' resulted in error: "), "{told:?}");
        assert_eq!(said(spec("Ignore"), &json!({})), [""; 0]);
        let condition = |policy: &str, expression: &str| {
            let conditions = json!([{ "name": "a", "expression": expression }]);
            let validations = json!([{ "expression": "false" }]);
            said(
                json!({ "failurePolicy": policy, "matchConditions": conditions, "validations": validations }),
                &json!({}),
            )
        };
        assert_eq!(condition("Fail", "false"), [""; 0]);
        assert_eq!(condition("Fail", "true"), ["failed expression: false"]);
        assert_eq!(condition("Ignore", "object.none"), [""; 0]);
        assert!(condition("Fail", "object.none")[0].contains("resulted in error"));
        assert!(compile("authorized.group('').check('get').allowed()").is_err());
    }

    #[test]
    fn variables_build_on_each_other_and_one_without_a_value_hurts_its_users_only() {
        let variables = json!([
            { "name": "two", "expression": "object.one + 1" }, { "name": "broken", "expression": "object.none" },
            { "name": "four", "expression": "variables.two * 2" },
        ]);
        let check = |expression: &str| {
            let validations = json!([{ "expression": expression }]);
            said(json!({ "variables": variables, "validations": validations }), &json!({ "one": 1 }))
        };
        assert_eq!(check("variables.four == 4"), [""; 0]);
        assert!(check("variables.broken == 4")[0].contains("resulted in error"));
    }

    #[test]
    fn rules_scopes_and_selectors_say_which_writes() {
        let object = json!({ "metadata": { "labels": { "a": "b" } } });
        let namespace = json!({ "metadata": { "name": "n", "labels": { "team": "x" } } });
        let attempt = Attempt {
            operation: "UPDATE",
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource: "status",
            name: "d",
            namespace: &namespace,
            object: &NULL,
            old: &object,
            request: &NULL,
            authorizer: &Nobody,
        };
        let rule = |resources: &[&str], change: Value| {
            let mut rule = json!({
                "operations": ["CREATE", "UPDATE"], "apiGroups": ["apps"], "apiVersions": ["*"], "resources": resources,
            });
            change.as_object().unwrap().iter().for_each(|(key, value)| rule[key] = value.clone());
            rule
        };
        let ruled = |resources: &[&str], change: Value| {
            concerns(&json!({ "resourceRules": [rule(resources, change)] }), &attempt)
        };
        for resources in [&["deployments/status"][..], &["*/*"], &["deployments/*"], &["*/status"], &["x", "*/status"]]
        {
            assert!(ruled(resources, json!({})), "{resources:?}");
        }
        assert!(!ruled(&["deployments"], json!({})) && !ruled(&["*"], json!({})));
        let all = &["*/*"][..];
        assert!(ruled(all, json!({ "scope": "Namespaced" })) && !ruled(all, json!({ "scope": "Cluster" })));
        assert!(ruled(all, json!({ "resourceNames": ["d"] })) && !ruled(all, json!({ "resourceNames": ["e"] })));
        assert!(!ruled(all, json!({ "operations": ["DELETE"] })) && !ruled(all, json!({ "apiGroups": [""] })));
        assert!(!ruled(all, json!({ "apiVersions": ["v2"] })));
        let excluded = json!({ "excludeResourceRules": [rule(all, json!({}))] });
        assert!(!concerns(&excluded, &attempt) && concerns(&json!({}), &attempt));
        let labels = |field: &str, key: &str, value: &str| {
            concerns(&json!({ (field): { "matchLabels": { (key): value } } }), &attempt)
        };
        assert!(labels("objectSelector", "a", "b") && !labels("objectSelector", "a", "c"));
        assert!(labels("namespaceSelector", "team", "x") && !labels("namespaceSelector", "team", "y"));
    }

    /// Permits what it is told to, and says what it was asked.
    #[derive(Debug)]
    struct Permits(&'static str);

    impl Authorize for Permits {
        fn ask(&self, question: &Question) -> Decision {
            let Question { account, path, group, resource, subresource, namespace, name, verb } = question;
            let asked = match path {
                Some(path) => format!("{verb} {path}"),
                None => format!("{verb} {group}/{resource}/{subresource} {namespace}/{name}"),
            };
            let who = account.as_ref().map(|(namespace, name)| format!("{namespace}:{name} ")).unwrap_or_default();
            Decision { allowed: self.0 == verb, reason: who + &asked, error: String::new() }
        }
    }

    #[test]
    fn expressions_may_ask_who_may_do_what() {
        let namespace = json!({ "metadata": { "name": "n" } });
        let attempt = Attempt {
            operation: "CREATE",
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource: "",
            name: "d",
            namespace: &namespace,
            object: &NULL,
            old: &NULL,
            request: &NULL,
            authorizer: &Permits("get"),
        };
        let reason = |expression: &str| {
            let validations =
                json!([{ "expression": "false", "messageExpression": expression, "message": "no message" }]);
            let policy = json!({ "spec": { "validations": validations } });
            judge(&policy, &Programs::of_policy(&policy), &NULL, &attempt)[0].message.clone()
        };
        let cases = [
            ("authorizer.path('/healthz').check('get').reason()", "get /healthz"),
            ("authorizer.group('').resource('pods').check('list').reason()", "list /pods/ /"),
            (
                "authorizer.group('apps').resource('x').subresource('s').namespace('m').name('o').check('get').reason()",
                "get apps/x/s m/o",
            ),
            ("authorizer.requestResource.check('escalate').reason()", "escalate apps/deployments/ n/d"),
            (
                "authorizer.serviceAccount('a', 'b').requestResource.check('get').reason()",
                "a:b get apps/deployments/ n/d",
            ),
            (
                "string(authorizer.path('/x').check('get').allowed()) + string(authorizer.path('/x').check('put').allowed())",
                "truefalse",
            ),
            ("string(authorizer.path('/x').check('get').errored())", "false"),
            ("authorizer.resource('pods').check('get').reason()", "no message"),
            ("authorizer.serviceAccount('A', 'b').path('/x').check('get').reason()", "no message"),
        ];
        for (expression, expected) in cases {
            assert_eq!(reason(expression), expected, "{expression}");
        }
        assert!(compile("object.spec.allowed(1)").is_err());
        assert!(
            Program::compile("self.allowed()", &Scope { variables: vec![("self", None)], ..Scope::default() }).is_err()
        );
        // Each question has its price.
        let many = "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30].map(i, authorizer.path('/x').check('get').reason())[0]";
        assert_eq!(reason(many), "no message");
    }
}
