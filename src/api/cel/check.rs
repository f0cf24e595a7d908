//! What can be said of an expression before it is evaluated.

use super::Shape;
use super::authorizer;
use super::eval::unescaped;
use super::functions;
use super::made;
use super::methods;
use super::parser::Node;

/// The variables of an expression, with what a schema says of them; a variable without a shape may be anything.
#[derive(Debug, Default)]
pub struct Scope<'s> {
    /// Their names and shapes.
    pub variables: Vec<(&'s str, Option<&'s dyn Shape>)>,
    /// Whether it may make parts of objects and JSON patches.
    pub patches: bool,
}

/// Names that are bound within an expression.
struct Bound<'n> {
    name: &'n str,
    shape: Option<&'n dyn Shape>,
    outer: Option<&'n Bound<'n>>,
}

/// Refuses what cannot be evaluated; the error is a sentence.
pub(super) fn check(node: &Node, scope: &Scope<'_>) -> Result<(), String> {
    Check { scope }.node(node, None).map(drop)
}

/// Whether a tree names a variable.
pub(super) fn uses(node: &Node, name: &str) -> bool {
    let any = |nodes: &[Node]| nodes.iter().any(|node| uses(node, name));
    match node {
        Node::Constant(_) => false,
        Node::Variable(own) => own == name,
        Node::Select { of, .. } | Node::Has { of, .. } => uses(of, name),
        Node::Index { of, index, .. } => uses(of, name) || uses(index, name),
        Node::Call { arguments, .. } => any(arguments),
        Node::Method { of, arguments, .. } => uses(of, name) || any(arguments),
        Node::List(items) => items.iter().any(|(item, _)| uses(item, name)),
        Node::Map(entries) => entries.iter().any(|(key, value, _)| uses(key, name) || uses(value, name)),
        Node::Struct { fields, .. } => fields.iter().any(|(_, value, _)| uses(value, name)),
        Node::If { condition, then, otherwise } => uses(condition, name) || uses(then, name) || uses(otherwise, name),
        Node::And(a, b) | Node::Or(a, b) => uses(a, name) || uses(b, name),
        Node::Fold { of, condition, result, .. } => {
            uses(of, name) || [condition, result].into_iter().flatten().any(|node| uses(node, name))
        }
        Node::Bind { of, result, .. } => uses(of, name) || uses(result, name),
    }
}

struct Check<'s> {
    scope: &'s Scope<'s>,
}

impl<'s> Check<'s> {
    /// The shape of a value, if a schema says it.
    fn node<'n>(&self, node: &'n Node, names: Option<&Bound<'n>>) -> Result<Option<&'n dyn Shape>, String>
    where
        's: 'n,
    {
        match node {
            Node::Constant(_) => Ok(None),
            Node::Variable(name) => self.variable(name, names),
            Node::Select { of, field, .. } | Node::Has { of, field } => {
                let of = self.node(of, names)?;
                select(of, field)
            }
            Node::Index { of, index, .. } => {
                let of = self.node(of, names)?;
                self.node(index, names)?;
                Ok(of.and_then(|of| of.item()))
            }
            Node::Call { name, arguments } => {
                known(functions::KNOWN, name, arguments.len())?;
                arguments.iter().try_for_each(|argument| self.node(argument, names).map(drop))?;
                Ok(None)
            }
            Node::Method { of, name, arguments } => self.method(of, name, arguments, names),
            Node::List(items) => {
                items.iter().try_for_each(|(item, _)| self.node(item, names).map(drop))?;
                Ok(None)
            }
            Node::Map(entries) => {
                for (key, value, _) in entries {
                    self.node(key, names)?;
                    self.node(value, names)?;
                }
                Ok(None)
            }
            Node::Struct { name, fields } => {
                self.made(name, fields)?;
                fields.iter().try_for_each(|(_, value, _)| self.node(value, names).map(drop))?;
                Ok(None)
            }
            Node::If { condition, then, otherwise } => {
                self.node(condition, names)?;
                let (then, _) = (self.node(then, names)?, self.node(otherwise, names)?);
                Ok(then)
            }
            Node::And(a, b) | Node::Or(a, b) => {
                self.node(a, names)?;
                self.node(b, names)?;
                Ok(None)
            }
            Node::Fold { of, variable, second, condition, result, .. } => {
                let of = self.node(of, names)?;
                let element = of.and_then(|of| of.item());
                let first =
                    Bound { name: variable, shape: if second.is_some() { None } else { element }, outer: names };
                let both = Bound { name: second.as_deref().unwrap_or_default(), shape: element, outer: Some(&first) };
                let names = if second.is_some() { &both } else { &first };
                for node in [condition, result].into_iter().flatten() {
                    self.inner(node, names)?;
                }
                Ok(None)
            }
            Node::Bind { of, variable, result, .. } => {
                let shape = self.node(of, names)?;
                self.inner(result, &Bound { name: variable, shape, outer: names })?;
                Ok(None)
            }
        }
    }

