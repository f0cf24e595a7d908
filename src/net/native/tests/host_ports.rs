//! Host ports on the real kernel.

use std::net::UdpSocket;

use super::*;
use crate::PortMapping;

const NODE: Ipv4Addr = Ipv4Addr::new(10, 91, 8, 1);

fn port(protocol: Protocol, host_ip: Option<Ipv4Addr>, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { protocol, host_ip: host_ip.map(IpAddr::V4), host_port, container_port }
}

pub(super) async fn attach_with(network: &NativeNetwork, sandbox: &str, ports: &[PortMapping]) -> NetNs {
    let namespace = namespace();
    let request = Attach { sandbox: sandbox.to_owned(), namespace: namespace.clone(), ports: ports.to_vec() };
    network.attach(request).await.unwrap();
    namespace
}

fn listen(namespace: &NetNs, port: u16) -> TcpListener {
    within(namespace, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
}

/// Who a pod sees when somebody connects.
pub(super) fn seen_from(from: Option<&NetNs>, listener: &TcpListener, to: impl Into<SocketAddr>) -> IpAddr {
    let to = to.into();
    let connect = || match from {
        Some(namespace) => within(namespace, move || say_hello(to)),
        None => say_hello(to),
    };
    peer_seen(listener.try_clone().unwrap(), connect).ip()
}

pub(super) fn refused(from: Option<&NetNs>, to: impl Into<SocketAddr>) -> bool {
    let to = to.into();
    let connect = move || TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_err();
    match from {
        Some(namespace) => within(namespace, connect),
        None => connect(),
    }
}

#[test]
fn a_host_port_leads_to_its_pod_from_everywhere_until_the_pod_goes() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state)).await.unwrap();
        let (outside, other) = (outside(), namespace());
        let address_of_other = attach(&network, "other-0", &other).await;
        let pod = attach_with(&network, "web-0", &[port(Protocol::Tcp, None, 80, 8080)]).await;
        let listener = listen(&pod, 8080);

        assert_eq!(seen_from(Some(&outside), &listener, (NODE, 80)), IpAddr::from([10, 91, 8, 2]));
        assert_eq!(seen_from(Some(&other), &listener, (NODE, 80)), IpAddr::from(address_of_other));
        for own in [NODE, Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 9)] {
            seen_from(None, &listener, (own, 80));
        }
        // Its own packets must not come back to it with its own address, or it would answer past the host.
        let hairpin = seen_from(Some(&pod), &listener, (NODE, 80));
        assert_ne!(Some(hairpin), network.attachment("web-0").map(|own| own.addresses[0]));

        network.detach("web-0").await.unwrap();
        assert!(refused(Some(&outside), (NODE, 80)) && refused(None, (Ipv4Addr::LOCALHOST, 80)));
    });
}

#[test]
fn the_same_port_of_different_addresses_and_protocols_is_different_pods() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state)).await.unwrap();
        let outside = outside();
        let gateway = gateway();
        let a = attach_with(&network, "a-0", &[port(Protocol::Tcp, Some(NODE), 80, 1)]).await;
        let b = attach_with(&network, "b-0", &[port(Protocol::Tcp, Some(gateway), 80, 2)]).await;
        let c = attach_with(&network, "c-0", &[port(Protocol::Udp, Some(NODE), 80, 3)]).await;
        let (a, b) = (listen(&a, 1), listen(&b, 2));
        let datagrams = within(&c, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 3)).unwrap());
        datagrams.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        seen_from(Some(&outside), &a, (NODE, 80));
        seen_from(Some(&outside), &b, (gateway, 80));
        within(&outside, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.send_to(b"hello", (NODE, 80)).unwrap();
        });
        let mut bytes = [0; 5];
        assert_eq!(datagrams.recv_from(&mut bytes).unwrap().1.ip(), IpAddr::from([10, 91, 8, 2]));
        assert!(refused(None, (Ipv4Addr::LOCALHOST, 80)), "nobody has this port of this address");

        let taken = Attach {
            sandbox: "d-0".to_owned(),
            namespace: namespace(),
            ports: vec![port(Protocol::Tcp, Some(NODE), 80, 9)],
        };
        let error = network.attach(taken).await.unwrap_err();
        assert_eq!(error.to_string(), "host port TCP/10.91.8.1:80 is taken by sandbox a-0");
        seen_from(Some(&outside), &a, (NODE, 80));
    });
}

