//! What LimitRanges do to new pods and claims (`plugin/pkg/admission/limitranger` of upstream).

use serde_json::Value;

use crate::quantity::Quantity;
use crate::resources::path::{ensure_object, items, items_mut, present, put, text};
use crate::resources::pod::requests::{Amounts, amounts, pod_limits, pod_requests};

/// Where a pod says what it was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn limits<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    items(&range["spec"], "limits").iter().filter(move |limit| text(limit, "type") == kind)
}

/// Gives the containers of a pod what a LimitRange says of those that do not say it themselves. Idempotent.
pub fn default_pod(pod: &mut Value, range: &Value) {
    let mut defaults = [("requests", "request", Amounts::new()), ("limits", "limit", Amounts::new())];
    for limit in limits(range, "Container") {
        for ((.., own), field) in defaults.iter_mut().zip(["defaultRequest", "default"]) {
            own.extend(amounts(limit, field));
        }
    }
    let mut given = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(spec) = pod.get_mut("spec") else { return };
        for container in items_mut(spec, list) {
            let name = text(container, "name").to_owned();
            for (field, word, amounts) in &defaults {
                let names = fill(container, field, amounts);
                if !names.is_empty() {
                    given.push(format!("{} {word} for {what} {name}", names.join(", ")));
                }
            }
        }
    }
    if !given.is_empty() {
        let annotations = ensure_object(ensure_object(pod, "metadata"), "annotations");
        put(annotations, ANNOTATION, &format!("LimitRanger plugin set: {}", given.join("; ")).into());
    }
}

/// The names of what was missing and is there now, sorted.
fn fill(container: &mut Value, field: &str, defaults: &Amounts) -> Vec<String> {
    let own = &container["resources"][field];
    let missing: Vec<(String, Quantity)> =
        defaults.iter().filter(|(name, _)| !present(own, name)).map(|(name, amount)| (name.clone(), *amount)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let own = ensure_object(ensure_object(container, "resources"), field);
    for (name, amount) in &missing {
        put(own, name, &amount.to_string().into());
    }
    missing.into_iter().map(|(name, _)| name).collect()
}

/// What a LimitRange has against a pod.
pub fn pod_violations(pod: &Value, range: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for limit in items(&range["spec"], "limits") {
        match text(limit, "type") {
            "Container" => {
                for list in ["containers", "initContainers"] {
                    for container in items(&pod["spec"], list) {
                        let own = &container["resources"];
                        check(limit, &amounts(own, "requests"), &amounts(own, "limits"), &mut wrong);
                    }
                }
            }
            "Pod" => check(limit, &pod_requests(pod), &pod_limits(pod), &mut wrong),
            _ => (),
        }
    }
    wrong
}

/// What a LimitRange has against a claim.
pub fn claim_violations(claim: &Value, range: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let asked = amounts(&claim["spec"]["resources"], "requests");
    for limit in limits(range, "PersistentVolumeClaim") {
        for (name, least) in amounts(limit, "min") {
            wrong.extend(minimum(&name, text(limit, "type"), least, asked.get(&name), None));
        }
        for (name, most) in amounts(limit, "max") {
            let start = format!("maximum {name} usage per {} is {most}", text(limit, "type"));
            match asked.get(&name) {
                None => wrong.push(format!("{start}.  No request is specified")),
                Some(asked) if *asked > most => wrong.push(format!("{start}, but request is {asked}")),
                Some(_) => (),
            }
        }
    }
    wrong
}

fn check(limit: &Value, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    let kind = text(limit, "type");
    for (name, least) in amounts(limit, "min") {
        wrong.extend(minimum(&name, kind, least, requests.get(&name), limits.get(&name)));
    }
    for (name, most) in amounts(limit, "max") {
        wrong.extend(maximum(&name, kind, most, requests.get(&name), limits.get(&name)));
    }
    for (name, most) in amounts(limit, "maxLimitRequestRatio") {
        wrong.extend(ratio(&name, kind, most, requests.get(&name), limits.get(&name)));
    }
}

fn minimum(
    name: &str,
    kind: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("minimum {name} usage per {kind} is {least}");
    match (request, limit) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{start}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{start}, but limit is {limit}")),
        _ => None,
    }
}

