//! Nobody grants what he does not have.
//!
//! The attack: somebody who may write roles or bindings, which an administrator of a namespace may, gives himself all
//! rights. So a role may hold only rules that its author has himself in that place, and a binding may name only a role
//! whose rules its author has, unless the verbs `escalate` and `bind` are granted for it
//! (`pkg/registry/rbac/{role,rolebinding,…}/policybased/storage.go` of upstream). Called by every write of these kinds, and
//! of policies, whose settings [`settings`] looks at.

use api::resources::rbac::GROUP;
use api::status::ApiError;
use api::user::{MASTERS, UserInfo};
use serde_json::Value;

use super::rbac::{Rule, uncovered};
use super::settings;
use crate::call::Call;
use crate::object::meta;
use crate::query::Query;
use crate::request::{RequestInfo, ResourceRequest};

/// Refuses a role or a binding that grants more than its author has.
pub(crate) async fn check(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if call.row.group == settings::GROUP {
        return settings::check(call, new, old).await;
    }
    if call.row.group != GROUP || call.user.is_in(MASTERS) {
        return Ok(());
    }
    let namespace = call.namespace();
    let wanted = match call.row.kind {
        "Role" | "ClusterRole" => {
            // Whoever only removes rules, or changes labels, grants nothing.
            let rules = Rule::list(&new["rules"]);
            let before = old.map(|old| Rule::list(&old["rules"])).unwrap_or_default();
            if uncovered(&before, &rules).is_empty() && new["aggregationRule"].is_null() {
                return Ok(());
            }
            if may(call, "escalate", call.row.plural, meta(new, "name")).await? {
                return Ok(());
            }
            if !new["aggregationRule"].is_null()
                && old.is_none_or(|old| old["aggregationRule"] != new["aggregationRule"])
            {
                // What it will take in is not known, so its author must have everything.
                vec![everything()]
            } else {
                rules
            }
        }
        _ => {
            let (kind, name) = (&new["roleRef"]["kind"], new["roleRef"]["name"].as_str().unwrap_or_default());
            let unchanged =
                old.is_some_and(|old| old["subjects"] == new["subjects"] && old["roleRef"] == new["roleRef"]);
            let plural = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
            if unchanged || may(call, "bind", plural, name).await? {
                return Ok(());
            }
            let kind = kind.as_str().unwrap_or_default();
            let found =
                call.server.ask_policy(|policy| policy.role(namespace, kind, name).map(<[Rule]>::to_vec)).await?;
            // As upstream: what a role that does not exist will grant is not known, so it cannot be bound.
            found.ok_or_else(|| ApiError::not_found(GROUP, plural, name))?
        }
    };
    let missing = call.server.ask_policy(|policy| uncovered(&policy.rules(&call.user, namespace), &wanted)).await?;
    if missing.is_empty() { Ok(()) } else { Err(refused(call, new, &missing)) }
}

fn everything() -> Rule {
    let all = || vec!["*".to_owned()];
    Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() }
}

async fn may(call: &Call, verb: &str, resource: &str, name: &str) -> Result<bool, ApiError> {
    let request = ResourceRequest {
        verb: verb.to_owned(),
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        namespace: call.namespace().to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..ResourceRequest::default()
    };
    let access = call.server.access(&call.user, &RequestInfo::Resource(request), &Query::default()).await?;
    Ok(access.allowed)
}

fn refused(call: &Call, new: &Value, missing: &[Rule]) -> ApiError {
    let UserInfo { username, groups, .. } = &call.user;
    let list: Vec<String> = missing.iter().map(shown).collect();
    let text = format!(
        "user {username:?} (groups={groups:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        list.join("\n")
    );
    ApiError::forbidden(GROUP, call.row.plural, meta(new, "name"), &text)
}

/// A rule in upstream's compact form.
fn shown(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.groups),
        ("NonResourceURLs", &rule.paths),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> =
        fields.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{list:?}")).collect();
    format!("{{{}}}", parts.join(", "))
}
