//! The variable `authorizer`: expressions that ask what somebody may do (`k8s.io/apiserver/pkg/cel/library/authz.go`).
//!
//! ```text
//! authorizer ─┬─ path(p) ─────────────────────────────────────────────────┬─ check(verb) ─ allowed(), reason(), errored(), error()
//!             ├─ group(g).resource(r) ─ subresource, namespace, name … ───┤
//!             ├─ requestResource ─────────────────────────────────────────┘
//!             └─ serviceAccount(namespace, name) ─ as authorizer
//! ```
//! Who answers is not known here: [`Authorize`]. Selectors narrow nothing, as roles know none.

use std::rc::Rc;

use super::eval::{Budget, Result, no_such_overload, none};
use super::value::Val;
use crate::names;

/// What a question costs; upstream's figure.
const PRICE: u64 = 350_000;

/// Methods of these values, with the numbers of arguments that they take.
pub(super) const KNOWN: &[(&str, usize, usize)] = &[
    ("path", 1, 1),
    ("group", 1, 1),
    ("serviceAccount", 2, 2),
    ("resource", 1, 1),
    ("subresource", 1, 1),
    ("namespace", 1, 1),
    ("name", 1, 1),
    ("fieldSelector", 1, 1),
    ("labelSelector", 1, 1),
    ("check", 1, 1),
    ("allowed", 0, 0),
    ("reason", 0, 0),
    ("errored", 0, 0),
    ("error", 0, 0),
];

/// Knows who may do what.
pub trait Authorize: std::fmt::Debug + Send + Sync {
    /// Whether somebody may do something.
    fn ask(&self, question: &Question) -> Decision;
}

/// What somebody may want to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of an account; none for whoever makes the request.
    pub account: Option<(String, String)>,
    /// A path that names no objects; the rest is empty then.
    pub path: Option<String>,
    /// API group.
    pub group: String,
    /// The plural.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// Empty for all, and for objects of the cluster.
    pub namespace: String,
    /// Empty for all.
    pub name: String,
    /// What is to be done.
    pub verb: String,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is permitted.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// Why nobody knows; empty if somebody does.
    pub error: String,
}

/// Permits nothing and says so.
#[derive(Debug)]
pub struct Nobody;

impl Authorize for Nobody {
    fn ask(&self, _: &Question) -> Decision {
        Decision { error: "nobody can be asked here".to_owned(), ..Decision::default() }
    }
}

/// One of the values.
#[derive(Debug, Clone)]
pub struct Access<'v> {
    ask: &'v dyn Authorize,
    stage: Stage,
    question: Rc<Question>,
    /// About what the request is.
    own: Rc<Question>,
}

#[derive(Debug, Clone)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decision(Rc<Decision>),
}

impl<'v> Access<'v> {
    /// The variable itself; `own` is what the request is about.
    pub fn new(ask: &'v dyn Authorize, own: Question) -> Self {
        Self { ask, stage: Stage::Authorizer, question: Rc::default(), own: Rc::new(own) }
    }

    pub(super) fn select(&self, field: &str) -> Result<Val<'v>> {
        match (&self.stage, field) {
            (Stage::Authorizer, "requestResource") => {
                let question = Question { account: self.question.account.clone(), ..(*self.own).clone() };
                Ok(self.next(Stage::Resource, question))
            }
            _ => no_such_overload(),
        }
    }

    pub(super) fn call(&self, name: &str, arguments: &[Val<'v>], budget: &mut Budget) -> Result<Val<'v>> {
        let texts: Vec<&str> = arguments.iter().map_while(Val::as_text).collect();
        let mut question = (*self.question).clone();
        let given = |text: &str| text.to_owned();
        match (&self.stage, name, texts.as_slice()) {
            (Stage::Authorizer, "path", [path]) => {
                question.path = Some(given(path));
                Ok(self.next(Stage::Path, question))
            }
            (Stage::Authorizer, "group", [group]) => {
                question.group = given(group);
                Ok(self.next(Stage::Group, question))
            }
            (Stage::Authorizer, "serviceAccount", [namespace, name]) => {
                if !names::dns1123_label(namespace).is_empty() || !names::dns1123_subdomain(name).is_empty() {
                    return none("invalid service account");
                }
                question.account = Some((given(namespace), given(name)));
                Ok(self.next(Stage::Authorizer, question))
            }
            (Stage::Group, "resource", [resource]) => {
                question.resource = given(resource);
                Ok(self.next(Stage::Resource, question))
            }
            (Stage::Resource, field, [text]) if field != "check" => {
                match field {
                    "subresource" => question.subresource = given(text),
                    "namespace" => question.namespace = given(text),
                    "name" => question.name = given(text),
                    "fieldSelector" | "labelSelector" => {}
                    _ => return no_such_overload(),
                }
                Ok(self.next(Stage::Resource, question))
            }
            (Stage::Path | Stage::Resource, "check", [verb]) => {
                budget.pay(PRICE)?;
                question.verb = given(verb);
                let decision = self.ask.ask(&question);
                Ok(self.next(Stage::Decision(Rc::new(decision)), question))
            }
            (Stage::Decision(decision), name, []) => Ok(match name {
                "allowed" => Val::Bool(decision.allowed),
                "reason" => Val::text(decision.reason.as_str()),
                "errored" => Val::Bool(!decision.error.is_empty()),
                "error" => Val::text(decision.error.as_str()),
                _ => return no_such_overload(),
            }),
            _ => no_such_overload(),
        }
    }

    fn next(&self, stage: Stage, question: Question) -> Val<'v> {
        let own = Rc::clone(&self.own);
        Val::Access(Rc::new(Self { ask: self.ask, stage, question: Rc::new(question), own }))
    }

    /// The name of the type, for messages and `type()`.
    pub(super) const fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}
