//! What objects use of a quota, and whether it suffices (`pkg/quota/v1` of upstream and its evaluators).
//!
//! Pure: the server says which objects there are, and sees to it that nobody else adds any meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::quantity::Quantity;
use crate::resources::path::{entries, items, number, present, text};
pub use crate::resources::pod::requests::Amounts;
use crate::resources::pod::requests::{QosClass, amounts, pod_limits, pod_requests, qos_class};
use crate::resources::{Resource, Verb, storage};

/// Kinds of the core group that are counted under their own names.
const COUNTED: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// What every container must ask for if it is bounded.
const MUST: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// The name under which objects of any kind are counted.
fn count_name(row: &Resource) -> String {
    if row.group.is_empty() { format!("count/{}", row.plural) } else { format!("count/{}.{}", row.plural, row.group) }
}

/// Whether objects of a kind use something of this name.
fn uses(row: &Resource, name: &str) -> bool {
    if name.starts_with("count/") {
        return name == count_name(row);
    }
    if !row.group.is_empty() {
        return false;
    }
    match row.plural {
        "pods" => is_of_pods(name),
        "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => {
            matches!(name, "persistentvolumeclaims" | "requests.storage") || name.contains(OF_CLASS)
        }
        plural => plural == name && COUNTED.contains(&plural),
    }
}

fn is_of_pods(name: &str) -> bool {
    let is_request = name.starts_with("requests.") && name != "requests.storage" && !name.contains(OF_CLASS);
    matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage")
        || is_request
        || name.starts_with("limits.")
        || name.starts_with("hugepages-")
}

/// The kinds among these whose objects a quota is about.
pub fn rows<'a>(quota: &Value, rows: &[&'a Resource]) -> Vec<&'a Resource> {
    let candidates = rows.iter().copied().filter(|row| {
        row.namespaced
            && row.conversion.is_none()
            && row.verbs.contains(&Verb::List)
            && row.verbs.contains(&Verb::Create)
    });
    candidates.filter(|row| is_about(quota, row)).collect()
}

/// Whether a quota bounds something that objects of a kind use.
pub fn is_about(quota: &Value, row: &Resource) -> bool {
    // Nobody counts what tells of others.
    row.plural != "events" && entries(&quota["spec"], "hard").any(|(name, _)| uses(row, name))
}

/// What an object uses, under all names.
pub fn usage(row: &Resource, object: &Value, now: Timestamp) -> Amounts {
    let one = Quantity::from_whole(1);
    let mut used = Amounts::from([(count_name(row), one)]);
    if !row.group.is_empty() {
        return used;
    }
    match row.plural {
        "pods" if is_gone(object, now) => return used,
        "pods" => used.extend(of_pod(object)),
        "services" => used.extend(of_service(&object["spec"])),
        "persistentvolumeclaims" => used.extend(of_claim(object)),
        _ => (),
    }
    if COUNTED.contains(&row.plural) {
        used.insert(row.plural.to_owned(), one);
    }
    used
}

/// Whether a pod has run its course, or should be gone by now if its node were still there (`QuotaV1Pod`).
fn is_gone(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(&pod["status"], "phase"), "Succeeded" | "Failed") {
        return true;
    }
    let meta = &pod["metadata"];
    let Ok(asked) = text(meta, "deletionTimestamp").parse::<Timestamp>() else { return false };
    let Some(grace) = meta["deletionGracePeriodSeconds"].as_i64() else { return false };
    asked.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now > end)
}

/// Amounts under the names that quotas have for them.
fn named(requests: Amounts, limits: Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                used.insert(format!("requests.{name}"), amount);
                used.insert(name, amount);
            }
            pages if pages.starts_with("hugepages-") => {
                used.insert(format!("requests.{name}"), amount);
                used.insert(name, amount);
            }
            extended if extended.contains('/') => drop(used.insert(format!("requests.{name}"), amount)),
            _ => (),
        }
    }
    let known = ["cpu", "memory", "ephemeral-storage"];
    let limits = limits.into_iter().filter(|(name, _)| known.contains(&name.as_str()));
    used.extend(limits.map(|(name, amount)| (format!("limits.{name}"), amount)));
    used
}

fn of_pod(pod: &Value) -> Amounts {
    named(pod_requests(pod), pod_limits(pod))
}

