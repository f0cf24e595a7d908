//! Answers expressions of policies and webhooks that ask who may do what.

use api::cel::authorizer::{Authorize, Decision, Question};
use api::user::UserInfo;

use crate::authz::rbac::Policy;
use crate::authz::{self, Decision as Fixed};
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};

/// The roles and bindings as they are, and who makes the request.
#[derive(Debug)]
pub(super) struct Rights<'p> {
    pub(super) policy: &'p Policy,
    pub(super) user: &'p UserInfo,
}

impl Authorize for Rights<'_> {
    fn ask(&self, question: &Question) -> Decision {
        let account;
        let user = match &question.account {
            None => self.user,
            Some((namespace, name)) => {
                let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
                account = UserInfo::authenticated(&format!("system:serviceaccount:{namespace}:{name}"), &groups);
                &account
            }
        };
        let info = info(question);
        let allowed = |reason: String| Decision { allowed: true, reason, error: String::new() };
        match authz::decide(user, &info, &Query::parse("")) {
            Fixed::Allow => return allowed(String::new()),
            Fixed::Deny => {}
            Fixed::IfBoundTo(_) | Fixed::IfNamedByPodOf(_) => {
                let error = "what a node may do with an object is known only when it does it".to_owned();
                return Decision { error, ..Decision::default() };
            }
        }
        self.policy.permits(user, (&info).into()).map_or_else(Decision::default, allowed)
    }
}

fn info(question: &Question) -> RequestInfo {
    let Question { group, resource, subresource, namespace, name, verb, .. } = question.clone();
    match &question.path {
        Some(path) => RequestInfo::Path { verb, path: path.clone() },
        None => RequestInfo::Resource(ResourceRequest {
            verb,
            group,
            version: "*".to_owned(),
            namespace,
            resource,
            subresource,
            name,
            ..ResourceRequest::default()
        }),
    }
}
