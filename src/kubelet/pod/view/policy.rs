//! When an ended container is started again.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

/// When a container is started again, whatever its rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pod) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(super) fn parse(text: Option<&str>) -> Self {
        Self::known(text).unwrap_or(Self::Always)
    }

    fn known(text: Option<&str>) -> Option<Self> {
        match text? {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// When a container is started again: the first of its rules that fits the exit code, else its policy (KEP-5307).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::pod) struct Restarts<'a> {
    policy: RestartPolicy,
    rules: &'a [ContainerRestartRule],
}

impl<'a> Restarts<'a> {
    /// Never.
    pub(super) const NEVER: Self = Self { policy: RestartPolicy::Never, rules: &[] };

    /// What a container says for itself, else what `policy` says.
    pub(super) fn of(container: &'a Container, policy: RestartPolicy) -> Self {
        let own = RestartPolicy::known(container.restart_policy.as_deref());
        Self { policy: own.unwrap_or(policy), rules: container.restart_policy_rules.as_deref().unwrap_or_default() }
    }

    /// Whether an end with this code is followed by another start.
    pub(in crate::pod) fn after(&self, code: i32) -> bool {
        if self.rule(code).is_some() {
            return true;
        }
        match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// Whether an end with this code is followed by a start of the whole pod (KEP-5532).
    pub(in crate::pod) fn all_after(&self, code: i32) -> bool {
        self.rule(code) == Some(Act::RestartAll)
    }

    /// Whether any end is.
    pub(in crate::pod) fn may_restart_all(&self) -> bool {
        self.rules.iter().any(|rule| act(rule) == Some(Act::RestartAll))
    }

    /// What the first rule says that fits.
    fn rule(&self, code: i32) -> Option<Act> {
        self.rules.iter().filter(|rule| applies(rule, code)).find_map(act)
    }
}

fn act(rule: &ContainerRestartRule) -> Option<Act> {
    match rule.action.as_str() {
        "Restart" => Some(Act::Restart),
        "RestartAllContainers" => Some(Act::RestartAll),
        _ => None,
    }
}

/// What a rule has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Restart,
    RestartAll,
}

fn applies(rule: &ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.iter().flatten().any(|value| *value == code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn restarts(container: serde_json::Value, pod: &str) -> Vec<i32> {
        let container: Container = serde_json::from_value(container).expect("a container");
        let restarts = Restarts::of(&container, RestartPolicy::parse(Some(pod)));
        [0, 1, 42].into_iter().filter(|code| restarts.after(*code)).collect()
    }

    #[test]
    fn a_containers_own_policy_precedes_its_pods() {
        assert_eq!(restarts(json!({"name": "a"}), "OnFailure"), [1, 42]);
        assert_eq!(restarts(json!({"name": "a", "restartPolicy": "Never"}), "Always"), [0_i32; 0]);
        assert_eq!(restarts(json!({"name": "a", "restartPolicy": "Always"}), "Never"), [0, 1, 42]);
    }

    #[test]
    fn the_first_rule_that_fits_says_how_much_is_restarted() {
        let rule = |action, value| json!({"action": action, "exitCodes": {"operator": "In", "values": [value]}});
        let rules = json!([rule("Restart", 1), rule("RestartAllContainers", 1), rule("RestartAllContainers", 42)]);
        let container = json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules});
        let container: Container = serde_json::from_value(container).expect("a container");
        let restarts = Restarts::of(&container, RestartPolicy::Never);
        assert_eq!(
            [0, 1, 42].map(|code| (restarts.after(code), restarts.all_after(code))),
            [(false, false), (true, false), (true, true)]
        );
        assert!(restarts.may_restart_all() && !Restarts::NEVER.may_restart_all());
    }

    #[test]
    fn a_rule_that_fits_restarts_and_else_the_policy_decides() {
        let rule = |operator| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
        let own = |operator| json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rule(operator)});
        assert_eq!(restarts(own("In"), "Always"), [42]);
        assert_eq!(restarts(own("NotIn"), "Always"), [0, 1]);
    }
}
