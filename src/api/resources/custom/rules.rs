//! Rules of schemas in CEL (`x-kubernetes-validations`; `pkg/apiserver/schema/cel` of apiextensions).
//!
//! A rule sees the value where it stands as `self`, and what was there before as `oldSelf`, where that can be told: not
//! within lists whose elements have no keys. All rules of one object share a budget.

use serde_json::Value;

use super::schema::{Additional, List, Schema, Type};
use super::validate::correlated;
use crate::cel::{Budget, EvalError, Identity, Program, Scalar, Scope, Shape, Val};
use crate::resources::path::{Path, items, text};
use crate::status::FieldError;

/// Steps that the rules of one object may take together, some tenths of a second.
const STEPS: u64 = 5_000_000;
/// Steps that one rule may take once.
const STEPS_OF_ONE: u64 = 1_000_000;
/// Rules of one place.
const MAX_RULES: usize = 100;
/// No more is told of one object.
const MAX_ERRORS: usize = 100;
/// A message may be no longer.
const MAX_MESSAGE: usize = 2048;

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    text: String,
    /// A rule that this server cannot evaluate refuses everything, as the definition would be refused now.
    program: Result<Program, String>,
    message: Option<String>,
    message_expression: Option<Program>,
    field_path: String,
    reason: String,
    uses_old: bool,
    optional_old: bool,
}

/// The rules of a node, whose schema is otherwise complete.
pub(super) fn read(schema: &Schema, json: &Value) -> Vec<Rule> {
    items(json, "x-kubernetes-validations").iter().map(|rule| read_one(schema, rule)).collect()
}

fn scope<'s>(schema: &'s Schema, optional_old: bool) -> Scope<'s> {
    let old: Option<&dyn Shape> = if optional_old { None } else { Some(schema) };
    Scope { variables: vec![("self", Some(schema)), ("oldSelf", old)], ..Scope::default() }
}

fn read_one(schema: &Schema, json: &Value) -> Rule {
    let optional_old = json["optionalOldSelf"] == true;
    let scope = scope(schema, optional_old);
    let program = Program::compile(text(json, "rule"), &scope);
    let expression = text(json, "messageExpression");
    let message_expression = (!expression.is_empty()).then(|| Program::compile(expression, &scope).ok()).flatten();
    let uses = |program: &Program| program.uses("oldSelf");
    let uses_old = program.as_ref().is_ok_and(uses) || message_expression.as_ref().is_some_and(uses);
    let message = text(json, "message").trim();
    Rule {
        text: text(json, "rule").trim().to_owned(),
        program,
        message: (!message.is_empty()).then(|| message.to_owned()),
        message_expression,
        field_path: text(json, "fieldPath").to_owned(),
        reason: text(json, "reason").to_owned(),
        uses_old,
        optional_old,
    }
}

impl Shape for Schema {
    fn field(&self, name: &str) -> Option<&dyn Shape> {
        Self::field(self, name).map(|schema| schema as &dyn Shape)
    }

    fn is_open(&self) -> bool {
        matches!(self.additional, Additional::Allowed(true))
    }

    fn item(&self) -> Option<&dyn Shape> {
        self.items.as_deref().map(|schema| schema as &dyn Shape)
    }

    fn scalar(&self) -> Scalar {
        match (self.ty, self.format.as_str()) {
            _ if self.int_or_string => Scalar::Any,
            (None, _) => Scalar::Any,
            (Some(Type::Object), _) => Scalar::Object,
            (Some(Type::Array), _) => Scalar::List,
            (Some(Type::Number), _) => Scalar::Double,
            (Some(Type::String), "date" | "date-time" | "datetime") => Scalar::Timestamp,
            (Some(Type::String), "duration") => Scalar::Duration,
            (Some(Type::String), "byte") => Scalar::Bytes,
            _ => Scalar::Plain,
        }
    }

    fn identity(&self) -> Identity<'_> {
        match &self.list {
            List::Atomic => Identity::Place,
            List::Set => Identity::Value,
            List::Map(keys) => Identity::Keys(keys),
        }
    }
}

