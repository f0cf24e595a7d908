//! Whether a budget lets a pod go, and what it says afterwards.
//!
//! Follows `checkAndDecrement` and `canIgnorePDB` of `pkg/registry/core/pod/storage/eviction.go` and
//! `UpdateDisruptionAllowedCondition` of `k8s.io/component-helpers/apps/poddisruptionbudget`.

use api::resources::disruption::{allow_condition, is_ready};
use api::status::{ApiError, Cause};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{is_terminating, meta};

/// Evictions that the disruption controller has not noticed, at most.
const MOST_UNNOTICED: usize = 2000;
/// Seconds after which to ask again while a budget is being worked out.
const SOON: u32 = 10;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What stands between a pod and its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Gate {
    /// Nothing: it has ended, is ending, or has not begun.
    Open {
        /// Only in exactly this state, because it may begin meanwhile.
        exactly: bool,
    },
    /// Budgets, if there are any.
    Budgets,
}

/// What a budget says to an eviction.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// The pod may go, and this is the budget afterwards.
    Spend(Value),
    /// The pod does not count, so it may go as long as it is in exactly this state.
    Free,
}

/// Whether budgets are to be asked about a pod.
pub(super) fn gate(pod: &Value) -> Gate {
    match pod["status"]["phase"].as_str() {
        Some("Succeeded" | "Failed") => Gate::Open { exactly: false },
        _ if is_terminating(pod) => Gate::Open { exactly: false },
        Some("Pending") => Gate::Open { exactly: true },
        _ => Gate::Budgets,
    }
}

/// Asks a budget.
pub(super) fn ask(budget: &Value, pod: &Value, now: Timestamp) -> Result<Answer, ApiError> {
    let (spec, status, name) = (&budget["spec"], &budget["status"], meta(budget, "name"));
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    if !is_ready(pod) {
        let always = spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            return Ok(Answer::Free);
        }
    }
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(in_work(name));
    }
    let forbidden = |text: &str| Err(ApiError::forbidden("policy", "poddisruptionbudget", name, text));
    let allowed = number("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_UNNOTICED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let text = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(too_many(text, 0));
    }
    let mut after = budget.clone();
    let moment = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    after["status"]["disruptionsAllowed"] = json!(allowed - 1);
    after["status"]["disruptedPods"][meta(pod, "name")] = json!(moment);
    if allowed == 1 {
        allow_condition(&mut after["status"], &moment);
    }
    Ok(Answer::Spend(after))
}

/// 429: the budget is not known yet, or what it was asked about has changed.
pub(super) fn in_work(name: &str) -> ApiError {
    too_many(format!("The disruption budget {name} is still being processed by the server."), SOON)
}

fn too_many(cause: String, seconds: u32) -> ApiError {
    let mut error = ApiError::too_many_requests(REFUSED, seconds);
    if let Some(details) = &mut error.details {
        details.causes = vec![Cause { reason: "DisruptionBudget".to_owned(), message: cause, field: String::new() }];
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn budget(allowed: i64, healthy: i64, desired: i64) -> Value {
        json!({
            "metadata": { "name": "b", "generation": 2 }, "spec": {},
            "status": {
                "observedGeneration": 2, "disruptionsAllowed": allowed, "currentHealthy": healthy,
                "desiredHealthy": desired, "expectedPods": 3,
            },
        })
    }

    fn pod(ready: bool) -> Value {
        let word = if ready { "True" } else { "False" };
        let conditions = [json!({ "type": "Ready", "status": word })];
        json!({ "metadata": { "name": "p" }, "status": { "phase": "Running", "conditions": conditions } })
    }

    fn cause(error: &ApiError) -> (u16, u32, &str) {
        let details = error.details.as_ref().unwrap();
        (error.code, details.retry_after_seconds, details.causes[0].message.as_str())
    }

    #[test]
    fn a_pod_that_runs_is_what_budgets_are_for() {
        let phase = |phase: &str| gate(&json!({ "status": { "phase": phase } }));
        assert_eq!((phase("Running"), phase("Unknown")), (Gate::Budgets, Gate::Budgets));
        assert_eq!((phase("Failed"), phase("Pending")), (Gate::Open { exactly: false }, Gate::Open { exactly: true }));
        let ending = json!({ "metadata": { "deletionTimestamp": "x" }, "status": { "phase": "Pending" } });
        assert_eq!(gate(&ending), Gate::Open { exactly: false });
    }

    #[test]
    fn a_disruption_is_spent_and_the_last_one_is_told() {
        let Answer::Spend(after) = ask(&budget(2, 3, 1), &pod(true), now()).unwrap() else { panic!("not spent") };
        assert_eq!(after["status"]["disruptionsAllowed"], 1);
        assert_eq!(after["status"]["disruptedPods"], json!({ "p": "2026-01-02T03:04:05Z" }));
        assert!(after["status"]["conditions"].is_null());
        let Answer::Spend(after) = ask(&budget(1, 3, 2), &pod(true), now()).unwrap() else { panic!("not spent") };
        assert_eq!(after["status"]["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn an_exhausted_or_unknown_budget_refuses() {
        let text = "The disruption budget b needs 2 healthy pods and has 2 currently";
        assert_eq!(cause(&ask(&budget(0, 2, 2), &pod(true), now()).unwrap_err()), (429, 0, text));
        let mut stale = budget(1, 3, 2);
        stale["metadata"]["generation"] = json!(3);
        let text = "The disruption budget b is still being processed by the server.";
        assert_eq!(cause(&ask(&stale, &pod(true), now()).unwrap_err()), (429, 10, text));
        assert_eq!(ask(&budget(-1, 3, 2), &pod(true), now()).unwrap_err().code, 403);
        let mut full = budget(1, 3, 2);
        for number in 0..=MOST_UNNOTICED {
            full["status"]["disruptedPods"][number.to_string()] = json!("2026-01-02T03:04:05Z");
        }
        assert_eq!(ask(&full, &pod(true), now()).unwrap_err().code, 403);
    }

    #[test]
    fn an_unhealthy_pod_is_free_if_enough_others_are_healthy_or_it_is_always_allowed() {
        assert_eq!(ask(&budget(0, 2, 2), &pod(false), now()).unwrap(), Answer::Free);
        assert_eq!(ask(&budget(0, 1, 2), &pod(false), now()).unwrap_err().code, 429);
        let mut always = budget(0, 1, 2);
        always["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        assert_eq!(ask(&always, &pod(false), now()).unwrap(), Answer::Free);
    }
}
