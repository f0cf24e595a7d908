//! Pods with addresses of both families on the real kernel.

use std::net::Ipv6Addr;

use super::host_ports::{attach_with, refused, seen_from};
use super::*;
use crate::policies::{Fence, Opening, Peers, Policies, Ports};
use crate::services::{Frontend, Pool, Senders, Services};
use crate::{PortMapping, Protocol};

const NODE: Ipv6Addr = Ipv6Addr::new(0xfd91, 8, 0, 0, 0, 0, 0, 1);
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0xfd91, 8, 0, 0, 0, 0, 0, 2);
const VIP: Ipv6Addr = Ipv6Addr::new(0xfd91, 9, 0, 0, 0, 0, 0, 7);
const FORWARD: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

fn on_dual_host<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send) {
    if fs::exists(FORWARD).unwrap() {
        on_pretend_host(test);
    } else {
        eprintln!("SKIP network of both families on the kernel: no IPv6");
    }
}

fn dual(state: PathBuf) -> NativeNetworkConfig {
    NativeNetworkConfig {
        pods: "10.91.7.0/28,fd91:7::/64".parse().unwrap(),
        cluster: "10.91.6.0/23,fd91:6::/31".parse().unwrap(),
        ..config(state)
    }
}

/// The world outside with addresses of both families.
fn outside_dual() -> NetNs {
    let outside = namespace();
    let addresses = vec![[10, 91, 8, 2].into(), OUTSIDE.into()];
    let pair = Pair { name: "uplink".to_owned(), addresses, mtu: 1500 };
    let mut host = Socket::route().unwrap();
    for own in [Ipv4Addr::new(10, 91, 8, 1).into(), NODE.into()] {
        link::set_gateway(&mut host, own, true).unwrap();
    }
    pair.connect(&mut host, &outside).unwrap();
    inside(outside.clone(), move |socket| pair.configure_inside(socket)).unwrap();
    outside
}

async fn attach_dual(network: &NativeNetwork, sandbox: &str) -> (NetNs, Ipv6Addr) {
    let namespace = attach_with(network, sandbox, &[]).await;
    match network.attachment(sandbox).unwrap().addresses.as_slice() {
        [IpAddr::V4(_), IpAddr::V6(address)] => (namespace, *address),
        other => panic!("{other:?}"),
    }
}

fn listen(namespace: &NetNs, port: u16) -> TcpListener {
    within(namespace, move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap())
}

fn services(frontends: &[(Option<Ipv6Addr>, u16)], endpoints: &[(Ipv6Addr, u16)]) -> Services {
    let frontend = |(address, port): &(Option<Ipv6Addr>, u16)| {
        let address = address.map(IpAddr::V6);
        (Frontend { address, protocol: Protocol::Tcp, port: *port, senders: Senders::All }, "web".to_owned())
    };
    let endpoints = endpoints.iter().map(|at| SocketAddr::from(*at)).collect();
    Services {
        frontends: frontends.iter().map(frontend).collect(),
        pools: [("web".to_owned(), Pool { endpoints, ..Pool::default() })].into(),
        ..Services::default()
    }
}

fn v6_table(state: PathBuf) -> ServiceTable {
    let [_, v6] = ServiceTable::all(&dual(state), &"10.91.9.0/24,fd91:9::/112".parse().unwrap()).try_into().unwrap();
    v6
}

