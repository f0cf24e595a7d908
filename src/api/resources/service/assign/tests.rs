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
    assigned_from(&Network::default(), spec, others)
}

fn assigned_from(network: &Network, spec: Value, others: &[Value]) -> Result<Value, String> {
    let mut taken = Taken::default();
    others.iter().for_each(|other| taken.add(other));
    let mut service = service(spec);
    let blocks: Vec<Block> = network.blocks().collect();
    let stock = Stock { network, blocks: &blocks, taken: &taken, random: 7 };
    assign(&mut service, None, stock).map_err(|error| error.message)?;
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
fn a_further_range_is_used_once_the_first_is_full() {
    let (network, mut taken) = (Network::default(), Taken::default());
    let blocks =
        ["10.43.0.0/30", "fd00:96::/112", "10.96.0.0/31", "10.97.0.0/24"].map(|text| Block::any(text).unwrap());
    let mut given = |random: u64| {
        let mut service = service(json!({"ports": port(80)}));
        let stock = Stock { network: &network, blocks: &blocks, taken: &taken, random };
        assign(&mut service, None, stock).unwrap();
        taken.add(&service);
        service["spec"]["clusterIP"].as_str().unwrap().to_owned()
    };
    let first: BTreeSet<String> = (0..2).map(&mut given).collect();
    assert_eq!(first, ["10.43.0.1", "10.43.0.2"].map(str::to_owned).into());
    assert!(given(2).starts_with("10.97.0."));
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
    let expected = "failed to allocate IP 10.44.0.1: the provided network does not match the current range";
    assert!(text.ends_with(expected), "{text}");
    for edge in ["10.43.0.0", "10.43.255.255"] {
        assert!(
            error(json!({"clusterIP": edge, "ports": port(80)})).ends_with("does not match the current range"),
            "{edge}"
        );
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

fn both() -> Network {
    "10.43.0.0/16,fd00:43::/112".parse().unwrap()
}

/// A Service after a change, as the server treats it.
fn changed(network: &Network, old: &Value, change: impl FnOnce(&mut Value)) -> Result<Value, String> {
    let row = find("", "v1", "services").unwrap();
    let (old, mut new) =
        (json!({"metadata": {"name": "web"}, "spec": old}), json!({"metadata": {"name": "web"}, "spec": old}));
    change(&mut new["spec"]);
    row.prepare_update(&mut new, &old);
    let blocks: Vec<Block> = network.blocks().collect();
    let stock = Stock { network, blocks: &blocks, taken: &Taken::default(), random: 7 };
    assign(&mut new, Some(&old), stock).map_err(|error| error.message)?;
    let wrong = row.check_update(&new, &old);
    if wrong.is_empty() { Ok(new["spec"].clone()) } else { Err(format!("{wrong:?}")) }
}

#[test]
fn families_are_what_is_asked_for_where_there_are_both() {
    let network = both();
    let families = |spec: Value| {
        let spec = assigned_from(&network, spec, &[]).unwrap();
        let starts: Vec<&str> = items(&spec, "clusterIPs")
            .iter()
            .map(|address| if address.as_str().unwrap().starts_with("fd00:43::") { "6" } else { "4" })
            .collect();
        assert_eq!(spec["clusterIPs"][0], spec["clusterIP"]);
        (starts.join(""), spec["ipFamilies"].to_string(), text(&spec, "ipFamilyPolicy").to_owned())
    };
    let is =
        |addresses: &str, families: &str, policy: &str| (addresses.to_owned(), families.to_owned(), policy.to_owned());
    let both = r#"["IPv4","IPv6"]"#;
    assert_eq!(families(json!({"ports": port(80)})), is("4", r#"["IPv4"]"#, "SingleStack"));
    let asked = json!({"ipFamilyPolicy": "PreferDualStack", "ports": port(80)});
    assert_eq!(families(asked), is("46", both, "PreferDualStack"));
    let asked = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"], "ports": port(80)});
    assert_eq!(families(asked), is("64", r#"["IPv6","IPv4"]"#, "RequireDualStack"));
    let asked = json!({"ipFamilies": ["IPv6"], "ports": port(80)});
    assert_eq!(families(asked), is("6", r#"["IPv6"]"#, "SingleStack"));
    let asked = json!({"clusterIP": "fd00:43::7", "ports": port(80)});
    assert_eq!(families(asked), is("6", r#"["IPv6"]"#, "SingleStack"));
    let chosen = ["fd00:43::7", "10.43.0.7"];
    let asked =
        json!({"clusterIP": chosen[0], "clusterIPs": chosen, "ipFamilyPolicy": "RequireDualStack", "ports": port(80)});
    assert_eq!(families(asked), is("64", r#"["IPv6","IPv4"]"#, "RequireDualStack"));
    let headless = json!({"clusterIP": "None", "selector": {"a": "b"}, "ipFamilyPolicy": "PreferDualStack"});
    let headless = assigned_from(&network, headless, &[]).unwrap();
    assert_eq!((headless["ipFamilies"].to_string(), &headless["clusterIPs"]), (both.to_owned(), &json!(["None"])));
}

#[test]
fn families_that_contradict_each_other_are_refused() {
    let network = both();
    let error = |spec: Value| assigned_from(&network, spec, &[]).unwrap_err();
    let text = error(json!({"ipFamilies": ["IPv4", "IPv6"], "ports": port(80)}));
    let expected = "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' \
                    when multiple IP families are specified";
    assert!(text.ends_with(expected), "{text}");
    let text = error(json!({"clusterIP": "fd00:44::1", "ports": port(80)}));
    let expected = "failed to allocate IP fd00:44::1: the provided network does not match the current range";
    assert!(text.ends_with(expected), "{text}");
    let text = assigned(json!({"clusterIP": "fd00:43::1", "ports": port(80)}), &[]).unwrap_err();
    assert!(
        text.ends_with("spec.clusterIPs[0]: Invalid value: [\"fd00:43::1\"]: IPv6 is not configured on this cluster")
    );
}

#[test]
fn a_service_gets_and_gives_back_a_second_family() {
    let network = both();
    let policy = |word: &'static str| move |spec: &mut Value| spec["ipFamilyPolicy"] = word.into();
    let single = assigned_from(&network, json!({"ports": port(80)}), &[]).unwrap();
    let dual = changed(&network, &single, policy("RequireDualStack")).unwrap();
    assert_eq!(dual["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!((dual["clusterIPs"].as_array().unwrap().len(), &dual["clusterIP"]), (2, &single["clusterIP"]));
    assert_eq!(changed(&network, &dual, policy("SingleStack")).unwrap(), single);
    // A PUT of what a client once knew keeps what there is.
    let kept = changed(&network, &dual, |spec| {
        let fields = spec.as_object_mut().unwrap();
        ["clusterIPs", "ipFamilies", "ipFamilyPolicy"].iter().for_each(|field| _ = fields.remove(*field));
    });
    assert_eq!(kept.unwrap(), dual);
    let error = changed(&network, &dual, |spec| spec["ipFamilies"] = json!(["IPv4"])).unwrap_err();
    assert!(error.contains("must be set to 'SingleStack' when releasing the secondary ipFamily"), "{error}");
    let error = changed(&network, &dual, |spec| spec["clusterIPs"][1] = "fd00:43::9".into()).unwrap_err();
    assert!(error.contains("may not change once set"), "{error}");
}

#[test]
fn a_service_that_prefers_both_stays_as_it_is_when_the_cluster_changes() {
    let prefers = json!({"ipFamilyPolicy": "PreferDualStack", "ports": port(80)});
    let touch = |spec: &mut Value| spec["sessionAffinity"] = "None".into();
    let single = assigned(prefers.clone(), &[]).unwrap();
    assert_eq!(single["ipFamilies"], json!(["IPv4"]));
    assert_eq!(changed(&both(), &single, touch).unwrap(), single);
    let dual = assigned_from(&both(), prefers, &[]).unwrap();
    assert_eq!(changed(&Network::default(), &dual, touch).unwrap(), dual);
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
    let blocks: Vec<Block> = network.blocks().collect();
    let mut taken = Taken::default();
    for round in 0..14 {
        let mut next = service(json!({"ports": port(80)}));
        assign(&mut next, None, Stock { network: &network, blocks: &blocks, taken: &taken, random: round }).unwrap();
        taken.add(&next);
    }
    assert_eq!(taken.addresses.len(), 14);
    assert!(taken.addresses.contains(&network.first()) && network.first() == Ipv4Addr::new(192, 0, 2, 1));
    let mut one_more = service(json!({"ports": port(80)}));
    let stock = Stock { network: &network, blocks: &blocks, taken: &taken, random: 0 };
    assert_eq!(assign(&mut one_more, None, stock).unwrap_err().code, 500);
    let both = "10.43.0.0/16,fd00:43::/112";
    assert_eq!(both.parse::<Network>().unwrap().to_string(), both);
    let wrong = ["10.43.0.0", "10.43.0.0/31", "10.43.0.0/4", "fd00::/64", "x/16"];
    let wrong_second =
        ["10.43.0.0/16,", "10.43.0.0/16,10.44.0.0/16", "10.43.0.0/16,fd00::/48", "fd00::/112,10.43.0.0/16"];
    for text in wrong.into_iter().chain(wrong_second) {
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
            next["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
            let network: Network = "10.0.0.0/26,fd00::/122".parse().unwrap();
            let blocks: Vec<Block> = network.blocks().collect();
            assign(&mut next, None, Stock { network: &network, blocks: &blocks, taken: &taken, random: *random }).unwrap();
            taken.add(&next);
            prop_assert_eq!(taken.addresses.len(), 2 * (index + 1));
            prop_assert_eq!(taken.ports.len(), 2 * (index + 1));
        }
    }
}
