use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::resources::find;

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    let row = find("", "v1", "services").unwrap();
    (row.default)(&mut service);
    row.prepare_create(&mut service);
    service
}

fn assigned(spec: Value, others: &[Value]) -> Result<Value, String> {
    let mut taken = Taken::default();
    others.iter().for_each(|other| taken.add(other));
    let mut service = service(spec);
    assign(&mut service, &taken, &Network::default(), 7).map_err(|error| error.message)?;
    let wrong = find("", "v1", "services").unwrap().check(&service);
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(service["spec"].clone())
}

fn port(number: i64) -> Value {
    json!([{"port": number}])
}

#[test]
fn a_service_gets_one_address_of_the_range() {
    let spec = assigned(json!({"ports": port(80)}), &[]).unwrap();
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    assert!(spec["clusterIP"].as_str().unwrap().starts_with("10.43."));
    assert_eq!((&spec["ipFamilies"], &spec["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
    assert_eq!(spec["ports"][0].get("nodePort"), None);
}

#[test]
fn what_others_have_cannot_be_chosen() {
    let other = json!({"spec": {"clusterIPs": ["10.43.0.10"], "ports": [{"nodePort": 30080}]}});
    let error =
        assigned(json!({"clusterIP": "10.43.0.10", "ports": port(80)}), std::slice::from_ref(&other)).unwrap_err();
    let expected = "Service \"web\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.10\"]: failed to allocate IP \
                    10.43.0.10: provided IP is already allocated";
    assert_eq!(error, expected);
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    let error = assigned(json!({"type": "NodePort", "ports": ports}), &[other]).unwrap_err();
    assert!(error.ends_with("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"));
}

#[test]
fn what_is_outside_the_ranges_cannot_be_chosen() {
    let error = |spec: Value| assigned(spec, &[]).unwrap_err();
    let text = error(json!({"clusterIP": "10.44.0.1", "ports": port(80)}));
    let expected = "the provided IP (10.44.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16";
    assert!(text.ends_with(expected), "{text}");
    for edge in ["10.43.0.0", "10.43.255.255"] {
        assert!(error(json!({"clusterIP": edge, "ports": port(80)})).contains("is not in the valid range"), "{edge}");
    }
    let text = error(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}));
    assert!(text.ends_with("provided port is not in the valid range. The range of valid ports is 30000-32767"));
    let text = error(json!({"ipFamilies": ["IPv6"], "ports": port(80)}));
    assert!(text.ends_with("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"), "{text}");
    let text = error(json!({"ipFamilyPolicy": "RequireDualStack", "ports": port(80)}));
    assert!(text.ends_with("this cluster is not configured for dual-stack services"), "{text}");
}

#[test]
fn services_without_addresses_get_none() {
    let headless = assigned(json!({"clusterIP": "None", "selector": {"a": "b"}}), &[]).unwrap();
    assert_eq!((&headless["clusterIPs"], &headless["ipFamilies"]), (&json!(["None"]), &json!(["IPv4"])));
    let free = assigned(json!({"clusterIP": "None"}), &[]).unwrap();
    assert_eq!((&free["ipFamilies"], &free["ipFamilyPolicy"]), (&json!(["IPv4", "IPv6"]), &json!("RequireDualStack")));
    let name = assigned(json!({"type": "ExternalName", "externalName": "example.org"}), &[]).unwrap();
    assert_eq!((name.get("clusterIP"), name.get("ipFamilies")), (None, None));
}

#[test]
fn ports_on_nodes_are_given_out_and_shared_by_protocols() {
    let ports = json!([
        {"name": "a", "port": 53, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"},
        {"name": "c", "port": 80}, {"name": "d", "port": 81, "nodePort": 30001},
    ]);
    let spec = assigned(json!({"type": "NodePort", "ports": ports}), &[]).unwrap();
    let node = |index: usize| spec["ports"][index]["nodePort"].as_i64().unwrap();
    assert_eq!(node(0), node(1));
    assert!(node(2) != node(0) && (30_086..=32_767).contains(&node(2)) && node(3) == 30_001);
    let balanced = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": port(80)});
    let spec = assigned(balanced, &[]).unwrap();
    assert!(spec["healthCheckNodePort"].as_i64().unwrap() >= 30_000);
    let without = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": port(80)});
    assert_eq!(assigned(without, &[]).unwrap()["ports"][0].get("nodePort"), None);
}

#[test]
fn a_range_is_used_up_to_its_last_address_and_then_full() {
    let network: Network = "192.0.2.0/28".parse().unwrap();
    let mut taken = Taken::default();
    for round in 0..14 {
        let mut next = service(json!({"ports": port(80)}));
        assign(&mut next, &taken, &network, round).unwrap();
        taken.add(&next);
    }
    assert_eq!(taken.addresses.len(), 14);
    assert!(taken.addresses.contains(&network.first()) && network.first() == Ipv4Addr::new(192, 0, 2, 1));
    let mut one_more = service(json!({"ports": port(80)}));
    assert_eq!(assign(&mut one_more, &taken, &network, 0).unwrap_err().code, 500);
    for text in ["10.43.0.0", "10.43.0.0/31", "10.43.0.0/4", "fd00::/64", "x/16"] {
        assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_given_out_twice(randoms in prop::collection::vec(any::<u64>(), 1..40)) {
        let mut taken = Taken::default();
        for (index, random) in randoms.iter().enumerate() {
            let mut next = service(json!({"type": "NodePort", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}));
            assign(&mut next, &taken, &"10.0.0.0/26".parse().unwrap(), *random).unwrap();
            taken.add(&next);
            prop_assert_eq!(taken.addresses.len(), index + 1);
            prop_assert_eq!(taken.ports.len(), 2 * (index + 1));
        }
    }
}