    /// Types that can be made: any part of an object, and the operations of JSON patches
    /// (`k8s.io/apiserver/pkg/cel/mutation`).
    fn made(&self, name: &str, fields: &[(String, Node, bool)]) -> Result<(), String> {
        let is_object =
            name == made::OBJECT || name.strip_prefix(made::OBJECT).is_some_and(|rest| rest.starts_with('.'));
        if !self.scope.patches || !(is_object || name == made::PATCH) {
            return Err(format!("undeclared reference to '{name}' (in container '')"));
        }
        for (field, value, _) in fields.iter().filter(|_| !is_object) {
            if !made::FIELDS.contains(&field.as_str()) {
                return Err(format!("undefined field '{field}'"));
            }
            if let (true, Some(kind)) = (field != made::VALUE, made::kind(value))
                && kind != "string"
            {
                return Err(format!("expected type of field '{field}' is 'string' but provided type is '{kind}'"));
            }
        }
        Ok(())
    }

    fn method<'n>(
        &self,
        of: &'n Node,
        name: &str,
        arguments: &'n [Node],
        names: Option<&Bound<'n>>,
    ) -> Result<Option<&'n dyn Shape>, String>
    where
        's: 'n,
    {
        arguments.iter().try_for_each(|argument| self.node(argument, names).map(drop))?;
        if let Node::Variable(space) = of
            && functions::is_space(space)
            && self.variable(space, names).is_err()
        {
            let table = if self.scope.patches { functions::KNOWN_OF_PATCHES } else { &[] };
            let name = format!("{space}.{name}");
            if table.iter().all(|(own, ..)| *own != name) {
                known(functions::KNOWN, &name, arguments.len())?;
            } else {
                known(table, &name, arguments.len())?;
            }
            return Ok(None);
        }
        self.node(of, names)?;
        let asks = self.scope.variables.iter().any(|(name, _)| *name == "authorizer");
        let of_both = methods::KNOWN.iter().any(|(own, ..)| *own == name);
        let table = if asks && !of_both { authorizer::KNOWN } else { methods::KNOWN };
        known(table, name, arguments.len())?;
        Ok(None)
    }

    /// As [`Check::node`] within a macro, whose shape says nothing outside.
    fn inner(&self, node: &Node, names: &Bound<'_>) -> Result<(), String> {
        fn shorter<'b>(bound: &'b Bound<'_>) -> Bound<'b> {
            Bound { name: bound.name, shape: bound.shape, outer: bound.outer.map(|outer| outer as &Bound<'b>) }
        }
        self.node(node, Some(&shorter(names))).map(drop)
    }

    fn variable<'n>(&self, name: &str, mut names: Option<&Bound<'n>>) -> Result<Option<&'n dyn Shape>, String>
    where
        's: 'n,
    {
        while let Some(own) = names {
            if own.name == name {
                return Ok(own.shape);
            }
            names = own.outer;
        }
        if let Some((_, shape)) = self.scope.variables.iter().find(|(own, _)| *own == name) {
            return Ok(*shape);
        }
        match functions::type_named(name) {
            Some(_) => Ok(None),
            None => Err(format!("undeclared reference to '{name}' (in container '')")),
        }
    }
}

fn select<'n>(of: Option<&'n dyn Shape>, field: &str) -> Result<Option<&'n dyn Shape>, String> {
    let Some(of) = of else { return Ok(None) };
    let name = unescaped(field);
    match (of.scalar(), of.field(&name)) {
        (super::Scalar::Object, Some(found)) => Ok(Some(found)),
        (super::Scalar::Any, found) => Ok(found),
        (super::Scalar::Object, None) if of.is_open() => Ok(None),
        (super::Scalar::Object, None) => Err(format!("undefined field '{field}'")),
        _ => Err("type does not support field selection".to_owned()),
    }
}

fn known(table: &[(&str, usize, usize)], name: &str, count: usize) -> Result<(), String> {
    const OPERATORS: [&str; 14] =
        ["_==_", "_!=_", "_<=_", "_>=_", "_<_", "_>_", "_+_", "_-_", "_*_", "_/_", "_%_", "!_", "-_", "@in"];
    if OPERATORS.contains(&name) {
        return Ok(());
    }
    match table.iter().find(|(own, ..)| *own == name) {
        None => Err(format!("undeclared reference to '{name}' (in container ''): this server has no such function")),
        Some((_, least, most)) if !(*least..=*most).contains(&count) => {
            Err(format!("found no matching overload for '{name}' applied to {count} arguments"))
        }
        Some(_) => Ok(()),
    }
}