fn of_service(spec: &Value) -> Amounts {
    let ports = items(spec, "ports");
    let given = ports.iter().filter(|port| number(port, "nodePort") != 0).count();
    let (balancers, nodeports) = match text(spec, "type") {
        "NodePort" => (0, ports.len()),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => (1, given),
        "LoadBalancer" => (1, ports.len()),
        _ => (0, 0),
    };
    let whole = |count: usize| Quantity::from_whole(i64::try_from(count).unwrap_or(i64::MAX));
    Amounts::from([
        ("services.loadbalancers".to_owned(), whole(balancers)),
        ("services.nodeports".to_owned(), whole(nodeports)),
    ])
}

fn of_claim(claim: &Value) -> Amounts {
    let mut used = Amounts::new();
    let class = storage::class_of(claim);
    let asked = amounts(&claim["spec"]["resources"], "requests").get("storage").copied();
    let given = amounts(&claim["status"], "allocatedResources").get("storage").copied();
    if let Some(size) = asked.into_iter().chain(given).max() {
        used.insert("requests.storage".to_owned(), size);
        if !class.is_empty() {
            used.insert(format!("{class}{OF_CLASS}requests.storage"), size);
        }
    }
    if !class.is_empty() {
        used.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), Quantity::from_whole(1));
    }
    used
}

/// Whether an object is in all the scopes of a quota.
pub fn matches(quota: &Value, row: &Resource, object: &Value) -> bool {
    let spec = &quota["spec"];
    let named = items(spec, "scopes").iter().map(|scope| (scope.as_str().unwrap_or_default(), "Exists", &[][..]));
    let selected = items(&spec["scopeSelector"], "matchExpressions")
        .iter()
        .map(|expression| (text(expression, "scopeName"), text(expression, "operator"), items(expression, "values")));
    let mut scopes = named.chain(selected);
    match (row.group, row.plural) {
        ("", "pods") => scopes.all(|(scope, operator, values)| pod_is_in(object, scope, operator, values)),
        ("", "persistentvolumeclaims") => scopes.all(|(scope, operator, values)| {
            scope == "VolumeAttributesClass"
                && word_is(text(&object["spec"], "volumeAttributesClassName"), operator, values)
        }),
        _ => scopes.next().is_none(),
    }
}

fn pod_is_in(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let spec = &pod["spec"];
    let ends = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => qos_class(pod) == QosClass::BestEffort,
        "NotBestEffort" => qos_class(pod) != QosClass::BestEffort,
        "PriorityClass" => word_is(text(spec, "priorityClassName"), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(&spec["affinity"]),
        _ => false,
    }
}

/// Whether a word, if there is one, satisfies a condition.
fn word_is(word: &str, operator: &str, values: &[Value]) -> bool {
    let has = values.iter().any(|value| value == word) && !word.is_empty();
    match operator {
        "In" => has,
        "NotIn" => !has,
        "Exists" => !word.is_empty(),
        "DoesNotExist" => word.is_empty(),
        _ => false,
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let crosses = |term: &Value| !items(term, "namespaces").is_empty() || present(term, "namespaceSelector");
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        items(&affinity[kind], REQUIRED).iter().any(crosses)
            || items(&affinity[kind], PREFERRED).iter().any(|weighted| crosses(&weighted["podAffinityTerm"]))
    })
}