/// What is wrong with the rules of a schema.
pub(super) fn problems(json: &Value, schema: &Schema, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    problems_of(json, schema, path, None, &mut errors);
    errors
}

fn problems_of(json: &Value, schema: &Schema, path: &Path, loose: Option<&Path>, errors: &mut Vec<FieldError>) {
    let list = path.child("x-kubernetes-validations");
    let rules = items(json, "x-kubernetes-validations");
    if rules.len() > MAX_RULES {
        return errors.push(FieldError::too_many(&list, rules.len(), MAX_RULES));
    }
    for (index, (rule, read)) in rules.iter().zip(&schema.rules).enumerate() {
        problems_of_one(rule, read, schema, &list.index(index), loose, errors);
    }
    for (name, inner) in &schema.properties {
        let path = path.child("properties").key(name);
        problems_of(&json["properties"][name], inner, &path, loose, errors);
    }
    if let Additional::Of(inner) = &schema.additional {
        problems_of(&json["additionalProperties"], inner, &path.child("additionalProperties"), loose, errors);
    }
    if let Some(inner) = &schema.items {
        let loose = if matches!(schema.list, List::Map(_)) { loose } else { loose.or(Some(path)) };
        problems_of(&json["items"], inner, &path.child("items"), loose, errors);
    }
}

fn problems_of_one(
    json: &Value,
    rule: &Rule,
    schema: &Schema,
    path: &Path,
    loose: Option<&Path>,
    errors: &mut Vec<FieldError>,
) {
    const REASONS: [&str; 4] =
        ["FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired", "FieldValueDuplicate"];
    let invalid = |field: &str, detail: &str| FieldError::invalid(path.child(field), &json[field], detail);
    if rule.text.is_empty() {
        errors.push(FieldError::required(path.child("rule"), "rule is not specified"));
        return;
    }
    if let Err(error) = &rule.program {
        errors.push(invalid("rule", &format!("compilation failed: {error}")));
    }
    if let (true, Some(loose)) = (rule.uses_old, loose) {
        let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {loose}");
        errors.push(invalid("rule", &detail));
    }
    if json["message"].is_string() && rule.message.is_none() {
        errors.push(invalid("message", "message must be non-empty if specified"));
    }
    if text(json, "message").trim().contains('\n') {
        errors.push(invalid("message", "message must not contain line breaks"));
    }
    if rule.text.contains('\n') && rule.message.is_none() && rule.message_expression.is_none() {
        errors.push(FieldError::required(
            path.child("message"),
            "message must be specified if rule contains line breaks",
        ));
    }
    let expression = text(json, "messageExpression");
    if json["messageExpression"].is_string() && expression.trim().is_empty() {
        errors.push(FieldError::required(
            path.child("messageExpression"),
            "messageExpression must be non-empty if specified",
        ));
    } else if let (false, Err(error)) =
        (expression.is_empty(), Program::compile(expression, &scope(schema, rule.optional_old)))
    {
        errors.push(invalid("messageExpression", &format!("messageExpression compilation failed: {error}")));
    }
    if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
        errors.push(FieldError::not_supported(path.child("reason"), &json["reason"], &REASONS));
    }
    if !rule.field_path.is_empty() && !leads_somewhere(schema, &rule.field_path) {
        errors.push(invalid("fieldPath", "fieldPath must be a valid path: does not refer to a valid field"));
    }
}

/// Whether a path of fields is one of the schema's.
fn leads_somewhere(schema: &Schema, path: &str) -> bool {
    let read = super::JsonPath::parse(path).ok().filter(|_| path.starts_with(['.', '[']));
    let Some(fields) = read.as_ref().and_then(super::JsonPath::fields) else { return false };
    let mut schema = Some(schema);
    for name in fields {
        schema = schema.and_then(|schema| Schema::field(schema, name));
    }
    schema.is_some()
}

/// What the rules say of an object; `old` is what it replaces.
pub(super) fn check(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut evaluation = Evaluation { budget: STEPS, errors: Vec::new() };
    evaluation.node(schema, new, old, "");
    evaluation.errors
}

struct Evaluation {
    budget: u64,
    errors: Vec<FieldError>,
}