fn maximum(
    name: &str,
    kind: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("maximum {name} usage per {kind} is {most}");
    match (request, limit) {
        (_, None) => Some(format!("{start}.  No limit is specified")),
        (_, Some(limit)) if *limit > most => Some(format!("{start}, but limit is {limit}")),
        (Some(request), _) if *request > most => Some(format!("{start}, but request is {request}")),
        _ => None,
    }
}

fn ratio(
    name: &str,
    kind: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {most}");
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    #[expect(clippy::cast_precision_loss, reason = "a ratio for comparison, computed so by upstream")]
    let (found, most) = (limit.milli_value() as f64 / request.milli_value() as f64, most.milli_value() as f64 / 1000.0);
    (found > most).then(|| format!("{start}, but provided ratio is {found:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": limits}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let range = range(json!([
            {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}},
            {"type": "Pod", "max": {"cpu": "9"}},
        ]));
        let mut changed = pod(json!({"limits": {"cpu": "2"}}));
        changed["spec"]["initContainers"] = json!([{"name": "i"}]);
        default_pod(&mut changed, &range);
        let own = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}});
        assert_eq!(changed["spec"]["containers"][0]["resources"], own);
        assert_eq!(
            changed["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c; cpu request for init \
             container i; cpu, memory limit for init container i"
        );
        let once = changed.clone();
        default_pod(&mut changed, &range);
        assert_eq!(changed, once);
        let mut untouched = pod(json!({}));
        default_pod(&mut untouched, &json!({"spec": {"limits": [{"type": "Pod", "default": {"cpu": "1"}}]}}));
        assert_eq!(untouched, pod(json!({})));
    }

    #[test]
    fn pods_outside_the_limits_are_named_with_upstreams_words() {
        let container = |limits: Value| range(json!([limits]));
        let min = container(json!({"type": "Container", "min": {"cpu": "100m"}}));
        let max = container(json!({"type": "Container", "max": {"memory": "1Gi"}}));
        let ratio = container(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}));
        let whole = container(json!({"type": "Pod", "max": {"cpu": "1"}}));
        let cases = [
            (&min, json!({}), "minimum cpu usage per Container is 100m.  No request is specified"),
            (&min, json!({"requests": {"cpu": "50m"}}), "minimum cpu usage per Container is 100m, but request is 50m"),
            (
                &min,
                json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "10m"}}),
                "minimum cpu usage per Container is 100m, but limit is 10m",
            ),
            (&max, json!({}), "maximum memory usage per Container is 1Gi.  No limit is specified"),
            (&max, json!({"limits": {"memory": "2Gi"}}), "maximum memory usage per Container is 1Gi, but limit is 2Gi"),
            (
                &max,
                json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi"}}),
                "maximum memory usage per Container is 1Gi, but request is 2Gi",
            ),
            (
                &ratio,
                json!({"limits": {"cpu": "1"}}),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
            (
                &ratio,
                json!({"requests": {"cpu": "1"}}),
                "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
            ),
            (
                &ratio,
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (&whole, json!({"limits": {"cpu": "2"}}), "maximum cpu usage per Pod is 1, but limit is 2"),
        ];
        for (range, resources, expected) in cases {
            assert_eq!(pod_violations(&pod(resources.clone()), range), [expected], "{resources}");
        }
        assert_eq!(pod_violations(&pod(json!({"requests": {"cpu": "100m"}})), &min), [""; 0]);
    }

    #[test]
    fn claims_outside_the_limits_are_named_with_upstreams_words() {
        let range =
            range(json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]));
        let violations =
            |size: &str| claim_violations(&json!({"spec": {"resources": {"requests": {"storage": size}}}}), &range);
        assert_eq!(violations("1Gi"), [""; 0]);
        let least = "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi";
        assert_eq!(violations("1Mi"), [least]);
        let most = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
        assert_eq!(violations("3Gi"), [most]);
    }
}
