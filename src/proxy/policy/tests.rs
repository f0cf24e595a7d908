use api::patch::PatchType;
use serde_json::{Value, json};

use super::*;

fn pod(namespace: &str, name: &str, app: &str, address: &str, more: Value) -> Arc<PodFacts> {
    let whole = json!({
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": app }, "uid": "ignored" },
        "spec": { "nodeName": "n1", "containers": [
            { "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }, { "name": "dns", "containerPort": 53, "protocol": "UDP" }] },
        ] },
        "status": { "phase": "Running", "podIP": address },
    });
    let whole = api::patch::apply(PatchType::Merge, None, &whole, more.to_string().as_bytes()).unwrap();
    Arc::new(serde_json::from_value(whole).unwrap())
}

fn cluster() -> Vec<Arc<PodFacts>> {
    let other_port = json!({ "spec": { "nodeName": "n2", "containers": [
        { "name": "c", "ports": [{ "name": "web", "containerPort": 9090 }] },
    ] } });
    vec![
        pod("a", "web", "web", "10.42.0.2", json!({})),
        pod("a", "client", "client", "10.42.0.3", json!({})),
        pod("b", "web", "web", "10.42.1.2", other_port),
        pod("b", "client", "client", "10.42.0.4", json!({})),
        pod("a", "host", "client", "192.0.2.1", json!({ "spec": { "hostNetwork": true } })),
        pod("a", "done", "client", "10.42.0.9", json!({ "status": { "phase": "Succeeded" } })),
        pod("a", "new", "client", "10.42.0.9", json!({ "status": { "podIP": null } })),
        pod("a", "other-family", "client", "fd00::2", json!({})),
    ]
}

/// `way address: peers port, …` for each fence, with the members of groups.
fn shown(policies: &[Value]) -> Vec<String> {
    shown_of(policies, Family::V4)
}

fn shown_of(policies: &[Value], family: Family) -> Vec<String> {
    let policies: Vec<_> = policies
        .iter()
        .map(|spec| {
            let whole = json!({ "metadata": { "namespace": "a", "name": "p" }, "spec": spec });
            Arc::new(serde_json::from_value(whole).unwrap())
        })
        .collect();
    let namespace = |name: &str| {
        let whole = json!({ "metadata": { "name": name, "labels": { "team": name } } });
        Arc::new(serde_json::from_value(whole).unwrap())
    };
    let all = render(&policies, &cluster(), &[namespace("a"), namespace("b")], "n1", family);
    let peers = |peers: &Peers| match peers {
        Peers::All => "all".to_owned(),
        Peers::Group(name) => all.groups[name].iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
        Peers::Block { range, except } => {
            except.iter().fold(range.to_string(), |text, except| format!("{text}-{except}"))
        }
    };
    let port = |port: Option<Ports>| match port {
        None => String::new(),
        Some(Ports { protocol, range: None }) => format!(" {protocol}"),
        Some(Ports { protocol, range: Some((first, last)) }) if first == last => format!(" {protocol}/{first}"),
        Some(Ports { protocol, range: Some((first, last)) }) => format!(" {protocol}/{first}-{last}"),
    };
    let fences = |way: &'static str, fences: &BTreeMap<IpAddr, Fence>| -> Vec<String> {
        let lines = fences.iter().map(|(address, fence)| {
            let mut openings: Vec<String> =
                fence.iter().map(|one| format!("{}{}", peers(&one.peers), port(one.port))).collect();
            openings.sort();
            format!("{way} {address}: {}", openings.join(", "))
        });
        lines.collect()
    };
    [fences("to", &all.ingress), fences("from", &all.egress)].concat()
}

#[test]
fn a_policy_without_rules_closes_the_pods_of_its_namespace_on_this_node() {
    assert_eq!(shown(&[json!({ "podSelector": {} })]), ["to 10.42.0.2: ", "to 10.42.0.3: "]);
    let both = json!({ "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Ingress", "Egress"] });
    assert_eq!(shown(&[both]), ["to 10.42.0.2: ", "from 10.42.0.2: "]);
    let out = json!({ "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"] });
    assert_eq!(shown(&[out]), ["from 10.42.0.2: "]);
}

