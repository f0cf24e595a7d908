//! The native network on the real kernel, in a pretend host: a network namespace of the test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::range::Range;

mod dial;
mod dual;
mod host_ports;
mod policies;
mod routes;
mod services;

/// Runs a test on a thread in a network namespace of its own, where also all threads of its runtime start.
fn on_pretend_host<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP network on the kernel: not root");
        return;
    }
    std::thread::scope(|scope| {
        let pretend = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(folder.path().join("network")));
        });
        pretend.join().unwrap();
    });
}

/// A namespace for a sandbox.
fn namespace() -> NetNs {
    let make = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        NetNs::current().unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

fn config(state: PathBuf) -> NativeNetworkConfig {
    NativeNetworkConfig {
        instance: "test".to_owned(),
        pods: "10.91.7.0/28".parse().unwrap(),
        cluster: "10.91.6.0/23".parse().unwrap(),
        state,
        mtu: 1500,
        api: None,
    }
}

/// The node's address among its pods.
fn gateway() -> Ipv4Addr {
    Ipv4Addr::new(10, 91, 7, 1)
}

/// Runs `work` on a thread inside a namespace.
fn within<T: Send + 'static>(namespace: &NetNs, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.clone();
    let visit = move || {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
        work()
    };
    std::thread::spawn(visit).join().unwrap()
}

/// Connects to `to` and returns who the listener saw.
fn peer_seen(listener: TcpListener, connect: impl FnOnce() + Send) -> SocketAddr {
    std::thread::scope(|scope| {
        let accepted = scope.spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            peer
        });
        connect();
        accepted.join().unwrap()
    })
}

fn say_hello(to: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    stream.write_all(b"x").unwrap();
}

async fn attach(network: &NativeNetwork, sandbox: &str, namespace: &NetNs) -> Ipv4Addr {
    let request = Attach { sandbox: sandbox.to_owned(), namespace: namespace.clone(), ports: Vec::new() };
    match network.attach(request).await.unwrap().addresses.as_slice() {
        [IpAddr::V4(address)] => *address,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sandboxes_and_host_reach_each_other_at_the_first_packet() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state)).await.unwrap();
        let (a, b) = (namespace(), namespace());
        let (address_a, address_b) = (attach(&network, "a-0", &a).await, attach(&network, "b-0", &b).await);

        let listener = within(&a, || TcpListener::bind("0.0.0.0:8080").unwrap());
        let to_a = SocketAddr::from((address_a, 8080));
        let seen = peer_seen(listener.try_clone().unwrap(), || say_hello(to_a));
        assert_eq!(seen.ip(), IpAddr::V4(gateway()));
        let seen = peer_seen(listener, || within(&b, move || say_hello(to_a)));
        assert_eq!(seen.ip(), IpAddr::V4(address_b));

        let host = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
        let gateway = SocketAddr::from((gateway(), 8080));
        let seen = peer_seen(host, || within(&b, move || say_hello(gateway)));
        assert_eq!(seen.ip(), IpAddr::V4(address_b));
    });
}

#[test]
fn attaching_again_changes_nothing_and_a_restart_remembers() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let a = namespace();
        let first = attach(&network, "a-0", &a).await;
        assert_eq!(attach(&network, "a-0", &a).await, first);
        drop(network);
        let network = NativeNetwork::start(config(state)).await.unwrap();
        assert_eq!(attach(&network, "a-0", &a).await, first);
        network.retain(&[]).await.unwrap();
        assert_eq!(network.attachment("a-0"), None);
    });
}

#[test]
fn sandboxes_keep_their_addresses_where_the_record_is_damaged() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (a, b) = (namespace(), namespace());
        let (address_a, address_b) = (attach(&network, "a-0", &a).await, attach(&network, "b-0", &b).await);
        drop(network);
        fs::write(config(state.clone()).record(), "").unwrap();
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        network.retain(&["a-0".to_owned(), "b-0".to_owned()]).await.unwrap();
        assert_eq!(network.attachment("a-0"), None, "so that it is attached again");
        let new = attach(&network, "c-0", &namespace()).await;
        assert!(new != address_a && new != address_b);
        drop(network);
        // As after a death at once after the start.
        let network = NativeNetwork::start(config(state)).await.unwrap();
        assert_eq!(attach(&network, "b-0", &b).await, address_b);
        assert_eq!(attach(&network, "a-0", &a).await, address_a);
        let listener = within(&a, || TcpListener::bind("0.0.0.0:8080").unwrap());
        let seen = peer_seen(listener, || within(&b, move || say_hello(SocketAddr::from((address_a, 8080)))));
        assert_eq!(seen.ip(), IpAddr::V4(address_b));
    });
}

#[test]
fn a_sandbox_that_could_not_be_connected_is_not_attached() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let no_network = NetNs::new(fs::File::open("/proc/self/ns/uts").unwrap().into());
        let request = Attach { sandbox: "a-0".to_owned(), namespace: no_network, ports: Vec::new() };
        assert!(network.attach(request).await.is_err());
        assert_eq!(network.attachment("a-0"), None);
        drop(network);
        let network = NativeNetwork::start(config(state)).await.unwrap();
        assert_eq!(network.attachment("a-0"), None);
        let address = attach(&network, "a-0", &namespace()).await;
        assert_eq!(network.attachment("a-0"), Some(Attachment { addresses: vec![IpAddr::V4(address)] }));
    });
}