#[test]
fn pods_of_both_families_reach_each_other_the_host_and_the_world_at_the_first_packet() {
    on_dual_host(async |state| {
        let network = NativeNetwork::start(dual(state)).await.unwrap();
        let outside = outside_dual();
        let ((a, address_a), (b, address_b)) = (attach_dual(&network, "a-0").await, attach_dual(&network, "b-0").await);
        let listener = listen(&a, 8080);
        assert_eq!(seen_from(Some(&b), &listener, (address_a, 8080)), address_b);
        assert_eq!(seen_from(None, &listener, (address_a, 8080)), dual(PathBuf::new()).pods.v6.unwrap().gateway());
        let v4 = network.attachment("a-0").unwrap().addresses[0];
        let listener_v4 = within(&a, || TcpListener::bind("0.0.0.0:8081").unwrap());
        assert_eq!(seen_from(Some(&b), &listener_v4, (v4, 8081)), network.attachment("b-0").unwrap().addresses[0]);
        let host = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)).unwrap();
        assert_eq!(seen_from(Some(&b), &host, (NODE, 8080)), address_b);
        let world = listen(&outside, 8080);
        assert_ne!(seen_from(Some(&a), &world, (OUTSIDE, 8080)), address_a, "it carries the address of the node");
    });
}

#[test]
fn services_of_ipv6_lead_pods_strangers_and_oneself_and_refuse_what_nobody_answers() {
    on_dual_host(async |state| {
        let network = NativeNetwork::start(dual(state.clone())).await.unwrap();
        let outside = outside_dual();
        let ((a, address_a), (b, address_b)) = (attach_dual(&network, "a-0").await, attach_dual(&network, "b-0").await);
        let listener = listen(&a, 8080);
        let table = v6_table(state.clone());
        let both = [(Some(VIP), 80), (None, 30080)];
        table.apply(services(&both, &[(address_a, 8080)])).await.unwrap();
        assert_eq!(seen_from(Some(&b), &listener, (VIP, 80)), address_b);
        assert_ne!(seen_from(Some(&a), &listener, (VIP, 80)), address_a, "it would answer past the host");
        assert_eq!(seen_from(Some(&outside), &listener, (NODE, 30080)), OUTSIDE);
        assert_eq!(seen_from(Some(&b), &listener, (NODE, 30080)), address_b);
        assert!(refused(Some(&b), (VIP, 81)));
        table.apply(services(&both, &[])).await.unwrap();
        assert!(refused(Some(&b), (VIP, 80)) && refused(Some(&outside), (NODE, 30080)));
        // Who alone is admitted.
        let mut guarded = services(&both, &[(address_a, 8080)]);
        let frontend = *guarded.frontends.keys().find(|frontend| frontend.address.is_some()).unwrap();
        guarded.admitted.insert(frontend, [Range::single(address_a.into())].into());
        table.apply(guarded).await.unwrap();
        assert!(refused(Some(&b), (VIP, 80)));
        seen_from(Some(&a), &listener, (VIP, 80));
        // To whom clients return.
        let (mut sticky, second) = (services(&both, &[(address_a, 8080), (address_b, 8080)]), listen(&b, 8080));
        sticky.pools.get_mut("web").unwrap().sticky = Some(600);
        table.apply(sticky).await.unwrap();
        drop(second);
        assert!(
            super::services::shown(&["list", "ruleset"]).is_none_or(|shown| shown.contains("ip6 saddr @clients-1-"))
        );
        // Without IPv6 nothing is left of it.
        drop((table, network));
        NativeNetwork::start(config(state)).await.unwrap();
        assert!(super::services::shown(&["list", "tables"]).is_none_or(|shown| !shown.contains("v6")));
    });
}

