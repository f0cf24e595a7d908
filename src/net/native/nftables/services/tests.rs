use super::*;

fn pods() -> Range {
    "10.42.0.0/24".parse().unwrap()
}

fn frontend(address: Option<[u8; 4]>, protocol: Protocol, port: u16) -> Frontend {
    Frontend { address: address.map(IpAddr::from), protocol, port, senders: Senders::All }
}

fn pool(endpoints: &[&str]) -> Pool {
    Pool { endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(), ..Pool::default() }
}

fn services(frontends: &[(Frontend, &str)], pools: &[(&str, Pool)]) -> Services {
    Services {
        frontends: frontends.iter().map(|(frontend, name)| (*frontend, (*name).to_owned())).collect(),
        pools: pools.iter().map(|(name, pool)| ((*name).to_owned(), pool.clone())).collect(),
        ..Services::default()
    }
}

const WEB: [u8; 4] = [10, 43, 0, 9];

/// Keys are shown in hexadecimal as they are sent on a little-endian machine.
fn shown(change: &Change) -> Vec<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut lines: Vec<String> = change.chains.iter().map(|chain| format!("chain {}", chain.name())).collect();
    lines.extend(change.unused.iter().map(|chain| format!("no chain {}", chain.name())));
    for (sign, elements) in [("-", &change.gone), ("+", &change.new)] {
        lines.extend(elements.iter().map(|((map, key), value)| {
            let value = match value {
                Value::None => String::new(),
                Value::Bytes(bytes) => format!(" : {}", hex(bytes)),
                Value::Goto(chain) => format!(" : goto {chain}"),
                Value::Jump(chain) => format!(" : jump {chain}"),
                Value::Drop => " : drop".to_owned(),
            };
            format!("{sign} {} {}{value}", map.name(), hex(key))
        }));
    }
    lines
}

#[test]
fn an_endpoint_more_is_a_few_elements() {
    let mut book = Book::default();
    let web = frontend(Some(WEB), Protocol::Tcp, 80);
    let one = services(&[(web, "web")], &[("web", pool(&["10.42.0.2:8080"]))]);
    assert_eq!(
        shown(&book.change(one.clone(), &pods())),
        [
            "chain address-1",
            "+ spread 0a2b00090600000000500000 : goto address-1",
            "+ endpoints 0a2b0009060000000050000000000000 : 0a2a00021f900000",
            "+ hairpins 0a2a00020a2a0002",
        ]
    );
    assert!(book.change(one.clone(), &pods()).is_empty());
    let two = services(&[(web, "web")], &[("web", pool(&["10.42.0.2:8080", "10.42.0.3:8080"]))]);
    assert_eq!(
        shown(&book.change(two, &pods())),
        [
            "chain address-2",
            "no chain address-1",
            "- spread 0a2b00090600000000500000 : goto address-1",
            "+ spread 0a2b00090600000000500000 : goto address-2",
            "+ endpoints 0a2b0009060000000050000001000000 : 0a2a00031f900000",
            "+ hairpins 0a2a00030a2a0003",
        ]
    );
    // The last takes the place of the one that goes.
    let other = services(&[(web, "web")], &[("web", pool(&["10.42.0.3:8080"]))]);
    assert_eq!(
        shown(&book.change(other, &pods())),
        [
            "chain address-1",
            "no chain address-2",
            "- spread 0a2b00090600000000500000 : goto address-2",
            "- endpoints 0a2b0009060000000050000000000000 : 0a2a00021f900000",
            "- endpoints 0a2b0009060000000050000001000000 : 0a2a00031f900000",
            "- hairpins 0a2a00020a2a0002",
            "+ spread 0a2b00090600000000500000 : goto address-1",
            "+ endpoints 0a2b0009060000000050000000000000 : 0a2a00031f900000",
        ]
    );
    let gone = book.change(Services::default(), &pods());
    assert!(gone.new.is_empty());
    assert_eq!(gone.gone.len(), 3);
}