#[test]
fn pods_are_fenced_in_each_family_that_they_have() {
    let both = json!({ "status": { "podIPs": [{ "ip": "10.42.0.5" }, { "ip": "fd00::5" }] } });
    let both = pod("a", "both", "web", "10.42.0.5", both);
    let address = |family| both.address(family).map(|address| address.to_string());
    assert_eq!([Family::V4, Family::V6].map(address), [Some("10.42.0.5".to_owned()), Some("fd00::5".to_owned())]);
    let from = json!([{ "from": [
        { "podSelector": {} }, { "ipBlock": { "cidr": "10.0.0.0/8" } },
        { "ipBlock": { "cidr": "fd00::/8", "except": ["fd00:9::/32", "10.9.0.0/16"] } },
    ] }]);
    let policy = json!({ "podSelector": { "matchLabels": { "app": "client" } }, "ingress": from });
    assert_eq!(
        shown_of(&[policy, json!({ "podSelector": {}, "policyTypes": ["Egress"] })], Family::V6),
        ["to fd00::2: fd00::/8-fd00:9::/32-10.9.0.0/16, fd00::2", "from fd00::2: "]
    );
}

#[test]
fn an_empty_rule_lets_everybody_in_and_policies_add() {
    let web = json!({ "matchLabels": { "app": "web" } });
    let closed = json!({ "podSelector": {} });
    let open = json!({ "podSelector": web, "ingress": [{}] });
    assert_eq!(shown(&[closed, open]), ["to 10.42.0.2: all", "to 10.42.0.3: "]);
}

#[test]
fn peers_are_pods_of_the_own_namespace_of_others_or_of_both_and_blocks() {
    let rule = |from: Value| {
        shown(&[json!({ "podSelector": { "matchLabels": { "app": "web" } }, "ingress": [{ "from": from }] })])
    };
    let client = json!({ "matchLabels": { "app": "client" } });
    assert_eq!(rule(json!([{ "podSelector": client }])), ["to 10.42.0.2: 10.42.0.3"]);
    assert_eq!(rule(json!([{ "podSelector": {} }])), ["to 10.42.0.2: 10.42.0.2+10.42.0.3"]);
    let b = json!({ "matchLabels": { "team": "b" } });
    assert_eq!(rule(json!([{ "namespaceSelector": b }])), ["to 10.42.0.2: 10.42.0.4+10.42.1.2"]);
    assert_eq!(rule(json!([{ "namespaceSelector": b, "podSelector": client }])), ["to 10.42.0.2: 10.42.0.4"]);
    assert_eq!(
        rule(json!([{ "namespaceSelector": {}, "podSelector": { "matchExpressions": [
            { "key": "app", "operator": "NotIn", "values": ["web"] },
        ] } }])),
        ["to 10.42.0.2: 10.42.0.3+10.42.0.4"]
    );
    let block = json!({ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["192.0.2.7/32"] } });
    assert_eq!(rule(json!([block, { "podSelector": client }])), ["to 10.42.0.2: 0.0.0.0/0-192.0.2.7/32, 10.42.0.3"]);
    assert_eq!(rule(json!([{ "ipBlock": { "cidr": "2001:db8::/32" } }])), ["to 10.42.0.2: "]);
}

#[test]
fn ports_are_numbers_ranges_protocols_and_names_of_who_is_called() {
    let web = json!({ "matchLabels": { "app": "web" } });
    let ports = json!([
        { "port": 80 }, { "port": 5000, "endPort": 5010, "protocol": "UDP" }, { "protocol": "SCTP" },
        { "port": "web" }, { "port": "web", "protocol": "UDP" }, { "port": "none" },
    ]);
    assert_eq!(
        shown(&[json!({ "podSelector": web, "ingress": [{ "ports": ports }] })]),
        ["to 10.42.0.2: all SCTP, all TCP/80, all TCP/8080, all UDP/5000-5010"]
    );
    let named = json!([{ "port": "web" }]);
    let egress = json!([{ "to": [{ "namespaceSelector": {}, "podSelector": web }], "ports": named }]);
    assert_eq!(
        shown(&[json!({ "podSelector": web, "policyTypes": ["Egress"], "egress": egress })]),
        ["from 10.42.0.2: 10.42.0.2 TCP/8080, 10.42.1.2 TCP/9090"]
    );
    let anybody = json!([{ "ports": named }]);
    assert_eq!(
        shown(&[json!({ "podSelector": web, "policyTypes": ["Egress"], "egress": anybody })]),
        ["from 10.42.0.2: 10.42.0.2+10.42.0.3+10.42.0.4 TCP/8080, 10.42.1.2 TCP/9090"]
    );
}
