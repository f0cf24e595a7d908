//! Checks of how containers are restarted and stopped: their own policies and rules (`validateContainerRestartPolicy`,
//! KEP-5307, KEP-5532) and their stop signals (`validateStopSignal`, KEP-4960).

use serde_json::Value;

use crate::resources::path::{Path, items, present, text};
use crate::resources::rule;
use crate::status::FieldError;

/// How many rules a container may have, and how many exit codes a rule.
const RULES: usize = 20;
const CODES: usize = 255;

/// Signals by name; the real-time ones count up from the first and down from the last.
const SIGNALS: [&str; 34] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// Checks a container's `restartPolicy` and `restartPolicyRules`.
pub(super) fn check(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let own = path.child("restartPolicy");
    let rules = items(container, "restartPolicyRules");
    if present(container, "restartPolicy") {
        errors.extend(rule::one_of(&own, text(container, "restartPolicy"), &["Always", "OnFailure", "Never"]));
    } else if !rules.is_empty() {
        errors.push(FieldError::required(own, "must specify restartPolicy when restart rules are used"));
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > RULES {
        errors.push(FieldError::too_many(&path, rules.len(), RULES));
    }
    for (index, one) in rules.iter().enumerate() {
        check_rule(one, &path.index(index), errors);
    }
}

fn check_rule(one: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    errors.extend(rule::required_one_of(
        &path.child("action"),
        text(one, "action"),
        &["Restart", "RestartAllContainers"],
    ));
    let codes_path = path.child("exitCodes");
    if !present(one, "exitCodes") {
        errors.push(FieldError::required(codes_path, "must be specified"));
        return;
    }
    let codes = &one["exitCodes"];
    errors.extend(rule::required_one_of(&codes_path.child("operator"), text(codes, "operator"), &["In", "NotIn"]));
    let values = items(codes, "values");
    if values.is_empty() {
        errors.push(FieldError::required(codes_path.child("values"), "must specify at least one value"));
    } else if values.len() > CODES {
        errors.push(FieldError::too_many(codes_path.child("values"), values.len(), CODES));
    }
}

/// Checks `lifecycle.stopSignal`, whose meaning depends on the operating system.
pub(super) fn check_signal(spec: &Value, container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let lifecycle = &container["lifecycle"];
    if !present(lifecycle, "stopSignal") {
        return;
    }
    let (path, signal) = (path.child("lifecycle").child("stopSignal"), text(lifecycle, "stopSignal"));
    let known = match text(&spec["os"], "name") {
        "" => {
            let detail = "may not be set for containers with empty `spec.os.name`";
            errors.push(FieldError::forbidden(path, detail));
            return;
        }
        "windows" => vec!["SIGKILL".to_owned(), "SIGTERM".to_owned()],
        _ => linux(),
    };
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    errors.extend(rule::one_of(&path, signal, &known));
}

fn linux() -> Vec<String> {
    let up = (1..=15).map(|count| format!("SIGRTMIN+{count}"));
    let down = (1..=14).map(|count| format!("SIGRTMAX-{count}"));
    let ends = ["SIGRTMIN", "SIGRTMAX"].map(str::to_owned);
    let mut all: Vec<String> = SIGNALS.map(str::to_owned).into_iter().chain(ends).chain(up).chain(down).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.text)).collect()
    }

    fn errors(container: Value) -> Vec<String> {
        let mut errors = Vec::new();
        check(&container, &Path::new("c"), &mut errors);
        texts(errors)
    }

    fn signal(os: Value, signal: &str) -> Vec<String> {
        let mut errors = Vec::new();
        let container = json!({"lifecycle": {"stopSignal": signal}});
        check_signal(&json!({ "os": os }), &container, &Path::new("c"), &mut errors);
        texts(errors)
    }

    #[test]
    fn rules_need_a_policy_an_action_and_codes() {
        let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}});
        assert_eq!(errors(json!({"restartPolicy": "Never", "restartPolicyRules": [rule]})), [""; 0]);
        let without = errors(json!({"restartPolicyRules": [rule]}));
        assert_eq!(
            without,
            ["c.restartPolicy: Required value: must specify restartPolicy when restart rules are used"]
        );
        let all = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0]}});
        assert_eq!(errors(json!({"restartPolicy": "Never", "restartPolicyRules": [all]})), [""; 0]);
        let other = json!({"action": "RestartPod", "exitCodes": {"operator": "In", "values": [1]}});
        let supported = "c.restartPolicyRules[0].action: Unsupported value: \"RestartPod\": supported values: \"Restart\", \"RestartAllContainers\"";
        assert_eq!(errors(json!({"restartPolicy": "Never", "restartPolicyRules": [other]})), [supported]);
        let empty = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": []}});
        let empty = errors(json!({"restartPolicy": "Never", "restartPolicyRules": [empty, {"action": "Restart"}]}));
        let expected = [
            "c.restartPolicyRules[0].exitCodes.values: Required value: must specify at least one value",
            "c.restartPolicyRules[1].exitCodes: Required value: must be specified",
        ];
        assert_eq!(empty, expected);
        assert_eq!(errors(json!({"restartPolicy": "Sometimes"})).len(), 1);
    }

    #[test]
    fn a_stop_signal_is_one_of_the_named_operating_system() {
        assert_eq!(signal(json!({"name": "linux"}), "SIGRTMIN+3"), [""; 0]);
        assert_eq!(signal(json!({"name": "windows"}), "SIGTERM"), [""; 0]);
        assert_eq!(signal(json!({"name": "windows"}), "SIGUSR1").len(), 1);
        assert_eq!(signal(json!({"name": "linux"}), "TERM").len(), 1);
        let nameless = "c.lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`";
        assert_eq!(signal(json!(null), "SIGTERM"), [nameless]);
    }
}