#[test]
fn without_endpoints_a_frontend_is_refused_and_a_silent_one_is_dropped() {
    let mut book = Book::default();
    let (web, node) = (frontend(Some(WEB), Protocol::Tcp, 80), frontend(None, Protocol::Tcp, 30080));
    let silent = Pool { is_silent: true, ..Pool::default() };
    let change =
        book.change(services(&[(web, "web"), (node, "local")], &[("web", pool(&[])), ("local", silent)]), &pods());
    assert_eq!(shown(&change), ["+ spread-ports 0600000075800000 : drop", "+ refused 0a2b00090600000000500000"]);
    let full = pool(&["192.0.2.1:80"]);
    let change =
        book.change(services(&[(web, "web"), (node, "local")], &[("web", full.clone()), ("local", full)]), &pods());
    let shown = shown(&change);
    assert!(shown.contains(&"- refused 0a2b00090600000000500000".to_owned()), "{shown:?}");
    assert!(shown.contains(&"- spread-ports 0600000075800000 : drop".to_owned()), "{shown:?}");
    assert!(shown.contains(&"+ remote c0000201".to_owned()), "it is no pod of this node: {shown:?}");
    assert_eq!(shown.iter().filter(|line| line.contains("hairpins")).count(), 1);
}

#[test]
fn who_is_near_is_led_by_maps_and_chains_of_their_own_and_otherwise_as_all_others() {
    let mut book = Book::default();
    let node = frontend(None, Protocol::Tcp, 30080);
    let near = Frontend { senders: Senders::Near, ..node };
    let silent = Pool { is_silent: true, ..Pool::default() };
    let all = pool(&["10.42.1.2:80"]);
    let change = book.change(services(&[(node, "here"), (near, "all")], &[("here", silent), ("all", all)]), &pods());
    assert_eq!(
        shown(&change),
        [
            "chain near-port-1",
            "+ spread-ports 0600000075800000 : drop",
            "+ near-ports 0600000075800000 : goto near-port-1",
            "+ near-endpoints-of-ports 060000007580000000000000 : 0a2a010200500000",
            "+ hairpins 0a2a01020a2a0102",
            "+ remote 0a2a0102",
        ]
    );
    let change = book.change(services(&[(node, "here")], &[("here", pool(&[]))]), &pods());
    assert_eq!(
        shown(&change),
        [
            "no chain near-port-1",
            "- spread-ports 0600000075800000 : drop",
            "- near-ports 0600000075800000 : goto near-port-1",
            "- near-endpoints-of-ports 060000007580000000000000 : 0a2a010200500000",
            "- hairpins 0a2a01020a2a0102",
            "- remote 0a2a0102",
            "+ refused-ports 0600000075800000",
        ]
    );
}

#[test]
fn frontends_with_equal_guards_share_one() {
    let mut book = Book::default();
    let [web, other] = [80, 81].map(|port| frontend(Some(WEB), Protocol::Tcp, port));
    let guarded = |guards: &[(Frontend, &str)]| Services {
        admitted: guards.iter().map(|(frontend, range)| (*frontend, [Range::block(range).unwrap()].into())).collect(),
        ..Services::default()
    };
    let first = book.change(guarded(&[(web, "192.0.2.0/24"), (other, "192.0.2.0/24")]), &pods());
    assert_eq!(first.new_guards.len(), 1);
    assert_eq!(
        shown(&first),
        ["+ guarded 0a2b00090600000000500000 : jump guard-1", "+ guarded 0a2b00090600000000510000 : jump guard-1"]
    );
    let second = book.change(guarded(&[(web, "192.0.2.0/24"), (other, "0.0.0.0/0")]), &pods());
    assert_eq!((second.new_guards.len(), second.gone_guards.len()), (1, 0));
    assert_eq!(
        shown(&second),
        ["- guarded 0a2b00090600000000510000 : jump guard-1", "+ guarded 0a2b00090600000000510000 : jump guard-2"]
    );
    let last = book.change(guarded(&[(other, "0.0.0.0/0")]), &pods());
    assert_eq!(last.gone_guards, [1]);
    assert_eq!(shown(&last), ["- guarded 0a2b00090600000000500000 : jump guard-1"]);
}