#[test]
fn host_ports_survive_a_restart_without_a_gap_and_go_with_pods_that_did_not() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let outside = outside();
        let a = attach_with(&network, "a-0", &[port(Protocol::Tcp, None, 80, 8080)]).await;
        let _b = attach_with(&network, "b-0", &[port(Protocol::Tcp, None, 81, 8080)]).await;
        let listener = listen(&a, 8080);
        let lasting = within(&outside, || TcpStream::connect((NODE, 80)).unwrap());
        let (mut inside, _) = listener.accept().unwrap();
        drop(network);
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        seen_from(Some(&outside), &listener, (NODE, 80));
        (&lasting).write_all(b"still").unwrap();
        let mut bytes = [0; 5];
        inside.read_exact(&mut bytes).unwrap();
        network.retain(&["a-0".to_owned()]).await.unwrap();
        let again = port(Protocol::Tcp, None, 81, 9);
        let c = attach_with(&network, "c-0", &[again]).await;
        seen_from(Some(&outside), &listen(&c, 9), (NODE, 81));
        // Once more, now that the record holds what was added after the first restart.
        drop(network);
        let network = NativeNetwork::start(config(state)).await.unwrap();
        seen_from(Some(&outside), &listener, (NODE, 80));
        network.retain(&[]).await.unwrap();
        assert!(refused(Some(&outside), (NODE, 80)) && refused(Some(&outside), (NODE, 81)));
    });
}

/// A sender that never pauses and never changes its own port is one connection to the kernel for ever.
#[test]
fn a_sender_of_datagrams_that_never_pauses_follows_the_port_to_the_next_pod() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state)).await.unwrap();
        let outside = outside();
        let sender = within(&outside, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4000)).unwrap());
        let early = UdpSocket::bind((NODE, 53)).unwrap();
        let expect = |receiver: &UdpSocket, text: &[u8]| {
            sender.send_to(text, (NODE, 53)).unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut bytes = [0; 16];
            let (length, _) = receiver.recv_from(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], text);
        };
        expect(&early, b"the host");
        for (sandbox, text) in [("a-0", b"the first pod   "), ("b-0", b"the second pod  ")] {
            let pod = attach_with(&network, sandbox, &[port(Protocol::Udp, None, 53, 5353)]).await;
            let receiver = within(&pod, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap());
            expect(&receiver, text);
            expect(&receiver, text);
            network.detach(sandbox).await.unwrap();
        }
        expect(&early, b"the host again");
    });
}

#[expect(clippy::disallowed_methods, reason = "a test may forge routes with ip(8) and rules with nft(8)")]
pub(super) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    std::process::Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// Gives `eth0` an address that is good without a look for others who have it (`nodad`, which not every ip(8) knows).
pub(super) fn address_at_once(address: &str) {
    std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").unwrap();
    assert!(succeeds("ip", &["address", "add", address, "dev", "eth0"]));
}

#[test]
fn a_pod_with_a_host_port_does_not_reach_what_listens_on_the_hosts_loopback() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state)).await.unwrap();
        let private = UdpSocket::bind((Ipv4Addr::LOCALHOST, 7000)).unwrap();
        private.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let pod = attach_with(&network, "web-0", &[port(Protocol::Tcp, None, 80, 8080)]).await;
        // What a pod with CAP_NET_RAW would write by hand: 127.0.0.1 by its link.
        within(&pod, || {
            let run = |arguments: &[&str]| assert!(succeeds("ip", arguments), "{arguments:?}");
            fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            run(&["address", "delete", "127.0.0.1/8", "dev", "lo"]);
            run(&["route", "flush", "table", "local", "127.0.0.0/8"]);
            run(&["route", "replace", "127.0.0.0/8", "via", "169.254.1.1", "dev", "eth0", "onlink"]);
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.send_to(b"forged", (Ipv4Addr::LOCALHOST, 7000)).unwrap();
        });
        assert!(private.recv_from(&mut [0; 16]).is_err(), "a pod reached the host's loopback");
        // Without the rule it would, so that this test can fail.
        if succeeds("nft", &["delete", "chain", "inet", "coracle-test", "loopback"]) {
            within(&pod, || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                socket.send_to(b"forged", (Ipv4Addr::LOCALHOST, 7000)).unwrap();
            });
            assert!(private.recv_from(&mut [0; 16]).is_ok(), "the forged packet would not have arrived anyway");
        }
    });
}

/// The socket would hold the acknowledgements of some 240 of them at once.
#[test]
fn hundreds_of_host_ports_come_outlive_a_restart_and_go() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let outside = outside();
        let ports: Vec<_> = (0..300).map(|number| port(Protocol::Tcp, None, 20_000 + number, 8080)).collect();
        let pod = attach_with(&network, "web-0", &ports).await;
        let listener = listen(&pod, 8080);
        seen_from(Some(&outside), &listener, (NODE, 20_299));
        drop(network);
        let network = NativeNetwork::start(config(state)).await.unwrap();
        seen_from(Some(&outside), &listener, (NODE, 20_299));
        network.detach("web-0").await.unwrap();
        assert!(refused(Some(&outside), (NODE, 20_000)) && refused(Some(&outside), (NODE, 20_299)));
        if !succeeds("nft", &["--version"]) {
            eprintln!("SKIP host ports that somebody has removed: no nft");
            return;
        }
        // Somebody has removed the table, so that each of them fails.
        let _pod = attach_with(&network, "web-1", &ports).await;
        assert!(succeeds("nft", &["flush", "map", "inet", "coracle-test", "ports-anywhere"]));
        network.detach("web-1").await.unwrap();
    });
}
