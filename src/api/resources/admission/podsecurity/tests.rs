use serde_json::json;

use super::*;

fn standard(level: Level) -> Standard {
    Standard { level, version: Version::Latest }
}

fn found(level: Level, spec: Value) -> String {
    violations(standard(level), &json!({}), &spec).unwrap_or_default()
}

/// A pod that satisfies everything, with changes.
fn hardened(change: Value) -> Value {
    let mut spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        }}],
    });
    json_patch::merge(&mut spec, &change);
    spec
}

#[test]
fn labels_say_what_is_demanded() {
    let labels = |pairs: &[(&str, &str)]| {
        let map = pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), Value::from(*value)));
        policy(&Value::Object(map.collect()))
    };
    let (nothing, errors) = policy(&Value::Null);
    assert_eq!(
        (nothing.enforce, nothing.warn, errors.len()),
        (standard(Level::Privileged), standard(Level::Privileged), 0)
    );
    let (own, _) = labels(&[("enforce", "baseline"), ("enforce-version", "v1.29"), ("warn", "restricted")]);
    assert_eq!((own.enforce.to_string(), own.warn.to_string()), ("baseline:v1.29".into(), "restricted:latest".into()));
    let (alone, _) = labels(&[("enforce", "restricted"), ("enforce-version", "v1.30")]);
    assert_eq!(alone.warn, alone.enforce);
    let (wrong, errors) =
        labels(&[("enforce", "strict"), ("warn", "strict"), ("warn-version", "v1.01"), ("audit", "x")]);
    assert_eq!((wrong.enforce.level, wrong.warn.level), (Level::Restricted, Level::Privileged));
    let texts: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.text)).collect();
    let invalid = "must be one of privileged, baseline, restricted";
    assert_eq!(
        texts,
        [
            format!("metadata.labels[{PREFIX}enforce]: Invalid value: \"strict\": {invalid}"),
            format!("metadata.labels[{PREFIX}audit]: Invalid value: \"x\": {invalid}"),
            format!("metadata.labels[{PREFIX}warn]: Invalid value: \"strict\": {invalid}"),
            format!("metadata.labels[{PREFIX}warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\""),
        ]
    );
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let plain = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(found(Level::Privileged, plain.clone()), "");
    assert_eq!(found(Level::Baseline, plain.clone()), "");
    assert_eq!(
        found(Level::Restricted, plain),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers \"a\", \"b\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or containers \"a\", \"b\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or containers \"a\", \"b\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(found(Level::Restricted, hardened(json!({}))), "");
}

#[test]
fn each_rule_of_baseline_is_told_in_upstreams_words() {
    let container = |own: Value| {
        let mut container = json!({"name": "a"});
        json_patch::merge(&mut container, &own);
        json!({"containers": [container]})
    };
    let context = |own: Value| container(json!({"securityContext": own}));
    let cases = [
        (json!({"hostPID": true, "hostNetwork": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "hostPath volumes (volume \"v\")"),
        (
            container(json!({"ports": [{"hostPort": 80}, {"hostPort": 443}]})),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"host": "h"}}})),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
        ),
        (
            context(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            context(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            context(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            context(json!({"seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"}})),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be \
             set; role may not be set)",
        ),
        (
            context(json!({"seccompProfile": {"type": "Unconfined"}})),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}), "forbidden sysctls (kernel.msgmax)"),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(found(Level::Baseline, spec.clone()), expected, "{spec}");
        assert_eq!(found(Level::Privileged, spec), "");
    }
    let annotated = json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}});
    assert_eq!(
        violations(standard(Level::Baseline), &annotated, &json!({})).unwrap(),
        "forbidden AppArmor profile (annotation \"container.apparmor.security.beta.kubernetes.io/a\" must not set \
         AppArmor profile type to \"unconfined\")"
    );
}

#[test]
fn each_rule_of_restricted_is_told_in_upstreams_words() {
    let cases = [
        (
            json!({"volumes": [{"name": "v", "nfs": {}}, {"name": "w", "image": {}}, {"name": "e"}]}),
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"nfs\", \"unknown\")",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {}}]}),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (
            json!({"securityContext": {"runAsNonRoot": false}}),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
        ),
        (json!({"securityContext": {"runAsUser": 0}}), "runAsUser=0 (pod must not set runAsUser=0)"),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"ephemeralContainers": [{"name": "d", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}}]}),
            "unrestricted capabilities (container \"d\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(found(Level::Restricted, hardened(change.clone())), expected, "{change}");
    }
}

#[test]
fn rules_are_those_of_the_version_that_is_asked_for() {
    let at = |minor: u32, level: Level, spec: &Value| {
        violations(Standard { level, version: Version::Minor(minor) }, &json!({}), spec).is_some()
    };
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    assert!(at(31, Level::Baseline, &sysctl) && !at(32, Level::Baseline, &sysctl));
    let probe = json!({"containers": [{"name": "a", "startupProbe": {"tcpSocket": {"host": "h"}}}]});
    assert!(!at(33, Level::Baseline, &probe) && at(34, Level::Baseline, &probe));
    let root = hardened(json!({"hostUsers": false, "securityContext": {"runAsNonRoot": null, "runAsUser": 0}}));
    assert!(at(34, Level::Restricted, &root) && !at(35, Level::Restricted, &root));
    let windows =
        json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]});
    assert!(at(24, Level::Restricted, &windows) && !at(25, Level::Restricted, &windows));
}

#[test]
fn pods_that_are_there_are_told_of_by_what_they_violate() {
    let pod = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let host = json!({"hostPID": true, "volumes": [{"name": "v", "hostPath": {}}]});
    let pods = [
        pod("c", host.clone()),
        pod("b", host.clone()),
        pod("d", host),
        pod("a", json!({})),
        pod("e", json!({"hostIPC": true})),
    ];
    assert_eq!(
        existing("ns", standard(Level::Baseline), &pods),
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "b (and 2 other pods): host namespaces, hostPath volumes",
            "e: host namespaces",
        ]
    );
    assert_eq!(existing("ns", standard(Level::Baseline), &pods[3..4]), [""; 0]);
}

#[test]
fn another_image_is_no_significant_change() {
    let old = json!({"spec": hardened(json!({}))});
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("i:2");
    assert!(!is_significant(&new, &old));
    new["spec"]["ephemeralContainers"] = json!([{"name": "d"}]);
    assert!(is_significant(&new, &old));
}