#[test]
fn an_endpoint_that_stays_keeps_its_clients() {
    let mut book = Book::default();
    let (web, node) = (frontend(Some(WEB), Protocol::Tcp, 80), frontend(None, Protocol::Tcp, 30080));
    let sticky = |seconds: u32, endpoints: &[&str]| {
        let pool = Pool { sticky: Some(seconds), ..pool(endpoints) };
        services(&[(web, "web"), (node, "web")], &[("web", pool)])
    };
    let [a, b]: [SocketAddr; 2] = ["10.42.0.2:80", "10.42.0.3:80"].map(|text| text.parse().unwrap());
    let first = book.change(sticky(600, &["10.42.0.2:80"]), &pods());
    assert_eq!(
        shown(&first),
        [
            "+ spread 0a2b00090600000000500000 : goto sticky-1",
            "+ spread-ports 0600000075800000 : goto sticky-1",
            "+ hairpins 0a2a00020a2a0002",
        ]
    );
    let sticky_1 = Sticky { number: 1, seconds: 600 };
    let turn = Turn { sticky: sticky_1, begins: true, ends: false, endpoints: vec![a], new: vec![a], gone: vec![] };
    assert_eq!(first.turns, [turn]);
    let more = book.change(sticky(600, &["10.42.0.2:80", "10.42.0.3:80"]), &pods());
    let turn = Turn { sticky: sticky_1, begins: false, ends: false, endpoints: vec![a, b], new: vec![b], gone: vec![] };
    assert_eq!(more.turns, [turn]);
    assert_eq!(shown(&more), ["+ hairpins 0a2a00030a2a0003"]);
    // Another time is another chain.
    let longer = book.change(sticky(900, &["10.42.0.3:80"]), &pods());
    let sticky_2 = Sticky { number: 2, seconds: 900 };
    let begins = Turn { sticky: sticky_2, begins: true, ends: false, endpoints: vec![b], new: vec![b], gone: vec![] };
    let ends = Turn { sticky: sticky_1, begins: false, ends: true, endpoints: vec![], new: vec![], gone: vec![a, b] };
    assert_eq!(longer.turns, [begins, ends]);
    assert_eq!(book.change(Services::default(), &pods()).turns.len(), 1);
}

#[test]
fn datagrams_leave_endpoints_that_are_gone_and_find_the_first() {
    let mut book = Book::default();
    let (dns, node) = (frontend(Some(WEB), Protocol::Udp, 53), frontend(None, Protocol::Udp, 30053));
    let with = |endpoints: &[&str]| services(&[(dns, "dns"), (node, "dns")], &[("dns", pool(endpoints))]);
    assert_eq!(book.change(with(&[]), &pods()).stale, []);
    let to = |frontend: Frontend| Which::To {
        protocol: 17,
        address: frontend.address,
        port: frontend.port,
        family: Family::V4,
    };
    assert_eq!(book.change(with(&["10.42.0.2:53"]), &pods()).stale, [to(node), to(dns)]);
    assert_eq!(book.change(with(&["10.42.0.2:53", "10.42.0.3:53"]), &pods()).stale, []);
    let by = IpAddr::from([10, 42, 0, 2]);
    let through =
        |frontend: Frontend| Which::Through { protocol: 17, address: frontend.address, port: frontend.port, by };
    assert_eq!(book.change(with(&["10.42.0.3:53"]), &pods()).stale, [through(node), through(dns)]);
}

#[test]
fn datagrams_of_an_earlier_table_that_go_elsewhere_are_known() {
    let (dns, node) = (frontend(Some(WEB), Protocol::Udp, 53), frontend(None, Protocol::Udp, 30053));
    let gone = frontend(Some([10, 43, 0, 8]), Protocol::Udp, 53);
    let mut book = Book::default();
    let near = Frontend { senders: Senders::Near, ..node };
    let ending = Pool { serving: pool(&["10.42.0.4:53"]).endpoints, ..pool(&["10.42.0.2:53"]) };
    let pools = [("dns", ending), ("near", pool(&["10.42.1.2:53"])), ("none", pool(&[]))];
    book.change(services(&[(dns, "dns"), (node, "dns"), (near, "near"), (gone, "none")], &pools), &pods());
    let is_misled = |protocol: Protocol, to: &str, by: &str| {
        let flow = Flow { protocol: protocol.number(), to: to.parse().unwrap(), by: by.parse().unwrap() };
        book.is_misled(&flow, &["10.43.0.0/16".parse().unwrap()])
    };
    for (to, by, expected) in [
        ("10.43.0.9:53", "10.42.0.2:53", false),
        ("10.43.0.9:53", "10.42.0.4:53", false),
        ("10.43.0.9:53", "10.42.0.3:53", true),
        ("10.43.0.9:53", "10.43.0.9:53", true),
        ("10.43.0.8:53", "10.42.0.3:53", true),
        ("10.43.0.8:53", "10.43.0.8:53", false),
        ("10.43.0.7:53", "10.42.0.3:53", true),
        ("10.43.0.7:53", "10.43.0.7:53", false),
        ("192.0.2.1:30053", "10.42.0.2:53", false),
        ("192.0.2.1:30053", "10.42.1.2:53", false),
        ("192.0.2.1:30053", "10.42.0.3:53", true),
        ("192.0.2.1:30053", "192.0.2.1:30053", false),
        ("192.0.2.1:53", "10.42.0.3:53", false),
    ] {
        assert_eq!(is_misled(Protocol::Udp, to, by), expected, "{to} answered by {by}");
        assert!(!is_misled(Protocol::Tcp, to, by), "{to} answered by {by}");
    }
}

