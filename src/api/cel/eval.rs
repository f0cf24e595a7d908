//! Evaluation.

use super::functions;
use super::made::Made;
use super::methods;
use super::parser::{Constant, Fold, Node, RESERVED};
use super::value::{Val, contains};

/// What evaluation may cost: one for each step, and for each ten bytes that are looked at.
#[derive(Debug, Clone)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// So many steps.
    pub const fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    /// What is left.
    pub const fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn pay(&mut self, steps: u64) -> Result<()> {
        match self.left.checked_sub(steps) {
            Some(left) if left > 0 => {
                self.left = left;
                Ok(())
            }
            _ => {
                self.left = 0;
                Err(EvalError::Budget)
            }
        }
    }

    pub(super) fn pay_bytes(&mut self, bytes: usize) -> Result<()> {
        self.pay(1 + bytes as u64 / 10)
    }
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// It would cost too much.
    #[error("the rule costs more than it may")]
    Budget,
    /// The expression has none; a sentence.
    #[error("{0}")]
    NoValue(String),
}

pub(super) type Result<T> = std::result::Result<T, EvalError>;

pub(super) fn none<T>(text: impl Into<String>) -> Result<T> {
    Err(EvalError::NoValue(text.into()))
}

/// No function takes these arguments.
pub(super) fn no_such_overload<T>() -> Result<T> {
    none("no such overload")
}

/// Variables, innermost first.
#[derive(Clone, Copy)]
struct Names<'e, 'v> {
    name: &'e str,
    value: &'e Val<'v>,
    outer: Option<&'e Names<'e, 'v>>,
}

/// Evaluates a tree.
pub(super) fn evaluate<'v>(node: &Node, variables: &[(&str, Val<'v>)], budget: &mut Budget) -> Result<Val<'v>> {
    Evaluation { variables, budget }.node(node, None)
}

struct Evaluation<'e, 'v> {
    variables: &'e [(&'e str, Val<'v>)],
    budget: &'e mut Budget,
}