#[test]
fn an_address_rests_until_the_kernel_has_removed_its_link() {
    on_pretend_host(async |state| {
        let small = NativeNetworkConfig { pods: "10.91.7.0/30".parse().unwrap(), ..config(state) };
        let network = NativeNetwork::start(small).await.unwrap();
        let a = namespace();
        attach(&network, "a-0", &a).await;
        network.detach("a-0").await.unwrap();
        let again = Attach { sandbox: "b-0".to_owned(), namespace: namespace(), ports: Vec::new() };
        assert!(matches!(network.attach(again.clone()).await, Err(NetworkError::Exhausted { .. })));
        drop(a);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while network.attach(again.clone()).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the address never came back");
            tokio::task::yield_now().await;
        }
    });
}

/// Whether the host sends by a link whatever it has no other route for.
fn is_way_out(link: &str) -> bool {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
    routes.lines().any(|route| route.starts_with(&format!("{:032} 00 ", 0)) && route.ends_with(link))
}

/// A router advertisement (RFC 4861 §4.2) to all nodes on the link, as a pod may send it with `CAP_NET_RAW`.
fn advertise_a_router() {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, netdevice, sendto, socket, sockopt};

    let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
    let link = netdevice::name_to_index(&socket, "eth0").unwrap();
    sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    sockopt::set_ipv6_multicast_if(&socket, link).unwrap();
    let nodes = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, link);
    // Type, code, checksum (by the kernel), hop limit, flags, 1800 seconds, and two timers.
    let message = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    sendto(&socket, &message, SendFlags::empty(), &nodes).unwrap();
}

/// CVE-2020-10749.
#[test]
fn a_pod_that_pretends_to_be_a_router_does_not_become_the_hosts_way_out() {
    on_pretend_host(async |state| {
        if !fs::exists("/proc/sys/net/ipv6").unwrap() {
            eprintln!("SKIP router advertisements: no IPv6");
            return;
        }
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let pod = namespace();
        attach(&network, "a-0", &pod).await;
        let link = network.link("a-0").unwrap();
        let setting = |name: &str| format!("/proc/sys/net/ipv6/conf/{link}/{name}");
        let is = |name: &str, value: &str| fs::read_to_string(setting(name)).unwrap().trim() == value;
        assert!(is("accept_ra", "0") && is("accept_redirects", "0") && is("disable_ipv6", "1"));
        within(&pod, || host_ports::address_at_once("fe80::1/64"));
        // What is sent after it has come once it has.
        let host = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
        let gateway = SocketAddr::from((config(PathBuf::new()).pods.v4.gateway(), 8080));
        let advertise = || {
            peer_seen(host.try_clone().unwrap(), || {
                within(&pod, move || {
                    advertise_a_router();
                    say_hello(gateway);
                });
            });
            is_way_out(&link)
        };
        assert!(!advertise());
        // Nor would it with IPv6, but for this one setting.
        fs::write(setting("disable_ipv6"), "0").unwrap();
        assert!(!advertise());
        fs::write(setting("accept_ra"), "1").unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !advertise() {
            assert!(tokio::time::Instant::now() < deadline, "the advertisement would not have arrived anyway");
        }
        // Pods of an agent that did not know are closed when the next one starts.
        drop(network);
        let _network = NativeNetwork::start(config(state)).await.unwrap();
        assert!(is("accept_ra", "0") && is("disable_ipv6", "1") && !is_way_out(&link));
    });
}

#[test]
fn reset_makes_the_host_as_it_was() {
    on_pretend_host(async |state| {
        const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
        fs::write(FORWARD, "0").unwrap();
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        assert_eq!(fs::read_to_string(FORWARD).unwrap().trim(), "1");
        drop(network);
        let failures = reset(config(state.clone())).await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!(fs::read_to_string(FORWARD).unwrap().trim(), "0");
        assert!(TcpListener::bind((gateway(), 0)).is_err());
        assert!(reset(config(state)).await.is_empty());
    });
}

/// The world outside, at 10.91.8.2; the node has 10.91.8.1 there.
fn outside() -> NetNs {
    let outside = namespace();
    let range: Range = "10.91.8.0/30".parse().unwrap();
    let pair = Pair { name: "uplink".to_owned(), addresses: vec![[10, 91, 8, 2].into()], mtu: 1500 };
    let mut host = Socket::route().unwrap();
    link::set_gateway(&mut host, range.gateway(), true).unwrap();
    pair.connect(&mut host, &outside).unwrap();
    inside(outside.clone(), move |socket| pair.configure_inside(socket)).unwrap();
    outside
}

#[test]
fn what_leaves_the_pod_range_carries_the_address_of_the_node() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state)).await.unwrap();
        let outside = outside();

        let a = namespace();
        let address = attach(&network, "a-0", &a).await;
        let listener = within(&outside, || TcpListener::bind("0.0.0.0:8080").unwrap());
        let to = SocketAddr::from(([10, 91, 8, 2], 8080));
        let seen = peer_seen(listener, || within(&a, move || say_hello(to)));
        assert_ne!(seen.ip(), IpAddr::V4(address));
    });
}

#[test]
fn the_service_of_the_api_server_leads_to_it() {
    on_pretend_host(async |state| {
        let gateway = gateway();
        let forward = Forward { from: "10.91.9.1:443".parse().unwrap(), to: SocketAddrV4::new(gateway, 8443) };
        let network = NativeNetwork::start(NativeNetworkConfig { api: Some(forward), ..config(state) }).await.unwrap();
        let a = namespace();
        let address = attach(&network, "a-0", &a).await;
        let listener = TcpListener::bind((gateway, 8443)).unwrap();
        let seen = peer_seen(listener, || within(&a, move || say_hello(forward.from.into())));
        assert_eq!(seen.ip(), IpAddr::V4(address));
        let refused = within(&a, move || {
            let other = SocketAddrV4::new(*forward.from.ip(), 444);
            TcpStream::connect_timeout(&other.into(), Duration::from_millis(300)).is_err()
        });
        assert!(refused, "another port of the same address is nobody's");
    });
}
