//! Services on the real kernel.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::Protocol;
use crate::services::{Frontend, Pool, Senders, Services};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 91, 8, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 91, 8, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 91, 9, 7);

fn table(state: PathBuf) -> ServiceTable {
    ServiceTable::all(&config(state), &"10.91.9.0/24".parse().unwrap()).remove(0)
}

pub(super) fn frontend(address: Option<Ipv4Addr>, protocol: Protocol, port: u16) -> Frontend {
    Frontend { address: address.map(IpAddr::V4), protocol, port, senders: Senders::All }
}

pub(super) fn pool(endpoints: &[(Ipv4Addr, u16)]) -> Pool {
    let endpoints = endpoints.iter().map(|at| SocketAddr::from(*at)).collect();
    Pool { endpoints, ..Pool::default() }
}

/// One pool behind frontends.
pub(super) fn services(frontends: &[Frontend], pool: Pool) -> Services {
    Services {
        frontends: frontends.iter().map(|frontend| (*frontend, "web".to_owned())).collect(),
        pools: [("web".to_owned(), pool)].into(),
        ..Services::default()
    }
}

/// A pod that answers with its name, for ever.
pub(super) fn answering(namespace: &NetNs, port: u16, name: u8) {
    let listener = within(namespace, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let IpAddr::V4(peer) = stream.peer_addr().unwrap().ip() else { panic!("an IPv6 peer") };
            let _ = stream.write_all(&[&[name][..], &peer.octets()].concat());
        }
    });
}

/// Who answers, and whom it saw; or how it was refused.
pub(super) fn ask(from: Option<&NetNs>, to: impl Into<SocketAddr>) -> Result<(u8, Ipv4Addr), io::ErrorKind> {
    let to = to.into();
    let connect = move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(|error| error.kind())?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).map_err(|error| error.kind())?;
        let [name, peer @ ..] = answer;
        Ok((name, Ipv4Addr::from(peer)))
    };
    match from {
        Some(namespace) => within(namespace, connect),
        None => connect(),
    }
}

#[test]
fn a_service_is_reached_from_pods_the_host_outside_and_itself_by_all_its_addresses() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (outside, a, b) = (outside(), namespace(), namespace());
        let (address_a, address_b) = (attach(&network, "a-0", &a).await, attach(&network, "b-0", &b).await);
        answering(&a, 8080, b'a');
        let table = table(state);
        let (own, node) = (frontend(Some(VIP), Protocol::Tcp, 80), frontend(None, Protocol::Tcp, 30080));
        let other = frontend(Some(Ipv4Addr::new(10, 91, 8, 9)), Protocol::Tcp, 80);
        let all = [own, node, other];
        table.apply(services(&all, pool(&[(address_a, 8080)]))).await.unwrap();
        let gateway = gateway();
        assert_eq!(ask(Some(&b), (VIP, 80)), Ok((b'a', address_b)), "the sender is seen as it is");
        assert_eq!(ask(None, (VIP, 80)), Ok((b'a', gateway)));
        assert_eq!(ask(Some(&b), (NODE, 30080)), Ok((b'a', address_b)));
        assert_eq!(ask(None, (NODE, 30080)).map(|(name, _)| name), Ok(b'a'));
        assert_eq!(ask(Some(&outside), (NODE, 30080)), Ok((b'a', OUTSIDE)));
        within(&outside, || {
            let route = ["route", "add", "10.91.8.9/32", "via", "169.254.1.1", "dev", "eth0", "onlink"];
            assert!(run("ip", &route));
        });
        assert_eq!(ask(Some(&outside), (Ipv4Addr::new(10, 91, 8, 9), 80)), Ok((b'a', OUTSIDE)));
        // It reaches itself, but must not see itself, or it would answer past the host.
        for to in [(VIP, 80), (NODE, 30080)] {
            let (name, seen) = ask(Some(&a), to).unwrap();
            assert_eq!(name, b'a');
            assert_ne!(seen, address_a);
        }
        // What has no endpoint is refused, at once, and so is what is no port of the Service.
        table.apply(services(&all, pool(&[]))).await.unwrap();
        for from in [Some(&b), None] {
            for to in [(VIP, 80), (VIP, 81), (NODE, 30080)] {
                assert_eq!(ask(from, to), Err(io::ErrorKind::ConnectionRefused), "{to:?} from {from:?}");
            }
        }
        assert_eq!(ask(Some(&outside), (NODE, 30080)), Err(io::ErrorKind::ConnectionRefused));
        let silent = Pool { is_silent: true, ..Pool::default() };
        table.apply(services(&all, silent)).await.unwrap();
        assert_eq!(ask(Some(&outside), (NODE, 30080)), Err(io::ErrorKind::TimedOut));
    });
}

