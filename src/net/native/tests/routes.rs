//! Routes to the pods of other nodes.

use super::*;

/// A range and the address of its node.
fn to(pods: &str, via: &str) -> (Range, IpAddr) {
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
        inside(other.clone(), move |socket| link::set_gateway(socket, pod.into(), true).map_err(kernel("pod")))
            .unwrap();
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
        super::super::routes::remove_all(&config(state.clone())).unwrap();
        assert!(!has());
        routes.apply([near].into()).await.unwrap();
        assert!(has());
        routes.apply([].into()).await.unwrap();
        assert!(!has());
        routes.apply([near].into()).await.unwrap();
        assert!(reset(config(state)).await.is_empty() && !has());
    });
}

/// All routes that have our mark and lead to another host.
fn ours() -> Vec<(Range, IpAddr)> {
    Socket::route().unwrap().routes(Family::V4).unwrap().iter().filter_map(super::super::routes::own).collect()
}

#[test]
fn routes_are_found_by_the_kernel_where_their_record_is_damaged() {
    on_pretend_host(async |state| {
        let _network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let _other = outside();
        let routes = NodeRoutes::new(&config(state.clone()));
        let (near, next) = (to("10.91.6.0/28", "10.91.8.2"), to("10.91.6.16/28", "10.91.8.2"));
        assert!(routes.apply([near, next].into()).await.unwrap().is_empty());
        let record = config(state.clone()).routes_record();
        fs::write(&record, "{\"10.91.6.0/28\":").unwrap();
        assert!(routes.apply([next].into()).await.unwrap().is_empty());
        assert_eq!(ours(), [next], "what is not wanted is known to be ours and goes");
        fs::write(&record, "").unwrap();
        // Whoever resets a host knows the addresses of its own pods at most.
        let blind = NativeNetworkConfig { cluster: config(state.clone()).pods, ..config(state) };
        assert!(reset(blind).await.is_empty());
        assert_eq!(ours(), []);
    });
}

#[test]
fn a_route_of_ours_that_leads_elsewhere_is_led_where_the_pods_are_and_one_of_others_is_not() {
    on_pretend_host(async |state| {
        let _network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (_other, another) = (outside(), namespace());
        let via = IpAddr::from([10, 91, 8, 3]);
        let pair = Pair { name: "uplink2".to_owned(), addresses: vec![via], mtu: 1500 };
        pair.connect(&mut Socket::route().unwrap(), &another).unwrap();
        let routes = NodeRoutes::new(&config(state.clone()));
        let right = to("10.91.6.0/28", "10.91.8.2");
        // Of ours, though nothing says so any more.
        let forget = || fs::remove_file(config(state.clone()).routes_record()).unwrap();
        assert!(routes.apply([(right.0, via)].into()).await.unwrap().is_empty());
        forget();
        assert!(routes.apply([right].into()).await.unwrap().is_empty());
        assert_eq!(ours(), [right]);
        // Where the new way is none, the old one is none either.
        forget();
        let unreached = to("10.91.6.0/28", "192.0.2.1");
        assert_eq!(routes.apply([unreached].into()).await.unwrap().len(), 1);
        assert_eq!(ours(), []);
        // Somebody else's.
        let mut theirs = super::super::routes::route(right.0, via);
        theirs.header.protocol = netlink_packet_route::route::RouteProtocol::Static;
        let message = netlink_packet_route::RouteNetlinkMessage::NewRoute(theirs);
        Socket::route().unwrap().change(message, netlink_packet_core::NLM_F_CREATE).unwrap();
        assert!(routes.apply([right].into()).await.unwrap().is_empty());
        assert_eq!(ours(), []);
    });
}
