//! Routes to the pods of other nodes.

use super::*;

/// A range and the address of its node.
fn to(pods: &str, via: &str) -> (Range, Ipv4Addr) {
    (pods.parse().unwrap(), via.parse().unwrap())
}

#[test]
fn pods_of_another_node_are_reached_by_it_and_see_who_asks() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (a, other) = (namespace(), outside());
        let address = attach(&network, "a-0", &a).await;
        // The other node, with a pod of its own at one of its addresses.
        let pod = Ipv4Addr::new(10, 91, 6, 2);
        inside(other.clone(), move |socket| link::set_gateway(socket, pod, true).map_err(kernel("pod"))).unwrap();
        let routes = NodeRoutes::new(&config(state.clone()));
        let (near, far) = (to("10.91.6.0/28", "10.91.8.2"), to("10.91.6.16/28", "192.0.2.1"));
        let missing = routes.apply([near, far].into()).await.unwrap();
        assert_eq!(missing.iter().map(|missing| missing.via).collect::<Vec<_>>(), [far.1]);
        let listener = within(&other, || TcpListener::bind("0.0.0.0:8080").unwrap());
        let seen = peer_seen(listener, || within(&a, move || say_hello(SocketAddr::from((pod, 8080)))));
        assert_eq!(seen.ip(), IpAddr::V4(address), "nobody translates between pods");

        // What is gone is made again, what is not wanted any more goes, and nothing is left in the end.
        let has = || fs::read_to_string("/proc/thread-self/net/route").unwrap().contains("00065B0A");
        assert!(has());
        super::super::routes::remove_all(&config(state.clone()).routes_record()).unwrap();
        assert!(!has());
        routes.apply([near].into()).await.unwrap();
        assert!(has());
        routes.apply([].into()).await.unwrap();
        assert!(!has());
        routes.apply([near].into()).await.unwrap();
        assert!(reset(config(state)).await.is_empty() && !has());
    });
}