#[test]
fn who_is_near_is_led_elsewhere_than_strangers() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (outside, a, b) = (outside(), namespace(), namespace());
        let (address_a, _) = (attach(&network, "a-0", &a).await, attach(&network, "b-0", &b).await);
        answering(&a, 8080, b'a');
        let table = table(state);
        let outer = Ipv4Addr::new(10, 91, 8, 9);
        within(&outside, || {
            let route = ["route", "add", "10.91.8.9/32", "via", "169.254.1.1", "dev", "eth0", "onlink"];
            assert!(run("ip", &route));
        });
        // So that the host has some way there before it is led elsewhere.
        assert!(run("ip", &["route", "add", "10.91.8.9/32", "dev", "lo"]));
        let (node, other) = (frontend(None, Protocol::Tcp, 30080), frontend(Some(outer), Protocol::Tcp, 80));
        let silent = Pool { is_silent: true, ..Pool::default() };
        let mut wanted = services(&[node, other], silent);
        for frontend in [node, other] {
            wanted.frontends.insert(Frontend { senders: Senders::Near, ..frontend }, "all".to_owned());
        }
        wanted.pools.insert("all".to_owned(), pool(&[(address_a, 8080)]));
        table.apply(wanted.clone()).await.unwrap();
        for to in [(NODE, 30080), (outer, 80)] {
            for from in [Some(&b), Some(&a), None] {
                assert_eq!(ask(from, to).map(|(name, _)| name), Ok(b'a'), "{to:?} from {from:?}");
            }
            assert_eq!(ask(Some(&outside), to), Err(io::ErrorKind::TimedOut), "{to:?}");
        }
        wanted.frontends.retain(|frontend, _| frontend.senders == Senders::All);
        table.apply(wanted).await.unwrap();
        assert_eq!(ask(Some(&b), (NODE, 30080)), Err(io::ErrorKind::TimedOut));
    });
}

#[test]
fn only_who_is_admitted_comes_to_a_guarded_frontend() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (outside, a, b) = (outside(), namespace(), namespace());
        let (address_a, _) = (attach(&network, "a-0", &a).await, attach(&network, "b-0", &b).await);
        answering(&a, 8080, b'a');
        let table = table(state);
        let own = frontend(Some(NODE), Protocol::Tcp, 80);
        let (other, port) = (frontend(Some(NODE), Protocol::Tcp, 81), frontend(None, Protocol::Tcp, 30080));
        let mut wanted = services(&[own, other, port], pool(&[(address_a, 8080)]));
        let passed = Err(io::ErrorKind::TimedOut);
        for (ranges, strangers, pods, host) in [
            (&["10.91.8.2/32", "192.0.2.0/24"][..], Ok(b'a'), passed, passed),
            (&["10.91.7.0/28"], passed, Ok(b'a'), passed),
            (&["10.91.8.1/32"], passed, passed, Ok(b'a')),
            (&["0.0.0.0/0"], Ok(b'a'), Ok(b'a'), Ok(b'a')),
            (&[], passed, passed, passed),
        ] {
            let ranges = ranges.iter().map(|text| crate::range::Range::block(text).unwrap()).collect();
            wanted.admitted.insert(own, ranges);
            table.apply(wanted.clone()).await.unwrap();
            for (from, hears) in [(Some(&outside), strangers), (Some(&b), pods), (None, host)] {
                assert_eq!(ask(from, (NODE, 80)).map(|(name, _)| name), hears, "{:?} from {from:?}", wanted.admitted);
            }
        }
        for from in [Some(&outside), Some(&b), None] {
            for to in [(NODE, 81), (NODE, 30080)] {
                assert_eq!(ask(from, to).map(|(name, _)| name), Ok(b'a'), "{to:?} is not guarded");
            }
        }
        wanted.admitted.clear();
        table.apply(wanted).await.unwrap();
        assert_eq!(ask(Some(&outside), (NODE, 80)).map(|(name, _)| name), Ok(b'a'));
    });
}