#[test]
fn policies_keep_what_comes_and_goes_by_ipv6() {
    on_dual_host(async |state| {
        let network = NativeNetwork::start(dual(state.clone())).await.unwrap();
        let ((a, address_a), (b, address_b)) = (attach_dual(&network, "a-0").await, attach_dual(&network, "b-0").await);
        let (c, address_c) = attach_dual(&network, "c-0").await;
        let listener = listen(&a, 8080);
        let [_, v6] = PolicyTable::all(&dual(state)).try_into().unwrap();
        let closed = Policies { ingress: [(address_a.into(), Fence::new())].into(), ..Policies::default() };
        v6.apply(closed).await.unwrap();
        assert!(refused(Some(&b), (address_a, 8080)) && refused(Some(&c), (address_a, 8080)));
        seen_from(None, &listener, (address_a, 8080));
        let port = Some(Ports { protocol: Protocol::Tcp, range: Some((8080, 8080)) });
        let (whole, b_alone) =
            (Range::block("fd91:7::/64").unwrap(), Range::block(&format!("{address_b}/128")).unwrap());
        let friends = Opening { peers: Peers::Group("friends".to_owned()), port };
        let others = Opening { peers: Peers::Block { range: whole, except: vec![b_alone] }, port };
        let opened = |opening: &Opening| Policies {
            ingress: [(address_a.into(), [opening.clone()].into())].into(),
            groups: [("friends".to_owned(), [address_b.into()].into())].into(),
            ..Policies::default()
        };
        v6.apply(opened(&friends)).await.unwrap();
        assert_eq!(seen_from(Some(&b), &listener, (address_a, 8080)), address_b);
        assert!(refused(Some(&c), (address_a, 8080)));
        v6.apply(opened(&others)).await.unwrap();
        assert_eq!(seen_from(Some(&c), &listener, (address_a, 8080)), address_c);
        assert!(refused(Some(&b), (address_a, 8080)));
        let locked = Policies { egress: [(address_b.into(), Fence::new())].into(), ..Policies::default() };
        v6.apply(locked).await.unwrap();
        seen_from(Some(&c), &listener, (address_a, 8080));
        assert!(refused(Some(&b), (address_a, 8080)));
    });
}

#[test]
fn a_host_port_leads_to_its_pod_by_both_families() {
    on_dual_host(async |state| {
        let network = NativeNetwork::start(dual(state.clone())).await.unwrap();
        let outside = outside_dual();
        let port = |host_ip: Option<IpAddr>, host_port: u16| PortMapping {
            protocol: Protocol::Tcp,
            host_ip,
            host_port,
            container_port: 8080,
        };
        let ports = [port(None, 80), port(Some(NODE.into()), 81), port(Some([10, 91, 8, 1].into()), 82)];
        let pod = attach_with(&network, "web-0", &ports).await;
        // Also of IPv4, as they are mapped (RFC 4291 §2.5.5.2).
        let listener = listen(&pod, 8080);
        let mapped = |address: IpAddr| address.to_canonical();
        assert_eq!(seen_from(Some(&outside), &listener, (NODE, 80)), OUTSIDE);
        assert_eq!(mapped(seen_from(Some(&outside), &listener, ([10, 91, 8, 1], 80))), IpAddr::from([10, 91, 8, 2]));
        seen_from(Some(&outside), &listener, (NODE, 81));
        seen_from(Some(&outside), &listener, ([10, 91, 8, 1], 82));
        seen_from(Some(&pod), &listener, (NODE, 80));
        assert!(refused(Some(&outside), (NODE, 82)) && refused(Some(&outside), ([10, 91, 8, 1], 81)));
        // The same after a restart, and gone with the pod.
        drop(network);
        let network = NativeNetwork::start(dual(state)).await.unwrap();
        seen_from(Some(&outside), &listener, (NODE, 80));
        network.detach("web-0").await.unwrap();
        assert!(refused(Some(&outside), (NODE, 80)) && refused(Some(&outside), ([10, 91, 8, 1], 80)));
    });
}