impl Evaluation {
    fn node(&mut self, schema: &Schema, new: &Value, old: Option<&Value>, path: &str) {
        if new.is_null() || !schema.has_rules || self.budget == 0 || self.errors.len() >= MAX_ERRORS {
            return;
        }
        for rule in &schema.rules {
            let settled = old == Some(new) && !rule.uses_old;
            let untold = rule.uses_old && !rule.optional_old && old.is_none();
            if self.budget > 0 && !settled && !untold {
                self.rule(rule, schema, new, old, path);
            }
        }
        match new {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let Some(own) = Schema::field(schema, name) else { continue };
                    let path = match (schema.properties.contains_key(name), path) {
                        (false, _) => format!("{path}[{name}]"),
                        (true, "") => name.clone(),
                        (true, _) => format!("{path}.{name}"),
                    };
                    self.node(own, value, old.and_then(|old| old.get(name)), &path);
                }
            }
            Value::Array(elements) => {
                let Some(own) = schema.items.as_deref() else { return };
                let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                for (index, element) in elements.iter().enumerate() {
                    self.node(own, element, correlated(&schema.list, element, before), &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Schema, new: &Value, old: Option<&Value>, path: &str) {
        let wanted = schema.ty.map_or("", Type::word);
        let invalid = |detail: String| FieldError::invalid(shown(path), &wanted.into(), &detail);
        let program = match &rule.program {
            Ok(program) => program,
            Err(error) => return self.errors.push(invalid(format!("rule compile error: {error}"))),
        };
        let old = old.map(|old| Val::of(old, Some(schema)));
        let old = if rule.optional_old { Some(Val::Optional(old.map(Into::into))) } else { old };
        let mut variables = vec![("self", Val::of(new, Some(schema)))];
        variables.extend(old.map(|old| ("oldSelf", old)));
        let said = || rule.message.clone().unwrap_or_else(|| format!("failed rule: {}", rule.text));
        match self.evaluate(program, &variables) {
            Ok(value) if value.is_true() => {}
            Ok(Val::Bool(_)) => {
                let made = rule.message_expression.as_ref().and_then(|made| self.message(made, &variables));
                let detail = made.unwrap_or_else(said);
                self.errors.push(failed(&rule.reason, &place(path, &rule.field_path), wanted, &detail));
            }
            Ok(_) => {
                self.errors.push(invalid(format!("cel expression must evaluate to a bool evaluating rule: {}", said())))
            }
            Err(EvalError::Budget) => {
                self.budget = 0;
                let detail =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                self.errors.push(invalid(detail.to_owned()));
            }
            Err(EvalError::NoValue(text)) => self.errors.push(invalid(format!("{text} evaluating rule: {}", said()))),
        }
    }

    fn evaluate<'v>(&mut self, program: &Program, variables: &[(&str, Val<'v>)]) -> Result<Val<'v>, EvalError> {
        let steps = self.budget.min(STEPS_OF_ONE);
        let mut budget = Budget::new(steps);
        let result = program.eval(variables, &mut budget);
        self.budget -= steps - budget.left();
        result
    }

    /// The message that an expression makes, if it makes a usable one.
    fn message<'v>(&mut self, program: &Program, variables: &[(&str, Val<'v>)]) -> Option<String> {
        let made = self.evaluate(program, variables).ok()?;
        let text = made.as_text()?.trim();
        (!text.is_empty() && !text.contains('\n') && text.len() <= MAX_MESSAGE).then(|| text.to_owned())
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() }
}

/// The field that a rule at a path tells of.
fn place(path: &str, field_path: &str) -> String {
    match (path, field_path) {
        (_, "") => shown(path),
        ("", field) => field.trim_start_matches('.').to_owned(),
        (path, field) => format!("{path}{field}"),
    }
}

fn failed(reason: &str, field: &str, wanted: &str, detail: &str) -> FieldError {
    match reason {
        "FieldValueForbidden" => FieldError::forbidden(field, detail),
        "FieldValueRequired" => FieldError::required(field, detail),
        "FieldValueDuplicate" => FieldError::duplicate(field, &wanted.into()),
        _ => FieldError::invalid(field, &wanted.into(), detail),
    }
}
