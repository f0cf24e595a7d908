use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn here() -> Here {
    Here { name: "n1".to_owned(), addresses: Vec::new(), zone: None }
}

fn service(spec: &Value) -> Arc<Service> {
    let mut whole = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000 });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    Arc::new(serde_json::from_value(json!({ "metadata": { "namespace": "a", "name": "s" }, "spec": whole })).unwrap())
}

fn slice(service: &str, endpoints: &[(&str, &str, bool)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, ready)| {
            json!({ "addresses": [address], "nodeName": node, "conditions": { "ready": ready } })
        })
        .collect();
    let labels = json!({ "kubernetes.io/service-name": service });
    let metadata = json!({ "namespace": "a", "name": "x", "labels": labels });
    Arc::new(
        serde_json::from_value(json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints })).unwrap(),
    )
}

fn subject() -> Subject {
    Subject { namespace: "a".to_owned(), name: "s".to_owned(), port: 32000 }
}

#[test]
fn ready_endpoints_of_this_node_are_counted_once() {
    let slices = [
        slice("s", &[("10.42.0.2", "n1", true), ("10.42.0.3", "n1", false), ("10.42.1.2", "n2", true)]),
        slice("s", &[("10.42.0.2", "n1", true), ("10.42.0.4", "n1", true)]),
        slice("t", &[("10.42.0.9", "n1", true)]),
    ];
    assert_eq!(render(&[service(&json!({}))], &slices, &here()), [(subject(), 2)].into());
    assert_eq!(render(&[service(&json!({}))], &slices[2..], &here()), [(subject(), 0)].into());
    for nothing in [
        json!({ "externalTrafficPolicy": "Cluster" }),
        json!({ "type": "NodePort" }),
        json!({ "healthCheckNodePort": 0 }),
        json!({ "healthCheckNodePort": null }),
    ] {
        assert!(render(&[service(&nothing)], &slices, &here()).is_empty(), "{nothing}");
    }
    let mut other = (*service(&json!({}))).clone();
    other.metadata.labels = Some([("service.kubernetes.io/service-proxy-name".to_owned(), "x".to_owned())].into());
    assert!(render(&[Arc::new(other)], &slices, &here()).is_empty(), "it is left to another proxy");
}

#[test]
fn a_node_without_endpoints_or_with_services_as_they_should_not_be_is_unavailable() {
    let answered = |count: usize, is_healthy: bool| {
        let known = Known { counts: [(subject(), count)].into(), is_healthy };
        let answer = answer(&subject(), &known);
        assert_eq!(answer.headers()["x-load-balancing-endpoint-weight"], count.to_string());
        let body: Value = serde_json::from_str(answer.body()).unwrap();
        assert_eq!(
            body,
            json!({
                "service": { "namespace": "a", "name": "s" },
                "localEndpoints": count, "serviceProxyHealthy": is_healthy,
            })
        );
        answer.status().as_u16()
    };
    assert_eq!(answered(2, true), 200);
    assert_eq!(answered(0, true), 503);
    assert_eq!(answered(2, false), 503);
}

#[tokio::test]
async fn whoever_asks_hears_what_is_known_by_then() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = watch::Sender::new(Known { counts: [(subject(), 1)].into(), is_healthy: true });
    let tasks = Tasks::new();
    tasks.spawn("test", serve(tasks.clone(), listener, subject(), known.subscribe()));
    let ask = async || {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /whatever HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let first = ask().await;
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{first}");
    assert!(first.ends_with("\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}"), "{first}");
    known.send_replace(Known { counts: [(subject(), 0)].into(), is_healthy: true });
    assert!(ask().await.starts_with("HTTP/1.1 503 "));
    tasks.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_port_is_listened_on_in_both_families_beside_each_other() {
    let v4 = bind(Family::V4, 0).unwrap();
    let port = v4.local_addr().unwrap().port();
    match bind(Family::V6, port) {
        Ok(v6) => assert_eq!(v6.local_addr().unwrap().port(), port),
        Err(error) => assert!(has_no_family(&error), "{error}"),
    }
    assert!(bind(Family::V4, port).is_err_and(|error| !has_no_family(&error)));
}