#[test]
fn connections_spread_over_the_endpoints_and_follow_their_changes() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let mut endpoints = Vec::new();
        for name in *b"abc" {
            let namespace = namespace();
            let address = attach(&network, &format!("{}-0", char::from(name)), &namespace).await;
            answering(&namespace, 8080, name);
            endpoints.push((address, 8080));
            std::mem::forget(namespace);
        }
        let own = [frontend(Some(VIP), Protocol::Tcp, 80)];
        let table = table(state.clone());
        let heard = || {
            let mut names: Vec<u8> = (0..60).map(|_| ask(None, (VIP, 80)).unwrap().0).collect();
            names.sort_unstable();
            names.dedup();
            String::from_utf8(names).unwrap()
        };
        for (some, wanted) in
            [(&endpoints[..2], "ab"), (&endpoints[..], "abc"), (&endpoints[1..], "bc"), (&endpoints[..1], "a")]
        {
            table.apply(services(&own, pool(some))).await.unwrap();
            assert_eq!(heard(), wanted);
        }
        // Clients that return, until who answered them is gone.
        let sticky = |some: &[(Ipv4Addr, u16)]| services(&own, Pool { sticky: Some(600), ..pool(some) });
        table.apply(sticky(&endpoints)).await.unwrap();
        let first = heard();
        assert_eq!(first.len(), 1, "{first}");
        let others: Vec<_> = endpoints
            .iter()
            .zip(*b"abc")
            .filter(|(_, name)| [*name] != first.as_bytes())
            .map(|(one, _)| *one)
            .collect();
        table.apply(sticky(&others)).await.unwrap();
        let second = heard();
        assert_eq!(second.len(), 1, "{second}");
        assert_ne!(first, second);
        // Those who stay keep their clients when another comes.
        table.apply(sticky(&endpoints)).await.unwrap();
        assert_eq!(heard(), second);
        // Another agent begins anew, and somebody has taken the table away.
        let again = self::table(state);
        again.apply(services(&own, pool(&endpoints))).await.unwrap();
        assert_eq!(heard(), "abc");
        nftables::remove(&Netfilter::default(), &[config(PathBuf::new()).service_table(Family::V4)]).unwrap();
        again.apply(services(&own, pool(&endpoints[..2]))).await.unwrap();
        assert_eq!(heard(), "ab");
    });
}

#[test]
fn a_sender_of_datagrams_that_never_pauses_is_led_to_the_endpoint_that_is_left() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (a, b, client) = (namespace(), namespace(), namespace());
        let (address_a, address_b) = (attach(&network, "a-0", &a).await, attach(&network, "b-0", &b).await);
        attach(&network, "c-0", &client).await;
        let bind = |port: u16| move || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let (at_a, at_b, sender) = (within(&a, bind(53)), within(&b, bind(53)), within(&client, bind(4000)));
        let table = table(state.clone());
        let own = [frontend(Some(VIP), Protocol::Udp, 53)];
        for (receiver, address) in [(&at_a, address_a), (&at_b, address_b), (&at_a, address_a)] {
            table.apply(services(&own, pool(&[(address, 53)]))).await.unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            sender.send_to(b"hello", (VIP, 53)).unwrap();
            assert_eq!(receiver.recv_from(&mut [0; 8]).unwrap().0, 5);
        }
        // Another agent knows nothing of who answered before.
        let again = self::table(state);
        again.apply(services(&own, pool(&[(address_b, 53)]))).await.unwrap();
        at_b.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        sender.send_to(b"again", (VIP, 53)).unwrap();
        assert_eq!(at_b.recv_from(&mut [0; 8]).unwrap().0, 5);
    });
}

#[test]
fn thousands_of_endpoints_are_one_batch() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let a = namespace();
        let address = attach(&network, "a-0", &a).await;
        answering(&a, 8080, b'a');
        let table = table(state);
        let mut many = Services::default();
        for number in 0..2000_u32 {
            let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 91, 9, 0)) + number / 100);
            let port = u16::try_from(1000 + number % 100).unwrap();
            let name = format!("s{number}");
            many.frontends.insert(frontend(Some(vip), Protocol::Tcp, port), name.clone());
            let others = (0..5).map(|other| (Ipv4Addr::from(0x0a50_0000 + number * 8 + other), 80));
            many.pools.insert(name, pool(&others.collect::<Vec<_>>()));
        }
        many.frontends.insert(frontend(Some(VIP), Protocol::Tcp, 80), "own".to_owned());
        many.pools.insert("own".to_owned(), pool(&[(address, 8080)]));
        table.apply(many.clone()).await.unwrap();
        assert_eq!(ask(None, (VIP, 80)).map(|(name, _)| name), Ok(b'a'));
        many.pools.insert("own".to_owned(), pool(&[]));
        table.apply(many).await.unwrap();
        assert_eq!(ask(None, (VIP, 80)), Err(io::ErrorKind::ConnectionRefused));
    });
}

