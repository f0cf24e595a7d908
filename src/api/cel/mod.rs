//! The Common Expression Language, as far as Kubernetes asks rules in it (`github.com/google/cel-spec/doc/langdef.md`, and
//! the libraries of `k8s.io/apiserver/pkg/cel/library`).
//!
//! Compiling refuses what cannot be evaluated: unknown functions, names and fields, wrong numbers of arguments. Types are
//! checked where a schema says them, not inferred throughout. Evaluation is total and bounded: every step and every byte
//! that is looked at is paid from a [`Budget`], so that no rule can hold up the server.
//!
//! It is our own because rules of strangers must be bounded: the crate `cel` has neither limits of cost nor hooks for
//! them, and its parser brings a generated one of antlr.

pub mod authorizer;
mod check;
mod eval;
mod functions;
mod lexer;
mod made;
mod methods;
mod parser;
mod text;
mod time;
mod value;

pub use check::Scope;
pub use eval::{Budget, EvalError};
pub use made::{Wanted, configuration, operations};
pub use value::Val;

use parser::Node;

/// What a place in a schema says of the values there.
pub trait Shape: std::fmt::Debug + Send + Sync {
    /// The shape of a field, none if there may be no such field.
    fn field(&self, name: &str) -> Option<&dyn Shape>;
    /// Whether fields may be there that nobody specified.
    fn is_open(&self) -> bool;
    /// The shape of the elements of a list.
    fn item(&self) -> Option<&dyn Shape>;
    /// What single values are.
    fn scalar(&self) -> Scalar;
    /// Which elements of a list are the same.
    fn identity(&self) -> Identity<'_>;
}

/// What JSON's numbers and texts stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// What they are.
    Plain,
    /// A number that need not be whole.
    Double,
    /// A moment in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// Bytes in base64.
    Bytes,
    /// An object or a map.
    Object,
    /// A list.
    List,
    /// Anything.
    Any,
}

/// Which elements of a list are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// Those at the same place.
    Place,
    /// Equal ones.
    Value,
    /// Those with the same values of these fields.
    Keys(&'a [String]),
}

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Program {
    node: Node,
}

impl Program {
    /// Compiles an expression; the error is a sentence.
    pub fn compile(text: &str, scope: &Scope<'_>) -> Result<Self, String> {
        let node = parser::parse(text)?;
        check::check(&node, scope)?;
        Ok(Self { node })
    }

    /// Compiles an expression whose value must be of a kind; the error is a sentence.
    pub fn compile_for(text: &str, scope: &Scope<'_>, wanted: Wanted) -> Result<Self, String> {
        let program = Self::compile(text, scope).map_err(|error| format!("compilation failed: {error}"))?;
        wanted.check(&program.node)?;
        Ok(program)
    }

    /// Whether the expression names a variable.
    pub fn uses(&self, name: &str) -> bool {
        check::uses(&self.node, name)
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// If there is no value, or none within the budget.
    pub fn eval<'v>(&self, variables: &[(&str, Val<'v>)], budget: &mut Budget) -> Result<Val<'v>, EvalError> {
        eval::evaluate(&self.node, variables, budget)
    }
}

#[cfg(test)]
mod tests;