impl<'v> Evaluation<'_, 'v> {
    fn node(&mut self, node: &Node, names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        self.budget.pay(1)?;
        match node {
            Node::Constant(constant) => Ok(self.constant(constant)),
            Node::Variable(name) => self.variable(name, names),
            Node::Select { of, field, optional } => self.select(of, field, *optional, names),
            Node::Has { of, field } => {
                let of = self.node(of, names)?;
                let of = if let Val::Optional(inner) = of {
                    match inner {
                        Some(inner) => (*inner).clone(),
                        None => return Ok(Val::Bool(false)),
                    }
                } else {
                    of
                };
                if !of.has_fields() {
                    return no_such_overload();
                }
                Ok(Val::Bool(of.get(&unescaped(field)).is_some_and(|value| !matches!(value, Val::Null))))
            }
            Node::Index { of, index, optional } => {
                let (of, index) = (self.node(of, names)?, self.node(index, names)?);
                self.index(of, &index, *optional)
            }
            Node::Call { name, arguments } => {
                let arguments = self.all(arguments, names)?;
                functions::call(name, &arguments, self.budget)
            }
            Node::Method { of, name, arguments } => self.method(of, name, arguments, names),
            Node::List(items) => self.list(items, names),
            Node::Map(entries) => self.map(entries, names),
            Node::Struct { name, fields } => self.made(name, fields, names),
            Node::If { condition, then, otherwise } => match self.node(condition, names)? {
                Val::Bool(true) => self.node(then, names),
                Val::Bool(false) => self.node(otherwise, names),
                _ => no_such_overload(),
            },
            Node::And(a, b) => self.junction(a, b, false, names),
            Node::Or(a, b) => self.junction(a, b, true, names),
            Node::Fold { fold, of, variable, second, condition, result } => {
                let of = self.node(of, names)?;
                let parts = Parts {
                    variable,
                    second: second.as_deref(),
                    condition: condition.as_deref(),
                    result: result.as_deref(),
                };
                self.fold(*fold, &of, &parts, names)
            }
            Node::Bind { of, variable, result, flat } => {
                let Val::Optional(inner) = self.node(of, names)? else { return no_such_overload() };
                let Some(inner) = inner else { return Ok(Val::Optional(None)) };
                let value = self.node(result, Some(&Names { name: variable, value: &inner, outer: names }))?;
                Ok(if *flat { value } else { Val::some(value) })
            }
        }
    }

    fn constant(&self, constant: &Constant) -> Val<'v> {
        match constant {
            Constant::Null => Val::Null,
            Constant::Bool(truth) => Val::Bool(*truth),
            Constant::Int(number) => Val::Int(*number),
            Constant::Uint(number) => Val::Uint(*number),
            Constant::Double(number) => Val::Double(*number),
            Constant::Text(text) => Val::text(text.as_str()),
            Constant::Bytes(bytes) => Val::Bytes(bytes.as_slice().into()),
        }
    }

    fn variable(&self, name: &str, mut names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        while let Some(own) = names {
            if own.name == name {
                return Ok(own.value.clone());
            }
            names = own.outer;
        }
        if let Some((_, value)) = self.variables.iter().find(|(own, _)| *own == name) {
            return Ok(value.clone());
        }
        match functions::type_named(name) {
            Some(name) => Ok(Val::Type(name)),
            None => none(format!("no such attribute: {name}")),
        }
    }

    fn all(&mut self, nodes: &[Node], names: Option<&Names<'_, 'v>>) -> Result<Vec<Val<'v>>> {
        nodes.iter().map(|node| self.node(node, names)).collect()
    }

    fn select(&mut self, of: &Node, field: &str, optional: bool, names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        let of = self.node(of, names)?;
        let field = unescaped(field);
        if let Val::Optional(inner) = &of {
            return Ok(Val::Optional(inner.as_ref().and_then(|inner| inner.get(&field)).map(Into::into)));
        }
        if let Val::Access(access) = &of {
            return access.select(&field);
        }
        if !of.has_fields() {
            return no_such_overload();
        }
        match of.get(&field) {
            found if optional => Ok(Val::Optional(found.map(Into::into))),
            Some(value) => Ok(value),
            None => none(format!("no such key: {field}")),
        }
    }

    fn index(&mut self, of: Val<'v>, index: &Val<'v>, optional: bool) -> Result<Val<'v>> {
        let (of, optional) = match of {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, optional),
        };
        let found = if of.is_list() {
            let place = match index {
                Val::Int(place) => usize::try_from(*place).ok(),
                Val::Uint(place) => usize::try_from(*place).ok(),
                _ => return no_such_overload(),
            };
            let found = place.and_then(|place| of.item(place));
            if found.is_none() && !optional {
                return none(format!("index out of bounds: {}", functions::shown(index)));
            }
            found
        } else if let (Val::Object(..), Some(name)) = (&of, index.as_text()) {
            of.get(name)
        } else if let Some(entries) = of.entries() {
            let mut found = None;
            for (key, value) in entries {
                if key.equals(index, self.budget)? {
                    found = Some(value);
                    break;
                }
            }
            found
        } else {
            return no_such_overload();
        };
        match found {
            found if optional => Ok(Val::Optional(found.map(Into::into))),
            Some(value) => Ok(value),
            None => none(format!("no such key: {}", functions::shown(index))),
        }
    }

    fn method(&mut self, of: &Node, name: &str, arguments: &[Node], names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        // Some functions have names of several parts: the first is no variable.
        if let Node::Variable(space) = of
            && functions::is_space(space)
            && self.variable(space, names).is_err()
        {
            let arguments = self.all(arguments, names)?;
            return functions::call(&format!("{space}.{name}"), &arguments, self.budget);
        }
        let of = self.node(of, names)?;
        if let (Val::Optional(inner), "or" | "orValue") = (&of, name) {
            let [instead] = arguments else { return no_such_overload() };
            return match (inner, name) {
                (Some(_), "or") => Ok(of),
                (Some(inner), _) => Ok((**inner).clone()),
                (None, _) => self.node(instead, names),
            };
        }
        let arguments = self.all(arguments, names)?;
        methods::call(&of, name, &arguments, self.budget)
    }

    fn list(&mut self, items: &[(Node, bool)], names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        let mut list = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.node(item, names)?, optional) {
                (Val::Optional(inner), true) => list.extend(inner.map(|inner| (*inner).clone())),
                (_, true) => return no_such_overload(),
                (value, false) => list.push(value),
            }
        }
        Ok(Val::list(list))
    }

    fn map(&mut self, entries: &[(Node, Node, bool)], names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        let mut map: Vec<(Val<'v>, Val<'v>)> = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let (key, value) = (self.node(key, names)?, self.node(value, names)?);
            let value = match (value, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (_, true) => return no_such_overload(),
                (value, false) => value,
            };
            let keys: Vec<Val<'v>> = map.iter().map(|(key, _)| key.clone()).collect();
            if contains(&keys, &key, self.budget)? {
                return none(format!("Failed with repeated key: {}", functions::shown(&key)));
            }
            map.push((key, value));
        }
        Ok(Val::Map(map.into()))
    }

    fn made(&mut self, name: &str, fields: &[(String, Node, bool)], names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        let mut made = Made { name: name.to_owned(), fields: Vec::with_capacity(fields.len()) };
        for (field, value, optional) in fields {
            let value = match (self.node(value, names)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => (*inner).clone(),
                (_, true) => return no_such_overload(),
                (value, false) => value,
            };
            made.fields.push((unescaped(field).into(), value));
        }
        made.check()?;
        Ok(Val::Made(made.into()))
    }

    /// `&&` and `||`: what one side decides, an error of the other does not undo.
    fn junction(&mut self, a: &Node, b: &Node, decisive: bool, names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        let truth = |value: Result<Val<'v>>| match value {
            Ok(Val::Bool(truth)) => Ok(truth),
            Ok(_) => no_such_overload(),
            Err(error) => Err(error),
        };
        let left = match truth(self.node(a, names)) {
            Ok(left) if left == decisive => return Ok(Val::Bool(decisive)),
            Err(EvalError::Budget) => return Err(EvalError::Budget),
            left => left,
        };
        let right = truth(self.node(b, names));
        match (left, right) {
            (_, Ok(right)) if right == decisive => Ok(Val::Bool(decisive)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Ok(Val::Bool(!decisive)),
        }
    }

    fn fold(&mut self, fold: Fold, of: &Val<'v>, parts: &Parts<'_>, names: Option<&Names<'_, 'v>>) -> Result<Val<'v>> {
        let elements: Vec<(Val<'v>, Val<'v>)> = match (of.items(), of.entries()) {
            (Some(items), _) => {
                let places = (0..).map(Val::Int);
                places.zip(items).collect()
            }
            (_, Some(entries)) => entries,
            _ => return no_such_overload(),
        };
        let is_list = of.items().is_some();
        self.budget.pay(elements.len() as u64)?;
        let mut made = Vec::new();
        let (mut count, mut error) = (0, None);
        for (key, value) in &elements {
            // With one variable, a list gives its elements and a map its keys.
            let first = if parts.second.is_some() || !is_list { key } else { value };
            let outer = Names { name: parts.variable, value: first, outer: names };
            let inner = Names { name: parts.second.unwrap_or_default(), value, outer: Some(&outer) };
            let names = if parts.second.is_some() { &inner } else { &outer };
            let holds = match parts.condition.map(|condition| self.node(condition, Some(names))) {
                None | Some(Ok(Val::Bool(true))) => true,
                Some(Ok(Val::Bool(false))) => false,
                Some(Err(EvalError::Budget)) => return Err(EvalError::Budget),
                Some(Err(problem)) if matches!(fold, Fold::All | Fold::Exists) => {
                    error = Some(problem);
                    continue;
                }
                Some(Ok(_)) => return no_such_overload(),
                Some(Err(problem)) => return Err(problem),
            };
            match fold {
                Fold::All if !holds => return Ok(Val::Bool(false)),
                Fold::Exists if holds => return Ok(Val::Bool(true)),
                Fold::ExistsOne if holds => count += 1,
                Fold::Filter if holds => made.push(first.clone()),
                Fold::Map if holds => {
                    if let Some(result) = parts.result {
                        made.push(self.node(result, Some(names))?);
                    }
                }
                _ => {}
            }
        }
        match (fold, error) {
            (Fold::All | Fold::Exists, Some(error)) => Err(error),
            (Fold::All, _) => Ok(Val::Bool(true)),
            (Fold::Exists, _) => Ok(Val::Bool(false)),
            (Fold::ExistsOne, _) => Ok(Val::Bool(count == 1)),
            (Fold::Filter | Fold::Map, _) => Ok(Val::list(made)),
        }
    }
}

/// The parts of a comprehension.
struct Parts<'n> {
    variable: &'n str,
    second: Option<&'n str>,
    condition: Option<&'n Node>,
    result: Option<&'n Node>,
}

/// The name of a field that is written otherwise, because it is no name in CEL (`k8s.io/apiserver/pkg/cel/escaping.go`).
pub(super) fn unescaped(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && (["true", "false", "null", "in"].contains(&word) || RESERVED.contains(&word))
    {
        return word.to_owned();
    }
    if !name.contains("__") {
        return name.to_owned();
    }
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    'rest: while !rest.is_empty() {
        for (escape, char) in [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")] {
            if let Some(left) = rest.strip_prefix(escape) {
                plain.push_str(char);
                rest = left;
                continue 'rest;
            }
        }
        let end = rest.chars().next().map_or(0, char::len_utf8);
        plain.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    plain
}