/// nft(8) of Debian 12 dies of a table with keys that it does not understand, and then shows no other table either.
#[test]
fn the_table_is_shown_by_nft() {
    on_pretend_host(async |state| {
        let _network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let table = table(state);
        let all = [frontend(Some(VIP), Protocol::Tcp, 80), frontend(None, Protocol::Tcp, 30080)];
        let endpoints: Vec<_> = (2..5).map(|last| (Ipv4Addr::new(10, 91, 0, last), 8080)).collect();
        let mut wanted = services(&all, pool(&endpoints));
        wanted.frontends.insert(frontend(Some(VIP), Protocol::Udp, 53), "sticky".to_owned());
        wanted.pools.insert("sticky".to_owned(), Pool { sticky: Some(600), ..pool(&endpoints) });
        table.apply(wanted).await.unwrap();
        let Some(shown) = shown(&["-n", "list", "ruleset"]) else {
            eprintln!("SKIP the table is shown by nft: no nft");
            return;
        };
        for line in [
            "ip daddr . meta l4proto . th dport vmap @spread",
            "10.91.9.7 . 6 . 80 : goto address-3",
            "ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints",
            "update @clients-1-10.91.0.2-8080 { ip saddr timeout 600s }",
            "ip saddr @clients-1-10.91.0.4-8080 goto sticky-1-10.91.0.4-8080",
        ] {
            assert!(shown.contains(line), "{line} is not in\n{shown}");
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "a test may look at tables with nft(8)")]
pub(super) fn shown(arguments: &[&str]) -> Option<String> {
    let output = match std::process::Command::new("nft").args(arguments).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a test may make routes with ip(8)")]
fn run(program: &str, arguments: &[&str]) -> bool {
    std::process::Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

#[test]
fn addresses_of_a_further_range_are_reached_from_the_host_and_pods_and_refused_where_nobody_has_them() {
    on_pretend_host(async |state| {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let (a, b) = (namespace(), namespace());
        let (address_a, address_b) = (attach(&network, "a-0", &a).await, attach(&network, "b-0", &b).await);
        answering(&a, 8080, b'a');
        let table = table(state.clone());
        let (far, nobody) = (Ipv4Addr::new(10, 92, 0, 7), Ipv4Addr::new(10, 92, 0, 8));
        let own = [frontend(Some(far), Protocol::Tcp, 80)];
        let plain = services(&own, pool(&[(address_a, 8080)]));
        let range = crate::Range::block("10.92.0.0/24").unwrap();
        let further = Services { further: [range].into(), ..plain.clone() };
        table.apply(plain.clone()).await.unwrap();
        assert_eq!(ask(None, (far, 80)), Err(io::ErrorKind::NetworkUnreachable), "no route leads there");
        table.apply(further.clone()).await.unwrap();
        assert_eq!(ask(None, (far, 80)), Ok((b'a', gateway())));
        assert_eq!(ask(Some(&b), (far, 80)), Ok((b'a', address_b)));
        for from in [None, Some(&b)] {
            assert_eq!(ask(from, (nobody, 80)), Err(io::ErrorKind::ConnectionRefused));
        }
        // One that begins anew knows nothing of the route, and one that names addresses of pods changes nothing.
        let again = self::table(state);
        let pods = crate::Range::block("10.91.0.0/16").unwrap();
        again.apply(Services { further: [range, pods].into(), ..plain.clone() }).await.unwrap();
        assert_eq!(ask(None, (far, 80)), Ok((b'a', gateway())));
        assert_eq!(ask(Some(&b), (address_a, 8080)), Ok((b'a', address_b)));
        again.apply(plain).await.unwrap();
        assert_eq!(ask(None, (far, 80)), Err(io::ErrorKind::NetworkUnreachable));
    });
}