#[test]
fn datagrams_stay_with_endpoints_that_serve_whoever_is_led_there() {
    let mut book = Book::default();
    let node = frontend(None, Protocol::Udp, 30053);
    let near = Frontend { senders: Senders::Near, ..node };
    let [a, b] = ["10.42.0.2:53", "10.42.1.2:53"];
    let both = services(&[(node, "all")], &[("all", pool(&[a, b]))]);
    let mut apart = services(&[(node, "here"), (near, "all")], &[("here", pool(&[a])), ("all", pool(&[a, b]))]);
    book.change(both.clone(), &pods());
    for (wanted, step) in [(&apart, "those who are near come"), (&both, "and go"), (&apart, "and come")] {
        assert_eq!(book.change(wanted.clone(), &pods()).stale, [], "{step}");
    }
    // One that ends keeps its clients until it does not serve any more.
    let serving = |wanted: &mut Services, endpoints: &[&str]| {
        wanted.pools.values_mut().for_each(|own| own.serving = pool(endpoints).endpoints);
    };
    apart.pools.insert("all".to_owned(), pool(&[a]));
    serving(&mut apart, &[a, b]);
    let change = book.change(apart.clone(), &pods());
    assert!(!change.is_empty(), "nobody new is led there");
    assert_eq!(change.stale, []);
    serving(&mut apart, &[a]);
    let change = book.change(apart, &pods());
    assert!(change.is_empty());
    let by = IpAddr::from([10, 42, 1, 2]);
    assert_eq!(change.stale, [Which::Through { protocol: 17, address: None, port: 30053, by }]);
}

/// Any series of changes leads to what the last state makes of an empty table.
#[test]
fn elements_that_came_by_steps_are_those_that_would_come_at_once() {
    let addresses = ["10.42.0.2:80", "10.42.0.3:80", "192.0.2.1:80", "10.42.0.2:81"];
    let (web, dns) = (frontend(Some(WEB), Protocol::Tcp, 80), frontend(None, Protocol::Udp, 53));
    let near = Frontend { senders: Senders::Near, ..web };
    let state = |step: usize| {
        let some = |bits: usize| {
            let chosen = addresses.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
            pool(&chosen.map(|(_, text)| *text).collect::<Vec<_>>())
        };
        let (a, b) = (some(step * 7 % 16), some(step * 11 % 16));
        match step % 4 {
            0 => services(&[(web, "a"), (dns, "b"), (near, "a")], &[("a", a), ("b", b)]),
            1 => services(&[(web, "b")], &[("b", Pool { sticky: Some(9), ..b })]),
            2 => services(&[(dns, "a"), (web, "a")], &[("a", a)]),
            _ => services(&[(web, "c"), (dns, "b")], &[("c", a), ("b", b)]),
        }
    };
    let (mut book, mut there, mut chains) = (Book::default(), Elements::new(), BTreeSet::new());
    let mut turning = BTreeMap::<u32, BTreeSet<SocketAddr>>::new();
    for step in 0..200 {
        let change = book.change(state(step), &pods());
        for (key, value) in &change.gone {
            assert_eq!(there.remove(key).as_ref(), Some(value), "step {step}");
        }
        for (key, value) in change.new {
            assert_eq!(there.insert(key.clone(), value), None, "step {step}: {key:?}");
        }
        for chain in change.chains {
            assert!(chains.insert(chain), "step {step}: {chain:?} was there");
        }
        assert!(change.unused.iter().all(|chain| chains.remove(chain)), "step {step}");
        for turn in change.turns {
            let known = turning.remove(&turn.sticky.number);
            assert_eq!(known.is_none(), turn.begins, "step {step}");
            let mut known = known.unwrap_or_default();
            assert!(turn.gone.iter().all(|endpoint| known.remove(endpoint)), "step {step}");
            known.extend(&turn.new);
            assert_eq!(known, turn.endpoints.iter().copied().collect(), "step {step}");
            assert_eq!(known.is_empty(), turn.ends, "step {step}");
            if !turn.ends {
                turning.insert(turn.sticky.number, known);
            }
        }
        let count = |map: Map, all: &Elements| all.keys().filter(|(own, _)| *own == map).count();
        let fresh = Book::default().change(state(step), &pods());
        assert_eq!(chains, fresh.chains.iter().copied().collect(), "step {step}");
        assert_eq!(turning.len(), fresh.turns.len(), "step {step}");
        for map in Map::ALL {
            assert_eq!(count(map, &there), count(map, &fresh.new), "step {step}: {map:?}");
        }
    }
}
