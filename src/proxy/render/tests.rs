use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Arc<Service> {
    let mut whole = json!({
        "type": "ClusterIP", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"],
        "ports": [{ "name": "web", "port": 80, "protocol": "TCP", "nodePort": 30080 }],
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let status = json!({ "loadBalancer": { "ingress": [
        { "ip": "203.0.113.1", "ipMode": "VIP" }, { "ip": "203.0.113.2", "ipMode": "Proxy" }, { "hostname": "x" },
    ] } });
    let whole = json!({ "metadata": { "namespace": "a", "name": "s" }, "spec": whole, "status": status });
    Arc::new(serde_json::from_value(whole).unwrap())
}

fn slice(endpoints: Value) -> Arc<EndpointSlice> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "namespace": "a", "name": "s-1", "labels": { "kubernetes.io/service-name": "s" } },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }, { "name": "web", "port": 9, "protocol": "UDP" }],
        }))
        .unwrap(),
    )
}

fn endpoint(address: &str, node: &str, [ready, serving, terminating]: [bool; 3]) -> Value {
    let conditions = json!({ "ready": ready, "serving": serving, "terminating": terminating });
    json!({ "addresses": [address], "nodeName": node, "conditions": conditions })
}

fn here() -> Here {
    Here { name: "n1".to_owned(), addresses: vec![[198, 51, 100, 7].into()], zone: Some("z1".to_owned()) }
}

const READY: [bool; 3] = [true, true, false];
const UNREADY: [bool; 3] = [false, false, false];
const ENDING: [bool; 3] = [false, true, true];

/// `frontend → endpoints`, or what is done without any.
fn shown(service: Arc<Service>, endpoints: Value) -> Vec<String> {
    let all = render(&[service], &[slice(endpoints)], &here(), Family::V4);
    let lines = all.frontends.iter().map(|(frontend, name)| {
        let pool = &all.pools[name];
        let address = frontend.address.map_or_else(|| "host".to_owned(), |address| address.to_string());
        let endpoints: Vec<String> = pool.endpoints.iter().map(ToString::to_string).collect();
        let to = match (endpoints.is_empty(), pool.is_silent) {
            (false, _) => endpoints.join(" "),
            (true, true) => "silence".to_owned(),
            (true, false) => "refused".to_owned(),
        };
        let near = if frontend.senders == Senders::Near { " from here" } else { "" };
        format!("{address} {} {}{near} → {to}", frontend.protocol, frontend.port)
    });
    lines.collect()
}

#[test]
fn those_that_are_ready_answer_and_those_that_end_only_if_nobody_else_does() {
    let all = [
        endpoint("10.42.0.2", "n1", READY),
        endpoint("10.42.0.3", "n1", UNREADY),
        endpoint("10.42.0.4", "n1", ENDING),
        json!({ "addresses": ["10.42.0.5"] }),
    ];
    assert_eq!(shown(service(json!({})), json!(all)), ["10.43.0.9 TCP 80 → 10.42.0.2:8080 10.42.0.5:8080"]);
    assert_eq!(shown(service(json!({})), json!(all[1..3])), ["10.43.0.9 TCP 80 → 10.42.0.4:8080"]);
    assert_eq!(shown(service(json!({})), json!(all[1..2])), ["10.43.0.9 TCP 80 → refused"]);
    assert_eq!(shown(service(json!({})), json!([endpoint("127.0.0.1", "n1", READY)])), ["10.43.0.9 TCP 80 → refused"]);
    // Who ends keeps whom it has as long as it serves.
    let rendered = render(&[service(json!({}))], &[slice(json!(all[..3]))], &here(), Family::V4);
    let serving: Vec<String> = rendered.pools["a/s:web/TCP"].serving.iter().map(ToString::to_string).collect();
    assert_eq!(serving, ["10.42.0.2:8080", "10.42.0.4:8080"]);
}

#[test]
fn a_service_is_reached_by_ports_of_the_node_and_by_addresses_from_outside() {
    let endpoints = json!([endpoint("10.42.0.2", "n1", READY)]);
    let balanced = json!({ "type": "LoadBalancer", "externalIPs": ["198.51.100.1"] });
    assert_eq!(
        shown(service(balanced.clone()), endpoints.clone()),
        [
            "host TCP 30080 → 10.42.0.2:8080",
            "10.43.0.9 TCP 80 → 10.42.0.2:8080",
            "198.51.100.1 TCP 80 → 10.42.0.2:8080",
            "203.0.113.1 TCP 80 → 10.42.0.2:8080",
        ]
    );
    for nothing in [
        json!({ "clusterIP": "None", "clusterIPs": ["None"] }),
        json!({ "type": "ExternalName", "clusterIP": "", "clusterIPs": [] }),
    ] {
        assert!(shown(service(nothing), endpoints.clone()).is_empty());
    }
}