#[test]
fn routes_lead_to_pods_of_other_nodes_by_ipv6_and_reset_removes_everything() {
    on_dual_host(async |state| {
        fs::write(FORWARD, "0").unwrap();
        let network = NativeNetwork::start(dual(state.clone())).await.unwrap();
        assert_eq!(fs::read_to_string(FORWARD).unwrap().trim(), "1");
        let ((a, address), other) = (attach_dual(&network, "a-0").await, outside_dual());
        let pod = Ipv6Addr::new(0xfd91, 6, 0, 0, 0, 0, 0, 2);
        inside(other.clone(), move |socket| link::set_gateway(socket, pod.into(), true).map_err(kernel("pod")))
            .unwrap();
        let routes = NodeRoutes::new(&dual(state.clone()));
        let near: (Range, IpAddr) = ("fd91:6::/64".parse().unwrap(), OUTSIDE.into());
        let far = ("fd91:6:0:1::/64".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let missing = routes.apply([near, far].into()).await.unwrap();
        assert_eq!(missing.iter().map(|missing| missing.via).collect::<Vec<_>>(), [far.1]);
        let listener = listen(&other, 8080);
        assert_eq!(seen_from(Some(&a), &listener, (pod, 8080)), address, "nobody translates between pods");
        drop(network);
        assert!(reset(dual(state)).await.is_empty());
        assert_eq!(fs::read_to_string(FORWARD).unwrap().trim(), "0");
        let left = Socket::route().unwrap().routes(Family::V6).unwrap();
        assert!(!left.iter().filter_map(super::super::routes::own).any(|route| route == near));
        assert!(TcpListener::bind((dual(PathBuf::new()).pods.v6.unwrap().gateway(), 0)).is_err());
    });
}

#[test]
fn a_host_without_ipv6_says_so_at_the_start() {
    on_dual_host(async |state| {
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let error = NativeNetwork::start(dual(state)).await.unwrap_err();
        assert!(matches!(error, NetworkError::NoIpv6 { .. }), "{error:?}");
    });
}

#[test]
fn without_ipv6_running_pods_do_not_reach_each_other_by_it_and_give_their_host_ports_back() {
    on_dual_host(async |state| {
        fs::write(FORWARD, "0").unwrap();
        let network = NativeNetwork::start(dual(state.clone())).await.unwrap();
        let ((a, address_a), (b, address_b)) = (attach_dual(&network, "a-0").await, attach_dual(&network, "b-0").await);
        let port = PortMapping { protocol: Protocol::Tcp, host_ip: None, host_port: 80, container_port: 8080 };
        let (node, outside) = (IpAddr::from([10, 91, 8, 1]), outside_dual());
        let web = attach_with(&network, "web-0", &[port]).await;
        let (listener, web) = (listen(&a, 8080), listen(&web, 8080));
        assert_eq!(seen_from(Some(&b), &listener, (address_a, 8080)), address_b);
        seen_from(Some(&outside), &web, (node, 80));
        drop(network);
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        assert_eq!(fs::read_to_string(FORWARD).unwrap().trim(), "0");
        assert!(refused(Some(&b), (address_a, 8080)) && refused(None, (address_a, 8080)));
        let link = network.link("a-0").unwrap();
        let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        assert!(!routes.lines().any(|route| route.ends_with(&link)), "{routes}");
        seen_from(Some(&outside), &web, (node, 80));
        network.detach("web-0").await.unwrap();
        assert!(refused(Some(&outside), (node, 80)), "it had an address of IPv6, whose table is gone");
        drop(network);
        let _network = NativeNetwork::start(dual(state)).await.unwrap();
        assert_eq!(
            seen_from(Some(&b), &listener, (address_a, 8080)),
            address_b,
            "and they do once there is IPv6 again"
        );
    });
}

#[test]
fn a_host_that_would_lose_its_way_out_says_so_and_keeps_it() {
    on_dual_host(async |state| {
        fs::write(FORWARD, "0").unwrap();
        let outside = outside_dual();
        fs::write("/proc/sys/net/ipv6/conf/uplink/accept_ra", "1").unwrap();
        within(&outside, || super::host_ports::address_at_once("fe80::1/64"));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !is_way_out("uplink") {
            assert!(tokio::time::Instant::now() < deadline, "the host has heard of no router");
            within(&outside, advertise_a_router);
        }
        let error = NativeNetwork::start(dual(state.clone())).await.unwrap_err();
        assert!(error.to_string().contains("net.ipv6.conf.uplink.accept_ra to 2"), "{error}");
        assert!(is_way_out("uplink"));
        fs::write("/proc/sys/net/ipv6/conf/uplink/accept_ra", "2").unwrap();
        let _network = NativeNetwork::start(dual(state)).await.unwrap();
        assert!(is_way_out("uplink"));
    });
}
