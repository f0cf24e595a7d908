use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use super::*;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service(spec: Value) -> Service {
    let mut whole = json!({ "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.9", "selector": { "app": "web" } });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    read(
        json!({ "metadata": { "name": "web", "namespace": "a", "uid": "s", "labels": { "team": "x" } }, "spec": whole }),
    )
}

fn one_port() -> Service {
    service(json!({ "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 8080 }] }))
}

fn pod(number: usize) -> Value {
    json!({
        "metadata": { "name": format!("web-{number}"), "namespace": "a", "uid": format!("u{number:04}"), "labels": { "app": "web" } },
        "spec": { "nodeName": "n1", "containers": [{
            "name": "c", "ports": [{ "name": "http", "containerPort": 8000 + number, "protocol": "TCP" }],
        }] },
        "status": {
            "phase": "Running", "podIP": format!("10.42.{}.{}", number / 200, number % 200 + 1),
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|number| read(pod(number))).collect()
}

/// Two nodes, the first in a zone.
fn zones() -> places::Zones {
    [("n1".to_owned(), Some("z1".to_owned())), ("n2".to_owned(), None)].into()
}

fn groups<'p>(service: &Service, pods: impl IntoIterator<Item = &'p Pod>) -> Vec<slices::Group> {
    slices::groups(service, pods, &zones())
}

fn owner() -> OwnerReference {
    OwnerReference {
        kind: "Service".to_owned(),
        name: "web".to_owned(),
        uid: "s".to_owned(),
        ..OwnerReference::default()
    }
}

/// What the server would have made of changes.
fn apply(existing: &[Arc<EndpointSlice>], changes: Changes, next: &mut usize) -> Vec<Arc<EndpointSlice>> {
    let name = |slice: &EndpointSlice| slice.metadata.name.clone();
    let mut all: Vec<Arc<EndpointSlice>> = existing.to_vec();
    all.retain(|slice| !changes.delete.iter().any(|gone| Arc::ptr_eq(gone, slice)));
    for slice in changes.update {
        let place = all.iter_mut().find(|old| name(old) == name(&slice));
        match place {
            Some(place) => *place = Arc::new(slice),
            None => all.push(Arc::new(slice)),
        }
    }
    for mut slice in changes.create {
        *next += 1;
        slice.metadata.name = Some(format!("web-{next:03}"));
        all.push(Arc::new(slice));
    }
    all
}

fn conditions(pod: Value, spec: Value) -> [Option<bool>; 3] {
    let mut spec = spec;
    spec["ports"] = json!([{ "port": 80 }]);
    let groups = groups(&service(spec), [&read::<Pod>(pod)]);
    let conditions = groups[0].endpoints[0].conditions.clone().unwrap();
    [conditions.ready, conditions.serving, conditions.terminating]
}

#[test]
fn an_endpoint_says_whether_it_is_ready_serves_and_is_going() {
    let (yes, no) = (Some(true), Some(false));
    let mut going = pod(1);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    let mut unready = pod(1);
    unready["status"]["conditions"][0]["status"] = json!("False");
    assert_eq!(conditions(pod(1), json!({})), [yes, yes, no]);
    assert_eq!(conditions(going.clone(), json!({})), [no, yes, yes]);
    assert_eq!(conditions(unready.clone(), json!({})), [no, no, no]);
    let published = json!({ "publishNotReadyAddresses": true });
    assert_eq!(conditions(unready, published.clone()), [yes, no, no]);
    assert_eq!(conditions(going, published), [yes, yes, yes]);
}

#[test]
fn pods_that_have_ended_or_have_no_address_are_no_endpoints() {
    let mut ended = pod(1);
    ended["status"]["phase"] = json!("Succeeded");
    let mut failed = pod(2);
    failed["status"]["phase"] = json!("Failed");
    let mut young = pod(3);
    young["status"] = json!({ "phase": "Pending" });
    let pods: Vec<Pod> = [ended, failed, young].into_iter().map(read).collect();
    assert!(groups(&one_port(), &pods).is_empty());
    assert_eq!(subsets::decide(&one_port(), &pods, None).unwrap().subsets, None);
}

#[test]
fn an_endpoint_says_its_zone_and_for_whom_it_is_if_the_service_prefers_what_is_close() {
    let on = |node: &str, ready: &str| {
        let mut pod = pod(1);
        pod["spec"]["nodeName"] = json!(node);
        pod["status"]["conditions"][0]["status"] = json!(ready);
        pod
    };
    let said = |distribution: Value, pod: Value| {
        let service = service(json!({ "ports": [{ "port": 80 }], "trafficDistribution": distribution }));
        let mut endpoint = json!(groups(&service, [&read::<Pod>(pod)])[0].endpoints[0]);
        let mut take = |field: &str| endpoint.as_object_mut().unwrap().remove(field);
        (take("zone"), take("hints"))
    };
    let zone = Some(json!("z1"));
    let (of_zone, of_node) = (json!([{ "name": "z1" }]), json!([{ "name": "n1" }]));
    assert_eq!(said(Value::Null, on("n1", "True")), (zone.clone(), None));
    for close in ["PreferClose", "PreferSameZone"] {
        let hints = Some(json!({ "forZones": of_zone }));
        assert_eq!(said(json!(close), on("n1", "True")), (zone.clone(), hints));
        assert_eq!(said(json!(close), on("n2", "True")), (None, None));
    }
    let hints = Some(json!({ "forZones": of_zone, "forNodes": of_node }));
    assert_eq!(said(json!("PreferSameNode"), on("n1", "True")), (zone.clone(), hints));
    let hints = Some(json!({ "forNodes": [{ "name": "n2" }] }));
    assert_eq!(said(json!("PreferSameNode"), on("n2", "True")), (None, hints));
    assert_eq!(said(json!("PreferSameNode"), on("n1", "False")), (zone, None));
}

#[test]
fn a_pod_whose_node_is_gone_is_no_endpoint_unless_the_service_takes_pods_as_they_are() {
    let mut lost = pod(1);
    lost["spec"]["nodeName"] = json!("gone");
    let lost: Pod = read(lost);
    assert_eq!(groups(&one_port(), [&lost]), []);
    let all = service(json!({ "ports": [{ "port": 80 }], "publishNotReadyAddresses": true }));
    assert_eq!(groups(&all, [&lost])[0].endpoints.len(), 1);
}

#[test]
fn a_named_port_is_what_each_pod_calls_so_and_pods_without_it_have_other_slices() {
    let named = service(json!({ "ports": [
        { "name": "web", "port": 80, "protocol": "TCP", "targetPort": "http", "appProtocol": "http" },
        { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353 },
    ] }));
    let mut other = pod(2);
    other["spec"]["containers"][0]["ports"][0]["protocol"] = json!("UDP");
    let mut helper = pod(3);
    helper["spec"]["initContainers"] =
        json!([{ "name": "s", "restartPolicy": "Always", "ports": [{ "name": "http", "containerPort": 1 }] }]);
    helper["spec"]["containers"] = json!([{ "name": "c" }]);
    let pods: Vec<Pod> = [pod(1), other, helper].into_iter().map(read).collect();
    let groups = groups(&named, &pods);
    let ports: Vec<Vec<(String, i32)>> = groups
        .iter()
        .map(|group| group.ports.iter().map(|port| (port.name.clone().unwrap(), port.port.unwrap())).collect())
        .collect();
    let port = |name: &str, number: i32| (name.to_owned(), number);
    assert_eq!(
        ports,
        [vec![port("web", 8001), port("dns", 5353)], vec![port("dns", 5353)], vec![port("web", 1), port("dns", 5353)],]
    );
    // In the old object, ports that the same addresses have are together, and all have one.
    let subsets = subsets::decide(&named, &pods, None).unwrap().subsets.unwrap();
    let mut shape: Vec<(usize, Vec<i32>)> = subsets
        .iter()
        .map(|subset| {
            (subset.addresses.as_ref().unwrap().len(), subset.ports.iter().flatten().map(|port| port.port).collect())
        })
        .collect();
    shape.sort();
    assert_eq!(shape, [(1, vec![1]), (1, vec![8001]), (3, vec![5353])]);
}

#[test]
fn an_endpoint_names_its_pod_node_and_host_of_a_headless_service() {
    let headless = service(json!({ "clusterIP": "None" }));
    let mut own = pod(1);
    own["spec"]["hostname"] = json!("first");
    own["spec"]["subdomain"] = json!("web");
    let mut stranger = pod(2);
    stranger["spec"]["hostname"] = json!("second");
    stranger["spec"]["subdomain"] = json!("other");
    let pods: Vec<Pod> = [own, stranger].into_iter().map(read).collect();
    let groups = groups(&headless, &pods);
    assert_eq!(groups.len(), 1);
    assert!(groups[0].ports.is_empty());
    let first = &groups[0].endpoints[0];
    assert_eq!((first.hostname.as_deref(), first.node_name.as_deref()), (Some("first"), Some("n1")));
    assert_eq!(groups[0].endpoints[1].hostname, None);
    let target = json!({ "kind": "Pod", "namespace": "a", "name": "web-1", "uid": "u0001" });
    assert_eq!(serde_json::to_value(first.target_ref.as_ref().unwrap()).unwrap(), target);
    let frame = slices::frame(&headless, owner());
    let slice = &slices::fit(&frame, groups, &[]).create[0];
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
    let labels = json!({
        "team": "x", "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    assert_eq!(serde_json::to_value(&slice.metadata.labels).unwrap(), labels);
    let endpoints = subsets::decide(&headless, &pods, None).unwrap();
    let labels = json!({
        "team": "x", "service.kubernetes.io/headless": "", "endpoints.kubernetes.io/managed-by": "endpoint-controller",
    });
    assert_eq!(serde_json::to_value(&endpoints.metadata.labels).unwrap(), labels);
    assert_eq!(endpoints.subsets.as_ref().unwrap()[0].ports, None);
    assert_eq!(subsets::decide(&headless, &pods, Some(&endpoints)), None, "it has come to rest");
}

#[test]
fn a_change_of_one_pod_touches_one_slice_of_many() {
    let (frame, mut next) = (slices::frame(&one_port(), owner()), 0);
    let mut all = pods(250);
    let first = slices::fit(&frame, groups(&one_port(), &all), &[]);
    let sizes: Vec<usize> = first.create.iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    let slices = apply(&[], first, &mut next);
    let change = |pods: &[Pod], slices: &[Arc<EndpointSlice>]| {
        let changes = slices::fit(&frame, groups(&one_port(), pods), slices);
        let counts = [changes.create.len(), changes.update.len(), changes.delete.len()];
        (changes, counts)
    };
    assert_eq!(change(&all, &slices).1, [0, 0, 0]);
    all[7].status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".to_owned();
    let (changes, counts) = change(&all, &slices);
    assert_eq!(counts, [0, 1, 0]);
    let slices = apply(&slices, changes, &mut next);
    // One goes and another comes: it takes the free place of the slice that changes anyway.
    all.remove(7);
    all.push(read(pod(900)));
    let (changes, counts) = change(&all, &slices);
    assert_eq!(counts, [0, 1, 0]);
    let slices = apply(&slices, changes, &mut next);
    // One more fits into the slice that has room.
    all.push(read(pod(901)));
    let (changes, counts) = change(&all, &slices);
    assert_eq!((counts, changes.update[0].endpoints.as_ref().unwrap().len()), ([0, 1, 0], 51));
    let slices = apply(&slices, changes, &mut next);
    // The labels of the Service are those of its slices.
    let mut relabelled = one_port();
    relabelled.metadata.labels = None;
    let frame = slices::frame(&relabelled, owner());
    assert_eq!(slices::fit(&frame, groups(&one_port(), &all), &slices).update.len(), 3);
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice_which_is_used_later() {
    let (frame, mut next) = (slices::frame(&one_port(), owner()), 0);
    let slices = apply(&[], slices::fit(&frame, Vec::new(), &[]), &mut next);
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].endpoints.as_deref(), Some(&[][..]));
    assert_eq!(slices::fit(&frame, Vec::new(), &slices), Changes::default());
    let changes = slices::fit(&frame, groups(&one_port(), &pods(1)), &slices);
    assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
    let slices = apply(&slices, changes, &mut next);
    let changes = slices::fit(&frame, Vec::new(), &slices);
    assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
    assert_eq!(apply(&slices, changes, &mut next).len(), 1);
}

#[test]
fn the_old_object_holds_a_thousand_addresses_and_says_that_there_were_more() {
    let mut all = pods(1100);
    for pod in &mut all[..300] {
        pod.status.as_mut().unwrap().conditions = None;
    }
    let endpoints = subsets::decide(&one_port(), &all, None).unwrap();
    let count = |endpoints: &Endpoints| {
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        (subset.addresses.as_ref().map_or(0, Vec::len), subset.not_ready_addresses.as_ref().map_or(0, Vec::len))
    };
    assert_eq!(count(&endpoints), (800, 200));
    assert_eq!(endpoints.metadata.annotations.as_ref().unwrap()["endpoints.kubernetes.io/over-capacity"], "truncated");
    let fewer = subsets::decide(&one_port(), &all[..400], Some(&endpoints)).unwrap();
    assert_eq!((count(&fewer), fewer.metadata.annotations.as_ref()), ((100, 300), None));
    assert_eq!(subsets::decide(&one_port(), &all[..400], Some(&fewer)), None);
}

#[test]
fn the_old_object_leaves_out_what_is_going_unless_all_are_published() {
    let mut going = pod(1);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    let pods = [read::<Pod>(going)];
    assert_eq!(subsets::decide(&one_port(), &pods, None).unwrap().subsets, None);
    let published = service(json!({ "publishNotReadyAddresses": true, "ports": [{ "port": 80 }] }));
    assert_eq!(subsets::decide(&published, &pods, None).unwrap().subsets.unwrap().len(), 1);
}

fn by_hand(metadata: Value) -> Endpoints {
    let mut whole = json!({ "name": "web", "namespace": "a", "uid": "e" });
    whole.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    read(json!({ "metadata": whole, "subsets": [{
        "addresses": [{ "ip": "192.0.2.1" }, { "ip": "2001:db8::1" }], "notReadyAddresses": [{ "ip": "192.0.2.2" }],
        "ports": [{ "port": 9, "protocol": "TCP" }],
    }] }))
}

#[test]
fn endpoints_of_a_service_without_selector_are_said_in_slices() {
    let selectorless = service(json!({ "selector": null }));
    let endpoints = by_hand(json!({ "annotations": {
        "note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}",
    } }));
    assert!(mirror::is_mirrored(Some(&selectorless), &endpoints));
    let changes = slices::fit(&mirror::frame(&endpoints, owner()), mirror::groups(&endpoints), &[]);
    let said: Vec<Value> = changes
        .create
        .iter()
        .map(|slice| json!([slice.address_type, slice.metadata.annotations, slice.endpoints]))
        .collect();
    let ready = |address: &str, is: bool| json!({ "addresses": [address], "conditions": { "ready": is } });
    assert_eq!(
        said,
        [
            json!(["IPv4", { "note": "kept" }, [ready("192.0.2.1", true), ready("192.0.2.2", false)]]),
            json!(["IPv6", { "note": "kept" }, [ready("2001:db8::1", true)]]),
        ]
    );
    let empty = Endpoints { subsets: None, ..endpoints };
    assert_eq!(slices::fit(&mirror::frame(&empty, owner()), mirror::groups(&empty), &[]), Changes::default());
}

#[test]
fn what_is_kept_elsewhere_is_not_mirrored() {
    let selectorless = service(json!({ "selector": null }));
    let skipped = by_hand(json!({ "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } }));
    let elects = by_hand(json!({ "annotations": { "control-plane.alpha.kubernetes.io/leader": "{}" } }));
    assert!(!mirror::is_mirrored(Some(&selectorless), &skipped));
    assert!(!mirror::is_mirrored(Some(&selectorless), &elects));
    assert!(!mirror::is_mirrored(Some(&one_port()), &by_hand(json!({}))));
    assert!(!mirror::is_mirrored(None, &by_hand(json!({}))));
}