#[test]
fn only_who_is_admitted_comes_by_the_addresses_of_a_load_balancer() {
    let admitted = |ranges: Value| {
        let spec = json!({
            "type": "LoadBalancer", "externalIPs": ["198.51.100.1"], "loadBalancerSourceRanges": ranges,
        });
        let all = render(&[service(spec)], &[slice(json!([endpoint("10.42.0.2", "n1", READY)]))], &here(), Family::V4);
        let lines = all.admitted.iter().map(|(frontend, ranges)| {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            format!("{} {} from {}", frontend.address.unwrap(), frontend.port, ranges.join(" "))
        });
        lines.collect::<Vec<_>>()
    };
    assert!(admitted(json!([])).is_empty());
    assert_eq!(admitted(json!([" 192.0.2.0/24"])), ["203.0.113.1 80 from 192.0.2.0/24"]);
    // The node comes by its own address or by that of the load balancer.
    assert_eq!(admitted(json!(["198.51.100.0/24"])), ["203.0.113.1 80 from 198.51.100.0/24 203.0.113.1/32"]);
    assert_eq!(admitted(json!(["2001:db8::/64"])), ["203.0.113.1 80 from "]);
}

#[test]
fn a_local_policy_keeps_to_this_node_and_is_silent_if_others_would_answer() {
    let (here, there) = (endpoint("10.42.0.2", "n1", READY), endpoint("10.42.1.2", "n2", READY));
    let outside = json!({ "type": "NodePort", "externalTrafficPolicy": "Local" });
    assert_eq!(
        shown(service(outside.clone()), json!([here, there])),
        [
            "host TCP 30080 → 10.42.0.2:8080",
            "host TCP 30080 from here → 10.42.0.2:8080 10.42.1.2:8080",
            "10.43.0.9 TCP 80 → 10.42.0.2:8080 10.42.1.2:8080",
        ]
    );
    assert_eq!(
        shown(service(outside.clone()), json!([here])),
        ["host TCP 30080 → 10.42.0.2:8080", "10.43.0.9 TCP 80 → 10.42.0.2:8080"]
    );
    assert_eq!(
        shown(service(outside.clone()), json!([there])),
        ["host TCP 30080 → silence", "host TCP 30080 from here → 10.42.1.2:8080", "10.43.0.9 TCP 80 → 10.42.1.2:8080"]
    );
    assert_eq!(shown(service(outside), json!([]))[0], "host TCP 30080 → refused");
    let inside = json!({ "internalTrafficPolicy": "Local" });
    assert_eq!(shown(service(inside), json!([there])), ["10.43.0.9 TCP 80 → silence"]);
}

#[test]
fn hints_lead_to_what_is_for_this_node_or_its_zone_if_all_that_are_ready_have_some() {
    let to = |here: &Here, endpoints: &[Value]| {
        let all = render(&[service(json!({}))], &[slice(json!(endpoints))], here, Family::V4);
        all.pools["a/s:web/TCP"].endpoints.iter().map(|at| at.ip().to_string()).collect::<Vec<_>>().join(" ")
    };
    let hinted = |address: &str, state: [bool; 3], nodes: &[&str], zones: &[&str]| {
        let named = |all: &[&str]| all.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        let mut endpoint = endpoint(address, "x", state);
        endpoint["hints"] = json!({ "forNodes": named(nodes), "forZones": named(zones) });
        endpoint
    };
    let (a, b) = (hinted("10.42.0.1", READY, &["n1"], &["z1"]), hinted("10.42.0.2", READY, &["n2"], &["z1"]));
    let c = hinted("10.42.0.3", READY, &["n3"], &["z2"]);
    let all = [a.clone(), b.clone(), c.clone()];
    let other =
        |name: &str, zone: Option<&str>| Here { name: name.to_owned(), zone: zone.map(str::to_owned), ..here() };
    assert_eq!(to(&here(), &all), "10.42.0.1");
    assert_eq!(to(&other("n9", Some("z1")), &all), "10.42.0.1 10.42.0.2");
    assert_eq!(to(&other("n9", Some("z9")), &all), "10.42.0.1 10.42.0.2 10.42.0.3");
    assert_eq!(to(&other("n9", None), &all), "10.42.0.1 10.42.0.2 10.42.0.3");
    // One without hints for nodes, then one without any: what is known is not the whole of it.
    let zonal = hinted("10.42.0.4", READY, &[], &["z1"]);
    assert_eq!(to(&here(), &[a.clone(), c.clone(), zonal]), "10.42.0.1 10.42.0.4");
    let plain = endpoint("10.42.0.5", "x", READY);
    assert_eq!(to(&here(), &[a.clone(), c.clone(), plain]), "10.42.0.1 10.42.0.3 10.42.0.5");
    // Those that are not ready have no say, and nobody is led to none while others are ready.
    let unready = endpoint("10.42.0.6", "x", UNREADY);
    assert_eq!(to(&here(), &[a.clone(), c.clone(), unready]), "10.42.0.1");
    let ending = hinted("10.42.0.1", ENDING, &["n1"], &["z1"]);
    assert_eq!(to(&here(), &[ending.clone(), c.clone()]), "10.42.0.3");
    assert_eq!(to(&here(), &[ending]), "10.42.0.1");
    // Hints concern who may go anywhere.
    let outside = json!({ "internalTrafficPolicy": "Local" });
    let mut own = b;
    own["nodeName"] = json!("n1");
    assert_eq!(shown(service(outside), json!([a, own])), ["10.43.0.9 TCP 80 → 10.42.0.2:8080"]);
}