/// What the containers of a pod must say because a quota bounds it; none if they say it.
pub fn unsaid(quota: &Value, pod: &Value) -> Option<String> {
    if present(&pod["spec"], "resources") {
        return None;
    }
    let hard: BTreeSet<&str> = entries(&quota["spec"], "hard").map(|(name, _)| name.as_str()).collect();
    let must: Vec<&str> = MUST.into_iter().filter(|name| hard.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for list in ["containers", "initContainers"] {
        for container in items(&pod["spec"], list) {
            let resources = &container["resources"];
            let said = named(amounts(resources, "requests"), amounts(resources, "limits"));
            for name in must.iter().filter(|name| !said.contains_key(**name)) {
                missing.entry(name).or_default().insert(text(container, "name"));
            }
        }
    }
    let told = |(name, containers): (&&str, &BTreeSet<&str>)| {
        format!("{name} for: {}", Vec::from_iter(containers.iter().copied()).join(","))
    };
    let parts: Vec<String> = missing.iter().map(told).collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

/// Adds what an object uses to a sum.
pub fn add(sum: &mut Amounts, used: &Amounts) {
    for (name, amount) in used {
        let own = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *own = own.plus(*amount);
    }
}

/// What an object uses more than its former state did.
pub fn growth(new: Amounts, old: &Amounts) -> Amounts {
    let more = new.into_iter().filter_map(|(name, amount)| {
        let before = old.get(&name).copied().unwrap_or(Quantity::ZERO);
        (amount > before).then(|| (name, amount.minus(before)))
    });
    more.collect()
}

/// Why there is no room for more in a quota; none if there is.
pub fn exceeded(quota: &Value, used: &Amounts, more: &Amounts) -> Option<String> {
    let hard = amounts(&quota["spec"], "hard");
    let mut parts: [Vec<String>; 3] = Default::default();
    for (name, most) in &hard {
        let Some(asked) = more.get(name).filter(|asked| !asked.is_zero()) else { continue };
        let used = used.get(name).copied().unwrap_or(Quantity::ZERO);
        if used.plus(*asked) > *most {
            for (list, amount) in parts.iter_mut().zip([*asked, used, *most]) {
                list.push(format!("{name}={amount}"));
            }
        }
    }
    let [requested, used, limited] = parts.map(|part| part.join(","));
    let name = text(&quota["metadata"], "name");
    (!requested.is_empty())
        .then(|| format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"))
}

/// The status that says what is used of a quota.
pub fn status(quota: &Value, used: &Amounts) -> Value {
    let hard = &quota["spec"]["hard"];
    let names = entries(&quota["spec"], "hard").map(|(name, _)| name);
    let used = names.map(|name| {
        let amount = used.get(name).copied().unwrap_or(Quantity::ZERO);
        (name.clone(), amount.to_string().into())
    });
    let used = Value::Object(used.collect());
    serde_json::json!({"hard": hard, "used": used})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{all, find};

    fn row(plural: &str) -> &'static Resource {
        all().iter().copied().find(|row| row.plural == plural).unwrap()
    }

    fn used(plural: &str, object: Value) -> Value {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let used = usage(row(plural), &object, now).into_iter().filter(|(_, amount)| !amount.is_zero());
        used.map(|(name, amount)| (name, Value::from(amount.to_string()))).collect::<serde_json::Map<_, _>>().into()
    }

    fn quota(hard: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
    }

    #[test]
    fn pods_use_what_their_containers_ask_for() {
        let resources = json!({
            "requests": {"cpu": "100m", "memory": "1Mi", "example.org/gpu": "1", "hugepages-2Mi": "2Mi"},
            "limits": {"cpu": "1", "example.org/gpu": "1"},
        });
        let pod = json!({"spec": {"containers": [{"resources": resources}, {"resources": resources}]}});
        let expected = json!({
            "count/pods": "1", "pods": "1", "cpu": "200m", "requests.cpu": "200m", "memory": "2Mi",
            "requests.memory": "2Mi", "limits.cpu": "2", "requests.example.org/gpu": "2", "hugepages-2Mi": "4Mi",
            "requests.hugepages-2Mi": "4Mi",
        });
        assert_eq!(used("pods", pod.clone()), expected);
        let mut done = pod.clone();
        done["status"] = json!({"phase": "Succeeded"});
        assert_eq!(used("pods", done), json!({"count/pods": "1"}));
        let mut stuck = pod;
        stuck["metadata"] = json!({"deletionTimestamp": "2026-01-02T03:04:00Z", "deletionGracePeriodSeconds": 4});
        assert_eq!(used("pods", stuck.clone()), json!({"count/pods": "1"}));
        stuck["metadata"]["deletionGracePeriodSeconds"] = json!(10);
        assert_eq!(used("pods", stuck), expected);
    }

    #[test]
    fn services_and_claims_use_more_than_their_number() {
        let service = |spec: Value| used("services", json!({"spec": spec}));
        let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
        assert_eq!(service(json!({"ports": ports})), json!({"count/services": "1", "services": "1"}));
        assert_eq!(service(json!({"type": "NodePort", "ports": ports}))["services.nodeports"], "2");
        let balancer = json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false});
        let expected = json!({
            "count/services": "1", "services": "1", "services.loadbalancers": "1", "services.nodeports": "1",
        });
        assert_eq!(service(balancer), expected);
        let claim = json!({
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}},
        });
        let expected = json!({
            "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2Gi",
            "fast.storageclass.storage.k8s.io/requests.storage": "2Gi",
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        });
        assert_eq!(used("persistentvolumeclaims", claim), expected);
        assert_eq!(used("deployments", json!({})), json!({"count/deployments.apps": "1"}));
        assert_eq!(used("secrets", json!({})), json!({"count/secrets": "1", "secrets": "1"}));
    }

    #[test]
    fn a_quota_is_about_the_kinds_that_use_what_it_bounds() {
        let plurals = |hard: Value| rows(&quota(hard), all()).into_iter().map(|row| row.plural).collect::<Vec<_>>();
        assert_eq!(plurals(json!({"requests.cpu": "1"})), ["pods"]);
        assert_eq!(plurals(json!({"requests.storage": "1"})), ["persistentvolumeclaims"]);
        assert_eq!(plurals(json!({"x.storageclass.storage.k8s.io/requests.storage": "1"})), ["persistentvolumeclaims"]);
        assert_eq!(plurals(json!({"count/jobs.batch": "1", "configmaps": "2"})), ["configmaps", "jobs"]);
        assert_eq!(plurals(json!({"count/events": "1", "count/nothing.example": "1"})), [""; 0]);
        assert!(find("", "v1", "pods").is_some_and(|pods| is_about(&quota(json!({"pods": "1"})), pods)));
    }

    #[test]
    fn scopes_leave_objects_out() {
        let pod = json!({"spec": {
            "priorityClassName": "high", "activeDeadlineSeconds": 5,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
        }});
        let with = |spec: Value| matches(&json!({"spec": spec}), row("pods"), &pod);
        let scope = |scope: &str| with(json!({"scopes": [scope]}));
        assert!(with(json!({})) && scope("Terminating") && scope("NotBestEffort") && scope("PriorityClass"));
        assert!(!scope("NotTerminating") && !scope("BestEffort") && !scope("CrossNamespacePodAffinity"));
        let selects = |operator: &str, values: Value| {
            let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            with(json!({"scopeSelector": {"matchExpressions": [expression]}}))
        };
        assert!(selects("In", json!(["high"])) && !selects("NotIn", json!(["high"])) && selects("NotIn", json!(["x"])));
        assert!(selects("Exists", json!([])) && !selects("DoesNotExist", json!([])));
        assert!(!matches(&json!({"spec": {"scopes": ["BestEffort"]}}), row("services"), &json!({})));
    }

    #[test]
    fn containers_must_say_what_is_bounded() {
        let quota = quota(json!({"limits.cpu": "1", "requests.memory": "1Gi", "pods": "1"}));
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(unsaid(&quota, &pod).unwrap(), "must specify limits.cpu for: a,b; requests.memory for: a,b");
        for index in 0..2 {
            pod["spec"]["containers"][index]["resources"] =
                json!({"limits": {"cpu": "1"}, "requests": {"memory": "1"}});
        }
        assert_eq!(unsaid(&quota, &pod), None);
    }

    #[test]
    fn what_does_not_fit_is_told_in_upstreams_words() {
        let quota = quota(json!({"pods": "2", "requests.cpu": "1", "services": "0"}));
        let used = Amounts::from([("pods".to_owned(), Quantity::from_whole(2))]);
        let more = Amounts::from([
            ("pods".to_owned(), Quantity::from_whole(1)),
            ("requests.cpu".to_owned(), Quantity::from_milli(1500)),
        ]);
        assert_eq!(
            exceeded(&quota, &used, &more).unwrap(),
            "exceeded quota: q, requested: pods=1,requests.cpu=1500m, used: pods=2,requests.cpu=0, limited: \
             pods=2,requests.cpu=1"
        );
        assert_eq!(exceeded(&quota, &Amounts::new(), &growth(more.clone(), &more)), None);
        let expected = json!({
            "hard": {"pods": "2", "requests.cpu": "1", "services": "0"},
            "used": {"pods": "2", "requests.cpu": "0", "services": "0"},
        });
        assert_eq!(status(&quota, &used), expected);
    }
}
