//! Label selectors, as `k8s.io/apimachinery/pkg/labels` reads them.

use serde_json::{Map, Value};

use super::lexer::{self, Context, Parser, Token};
use crate::names;
use crate::status::ApiError;

/// What a requirement asks of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Present with one of the values (also `=` and `==`).
    In,
    /// Absent, or present with none of the values (also `!=`).
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// Present, an integer, and greater than the value.
    GreaterThan,
    /// Present, an integer, and less than the value.
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Condition.
    pub operator: Operator,
    /// Values, sorted, without duplicates.
    pub values: Vec<String>,
}

/// All requirements must hold; without any, everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// The conditions.
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the query parameter; 400 with upstream's words if it is malformed.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let requirements = parse_requirements(&mut lexer::Parser::new(text)).map_err(ApiError::bad_request)?;
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `meta/v1 LabelSelector`; null or absent selects nothing, an empty one everything.
    pub fn from_object(selector: &Value) -> Result<Self, ApiError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::In, vec![value]).map_err(ApiError::bad_request)?);
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(ApiError::bad_request(format!("{other:?} is not a valid label selector operator")));
                }
            };
            let key = expression["key"].as_str().unwrap_or_default();
            requirements.push(Requirement::new(key, operator, values).map_err(ApiError::bad_request)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// A plain map of labels that must all be there, as `nodeSelector` and a Service's `selector`; empty or absent
    /// selects everything.
    pub fn from_labels(labels: Option<&Map<String, Value>>) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        Self { requirements: labels.into_iter().flatten().map(requirement).collect(), nothing: false }
    }

    /// Whether labels (the value of `metadata.labels`, if any) satisfy all requirements.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.covers(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
    }

    /// Whether labels, of whatever form, satisfy all requirements.
    pub fn covers<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.holds(label(&requirement.key)))
    }

    /// Whatever satisfies both.
    pub fn and(mut self, other: Self) -> Self {
        self.nothing |= other.nothing;
        self.requirements.extend(other.requirements);
        self
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl Requirement {
    /// A condition; the error is upstream's sentence about a malformed key or value.
    fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        check_key(key)?;
        let count = values.len();
        match operator {
            Operator::In | Operator::NotIn if count == 0 => {
                return Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into());
            }
            Operator::Exists | Operator::DoesNotExist if count > 0 => {
                return Err("values: Invalid value: values set must be empty for exists and does not exist".into());
            }
            Operator::GreaterThan | Operator::LessThan if values.iter().any(|v| v.parse::<i64>().is_err()) => {
                let value = values.first().map_or("", String::as_str);
                return Err(format!(
                    "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ));
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let errors = names::label_value(value);
            if !errors.is_empty() {
                return Err(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", errors.join("; ")));
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|own| own == value);
        let number = |text: &str| text.parse::<i64>().ok();
        let limit = || self.values.first().and_then(|text| number(text));
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.and_then(number).zip(limit()).is_some_and(|(value, limit)| value > limit),
            Operator::LessThan => value.and_then(number).zip(limit()).is_some_and(|(value, limit)| value < limit),
        }
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let errors = names::qualified_name(key);
    // Upstream has no path here and prints what Go prints for none.
    if errors.is_empty() { Ok(()) } else { Err(format!("<nil>: Invalid value: {key:?}: {}", errors.join("; "))) }
}

fn parse_requirements(parser: &mut Parser<'_>) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    loop {
        match parser.peek(Context::Values) {
            (Token::Identifier | Token::Not, _) => {}
            (Token::End, _) => return Ok(requirements),
            (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
        }
        let requirement = parse_requirement(parser).map_err(|error| format!("unable to parse requirement: {error}"))?;
        requirements.push(requirement);
        match parser.next(Context::Values) {
            (Token::End, _) => return Ok(requirements),
            (Token::Comma, _) => match parser.peek(Context::Values) {
                (Token::Identifier | Token::Not, _) => {}
                (_, text) => return Err(format!("found '{text}', expected: identifier after ','")),
            },
            (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
        }
    }
}

fn parse_requirement(parser: &mut Parser<'_>) -> Result<Requirement, String> {
    let (mut token, mut key) = parser.next(Context::Values);
    let negated = token == Token::Not;
    if negated {
        (token, key) = parser.next(Context::Values);
    }
    if token != Token::Identifier {
        return Err(format!("found '{key}', expected: identifier"));
    }
    check_key(key)?;
    if negated {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    if matches!(parser.peek(Context::Values).0, Token::End | Token::Comma) {
        return Requirement::new(key, Operator::Exists, Vec::new());
    }
    let (operator, is_set) = match parser.next(Context::KeyAndOperator) {
        (Token::In, _) => (Operator::In, true),
        (Token::NotIn, _) => (Operator::NotIn, true),
        (Token::Equal, _) => (Operator::In, false),
        (Token::NotEqual, _) => (Operator::NotIn, false),
        (Token::Greater, _) => (Operator::GreaterThan, false),
        (Token::Less, _) => (Operator::LessThan, false),
        (_, text) => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
    };
    let values = if is_set { parse_set(parser)? } else { vec![parse_exact(parser)?] };
    Requirement::new(key, operator, values)
}

fn parse_exact(parser: &mut Parser<'_>) -> Result<String, String> {
    if matches!(parser.peek(Context::Values).0, Token::End | Token::Comma) {
        return Ok(String::new());
    }
    match parser.next(Context::Values) {
        (Token::Identifier, text) => Ok(text.to_owned()),
        (_, text) => Err(format!("found '{text}', expected: identifier")),
    }
}

/// `(a, b)`; an empty place between commas is the empty value.
fn parse_set(parser: &mut Parser<'_>) -> Result<Vec<String>, String> {
    match parser.next(Context::Values) {
        (Token::Open, _) => {}
        (_, text) => return Err(format!("found '{text}' expected: '('")),
    }
    let mut values = Vec::new();
    let mut value = String::new();
    loop {
        match parser.next(Context::Values) {
            (Token::Identifier, text) => {
                text.clone_into(&mut value);
                match parser.peek(Context::Values) {
                    (Token::Comma | Token::Close, _) => {}
                    (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                }
            }
            (Token::Comma, _) => values.push(std::mem::take(&mut value)),
            (Token::Close, _) => {
                values.push(value);
                return Ok(values);
            }
            (_, text) if values.is_empty() => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
            (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
        }
    }
}
