//! Roles and bindings as data, and what follows from them.

use api::user::UserInfo;
use serde_json::{Value, json};

use super::*;

fn policy(objects: &[(&str, &str, &str, Value)]) -> Policy {
    let mut policy = Policy::default();
    for (resource, namespace, name, object) in objects {
        policy.put(resource, namespace, name, Some(object));
    }
    policy
}

fn role(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Value {
    json!({ "rules": [{ "verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names }] })
}

fn binding(kind: &str, role: &str, subject: Value) -> Value {
    json!({ "roleRef": { "kind": kind, "name": role }, "subjects": [subject] })
}

/// `verb group/resource[/subresource] [name] [@namespace]`.
fn may(policy: &Policy, user: &UserInfo, wanted: &str) -> bool {
    let (wanted, namespace) = wanted.split_once(" @").unwrap_or((wanted, ""));
    let mut words = wanted.split(' ');
    let (verb, what, name) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
    let mut parts = what.split('/');
    let mut next = || parts.next().unwrap_or_default();
    let (group, resource, subresource) = (next(), next(), next());
    policy.permits(user, Attempt::Resource { verb, group, resource, subresource, namespace, name }).is_some()
}

#[test]
fn a_role_holds_in_its_namespace_and_a_cluster_role_where_it_is_bound() {
    let jane = UserInfo::authenticated("jane", &["dev"]);
    let account = UserInfo::authenticated("system:serviceaccount:a:bot", &[]);
    let policy = policy(&[
        ("roles", "a", "reader", role(&["get", "list"], &[""], &["pods", "pods/log"], &[])),
        ("rolebindings", "a", "jane", binding("Role", "reader", json!({ "kind": "User", "name": "jane" }))),
        ("clusterroles", "", "editor", role(&["*"], &["apps"], &["*/scale", "deployments"], &["web"])),
        ("rolebindings", "b", "dev", binding("ClusterRole", "editor", json!({ "kind": "Group", "name": "dev" }))),
        (
            "clusterrolebindings",
            "",
            "bot",
            binding("ClusterRole", "editor", json!({ "kind": "ServiceAccount", "namespace": "a", "name": "bot" })),
        ),
        (
            "clusterrolebindings",
            "",
            "none",
            binding("ClusterRole", "absent", json!({ "kind": "User", "name": "jane" })),
        ),
    ]);
    for wanted in [
        "get /pods @a",
        "list /pods x @a",
        "get /pods/log x @a",
        "patch apps/deployments web @b",
        "get apps/x/scale web @b",
    ] {
        assert!(may(&policy, &jane, wanted), "{wanted}");
    }
    for wanted in [
        "get /pods @b",
        "get /pods",
        "get /pods/exec x @a",
        "delete /pods @a",
        "get apps/pods @a",
        "patch apps/deployments other @b",
        "patch apps/deployments @b",
        "patch apps/deployments web @a",
        "get apps/deployments/status web @b",
    ] {
        assert!(!may(&policy, &jane, wanted), "{wanted}");
    }
    assert!(may(&policy, &account, "get apps/deployments web @anywhere"));
    assert!(!may(&policy, &UserInfo::authenticated("bot", &[]), "get apps/deployments web @a"));
}

#[test]
fn paths_are_whole_or_prefixes() {
    let rules = json!({ "rules": [{ "verbs": ["get"], "nonResourceURLs": ["/metrics", "/logs/*"] }] });
    let user = UserInfo::authenticated("m", &[]);
    let policy = policy(&[
        ("clusterroles", "", "r", rules),
        ("clusterrolebindings", "", "b", binding("ClusterRole", "r", json!({ "kind": "User", "name": "m" }))),
    ]);
    let may = |verb, path| policy.permits(&user, Attempt::Path { verb, path }).is_some();
    assert!(may("get", "/metrics") && may("get", "/logs/a/b"));
    assert!(!may("get", "/metrics/x") && !may("post", "/metrics") && !may("get", "/logs"));
}

#[test]
fn what_is_removed_counts_no_more() {
    let mut policy = policy(&[
        ("clusterroles", "", "r", role(&["get"], &[""], &["pods"], &[])),
        ("clusterrolebindings", "", "b", binding("ClusterRole", "r", json!({ "kind": "User", "name": "u" }))),
    ]);
    let user = UserInfo::authenticated("u", &[]);
    assert!(may(&policy, &user, "get /pods"));
    policy.put("clusterroles", "", "r", None);
    assert!(!may(&policy, &user, "get /pods"));
}

#[test]
fn rules_contain_others_part_by_part() {
    let list = |rules: Value| Rule::list(&json!([rules]));
    let own = list(
        json!({ "verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["pods", "*/status"], "resourceNames": [] }),
    );
    let check =
        |wanted: Value, missing: usize| assert_eq!(uncovered(&own, &list(wanted.clone())).len(), missing, "{wanted}");
    check(json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }), 0);
    check(json!({ "verbs": ["get"], "apiGroups": ["apps"], "resources": ["pods/status"], "resourceNames": ["x"] }), 0);
    check(json!({ "verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods", "secrets"] }), 3);
    check(json!({ "verbs": ["*"], "apiGroups": [""], "resources": ["pods"] }), 1);
    check(json!({ "verbs": ["get"], "nonResourceURLs": ["/x"] }), 1);
    let named = list(json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"] }));
    assert_eq!(
        uncovered(&named, &list(json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }))).len(),
        1
    );
}

#[test]
fn an_object_of_the_cluster_gets_back_what_it_lacks_and_keeps_what_was_added() {
    let wanted = bootstrap::objects();
    let view = wanted
        .iter()
        .find(|object| object["metadata"]["name"] == "system:basic-user" && object["kind"] == "ClusterRole");
    let wanted = view.unwrap();
    let mut stored = wanted.clone();
    assert_eq!(bootstrap::completed(&stored, wanted), None);
    stored["rules"] = json!([{ "verbs": ["get"], "apiGroups": ["x"], "resources": ["y"] }]);
    let mended = bootstrap::completed(&stored, wanted).unwrap();
    assert_eq!(mended["rules"][0], stored["rules"][0]);
    assert_eq!(bootstrap::completed(&mended, wanted), None);
    stored["metadata"]["annotations"] = json!({});
    assert_eq!(bootstrap::completed(&stored, wanted), None);
}

#[test]
fn what_every_cluster_has_is_valid() {
    for object in bootstrap::objects() {
        let kind = object["kind"].as_str().unwrap();
        let row = api::resources::find_kind(GROUP, "v1", kind).unwrap();
        assert!((row.validate)(&object).is_empty(), "{}: {object}", row.plural);
    }
}