#[test]
fn clients_return_for_as_long_as_the_service_says() {
    let sticky = |spec: Value| {
        let all = render(&[service(spec)], &[slice(json!([endpoint("10.42.0.2", "n1", READY)]))], &here(), Family::V4);
        all.pools["a/s:web/TCP"].sticky
    };
    assert_eq!(sticky(json!({ "sessionAffinity": "None" })), None);
    assert_eq!(sticky(json!({ "sessionAffinity": "ClientIP" })), Some(10_800));
    let config = json!({ "clientIP": { "timeoutSeconds": 60 } });
    assert_eq!(sticky(json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config })), Some(60));
}

#[test]
fn a_service_of_another_proxy_is_left_to_it_and_an_address_belongs_to_the_first_that_names_it() {
    let endpoints = slice(json!([endpoint("10.42.0.2", "n1", READY)]));
    let mut other = (*service(json!({}))).clone();
    other.metadata.labels = Some([("service.kubernetes.io/service-proxy-name".to_owned(), "x".to_owned())].into());
    assert_eq!(render(&[Arc::new(other)], &[Arc::clone(&endpoints)], &here(), Family::V4), Services::default());
    let mut second = (*service(json!({}))).clone();
    second.metadata.name = Some("t".to_owned());
    let all = render(&[Arc::new(second), service(json!({}))], &[endpoints], &here(), Family::V4);
    assert_eq!(all.frontends.into_values().collect::<Vec<_>>(), ["a/s:web/TCP"]);
}

#[test]
fn each_family_has_its_own_addresses_endpoints_and_ports_of_nodes() {
    let dual = service(json!({
        "type": "NodePort", "clusterIPs": ["10.43.0.9", "fd00:43::9"], "ipFamilies": ["IPv4", "IPv6"],
        "externalIPs": ["203.0.113.7", "2001:db8::7"],
    }));
    let single = slice(json!([endpoint("10.42.0.2", "n1", READY)]));
    let mut second = (*slice(json!([endpoint("fd00:42::2", "n1", READY), endpoint("10.42.0.3", "n1", READY)]))).clone();
    second.address_type = "IPv6".to_owned();
    let slices = [single, Arc::new(second)];
    let shown = |service: &Arc<Service>, family: Family| -> Vec<String> {
        let all = render(&[Arc::clone(service)], &slices, &here(), family);
        let line = |(frontend, name): (&Frontend, &String)| {
            let address = frontend.address.map_or_else(|| "host".to_owned(), |address| address.to_string());
            let endpoints: Vec<String> = all.pools[name].endpoints.iter().map(ToString::to_string).collect();
            format!("{address} {} → {}", frontend.port, endpoints.join(" "))
        };
        all.frontends.iter().map(line).collect()
    };
    let expected =
        ["host 30080 → ", "10.43.0.9 80 → ", "203.0.113.7 80 → "].map(|line| format!("{line}10.42.0.2:8080"));
    assert_eq!(shown(&dual, Family::V4), expected);
    let expected =
        ["host 30080 → ", "2001:db8::7 80 → ", "fd00:43::9 80 → "].map(|line| format!("{line}[fd00:42::2]:8080"));
    assert_eq!(shown(&dual, Family::V6), expected);
    let only_v4 = service(json!({ "type": "NodePort" }));
    assert_eq!(shown(&only_v4, Family::V6), Vec::<String>::new());
}

#[test]
fn services_are_in_further_ranges_unless_this_node_is_there() {
    let ranges =
        [json!(["10.96.0.0/24", "fd00:96::/112"]), json!(["198.51.100.0/24"]), json!(["0.0.0.0/0"])].map(|cidrs| {
            let range = json!({ "metadata": { "name": "r" }, "spec": { "cidrs": cidrs } });
            Arc::new(serde_json::from_value::<ServiceCIDR>(range).unwrap())
        });
    let shown = |family: Family| further(&ranges, &here(), family).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (shown(Family::V4), shown(Family::V6)),
        (vec!["10.96.0.0/24".to_owned()], vec!["fd00:96::/112".to_owned()])
    );
}
