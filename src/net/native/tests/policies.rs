//! Network policies on the real kernel.

use super::services::{answering, ask, frontend, pool, services};
use super::*;
use crate::Protocol;
use crate::policies::{Fence, Opening, Peers, Policies, Ports};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 91, 9, 7);

fn tcp(port: u16) -> Option<Ports> {
    Some(Ports { protocol: Protocol::Tcp, range: Some((port, port)) })
}

/// Pods a, b and c; a answers on 8080 and 9090, and on 80 of a Service.
struct Three {
    _network: NativeNetwork,
    policies: PolicyTable,
    a: (NetNs, Ipv4Addr),
    b: (NetNs, Ipv4Addr),
    c: (NetNs, Ipv4Addr),
}

impl Three {
    async fn make(state: PathBuf) -> Self {
        let network = NativeNetwork::start(config(state.clone())).await.unwrap();
        let mut pods = Vec::new();
        for name in ["a-0", "b-0", "c-0"] {
            let namespace = namespace();
            let address = attach(&network, name, &namespace).await;
            pods.push((namespace, address));
        }
        let [a, b, c] = <[_; 3]>::try_from(pods).unwrap();
        answering(&a.0, 8080, b'a');
        answering(&a.0, 9090, b'a');
        let table = ServiceTable::all(&config(state.clone()), &"10.91.9.0/24".parse().unwrap()).remove(0);
        let own = frontend(Some(VIP), Protocol::Tcp, 80);
        table.apply(services(&[own], pool(&[(a.1, 8080)]))).await.unwrap();
        let policies = PolicyTable::all(&config(state)).remove(0);
        Self { _network: network, policies, a, b, c }
    }

    /// Whether b, c, a itself and the host reach a port of a.
    fn reach(&self, port: u16) -> [bool; 4] {
        let reach = |from: Option<&NetNs>| ask_soon(from, (self.a.1, port));
        [reach(Some(&self.b.0)), reach(Some(&self.c.0)), reach(Some(&self.a.0)), reach(None)]
    }
}

fn ask_soon(from: Option<&NetNs>, to: (Ipv4Addr, u16)) -> bool {
    ask(from, to).is_ok()
}

#[test]
fn what_no_policy_opens_is_closed_but_for_the_node_and_oneself() {
    on_pretend_host(async |state| {
        let three = Three::make(state).await;
        let b: Policies = Policies {
            ingress: [(three.a.1.into(), Fence::new())].into(),
            groups: [("b".to_owned(), [three.b.1.into()].into())].into(),
            ..Policies::default()
        };
        assert_eq!(three.reach(8080), [true; 4]);
        three.policies.apply(b.clone()).await.unwrap();
        assert_eq!(three.reach(8080), [false, false, true, true]);
        let opening = Opening { peers: Peers::Group("b".to_owned()), port: tcp(8080) };
        let opened = Policies { ingress: [(three.a.1.into(), [opening].into())].into(), ..b.clone() };
        three.policies.apply(opened.clone()).await.unwrap();
        assert_eq!(three.reach(8080), [true, false, true, true]);
        assert_eq!(three.reach(9090), [false, false, true, true]);
        // By the Service it is the same, and a reaches itself by it.
        assert!(ask_soon(Some(&three.b.0), (VIP, 80)) && ask_soon(Some(&three.a.0), (VIP, 80)));
        assert!(!ask_soon(Some(&three.c.0), (VIP, 80)));
        // One more in the group.
        let both = [three.b.1.into(), three.c.1.into()].into();
        three.policies.apply(Policies { groups: [("b".to_owned(), both)].into(), ..opened }).await.unwrap();
        assert_eq!(three.reach(8080), [true, true, true, true]);
        three.policies.apply(Policies::default()).await.unwrap();
        assert_eq!(three.reach(9090), [true; 4]);
    });
}

#[test]
fn what_a_pod_may_send_is_kept_by_block_and_range_of_ports() {
    on_pretend_host(async |state| {
        let three = Three::make(state.clone()).await;
        let range = Range::block("10.91.0.0/16").unwrap();
        // More than one rule has room for.
        let others = (100..200).map(|third| Range::block(&format!("10.91.{third}.1/32")).unwrap());
        let except: Vec<Range> = others.chain([Range::block(&format!("{}/32", three.a.1)).unwrap()]).collect();
        let ports = Some(Ports { protocol: Protocol::Tcp, range: Some((8000, 8999)) });
        let without = Opening { peers: Peers::Block { range, except }, port: None };
        let with = Opening { peers: Peers::Block { range, except: Vec::new() }, port: ports };
        let only = |opening: &Opening| Policies {
            egress: [(three.b.1.into(), [opening.clone()].into())].into(),
            ..Policies::default()
        };
        three.policies.apply(only(&without)).await.unwrap();
        assert_eq!(three.reach(8080), [false, true, true, true]);
        three.policies.apply(only(&with)).await.unwrap();
        assert_eq!((three.reach(8080), three.reach(9090)), ([true; 4], [false, true, true, true]));
        // Another agent begins anew, and somebody has taken the table away.
        let again = PolicyTable::all(&config(state)).remove(0);
        again.apply(only(&without)).await.unwrap();
        assert_eq!(three.reach(8080), [false, true, true, true]);
        nftables::remove(&Netfilter::default(), &[config(PathBuf::new()).policy_table(Family::V4)]).unwrap();
        again.apply(only(&with)).await.unwrap();
        assert_eq!(three.reach(9090), [false, true, true, true]);
        if let Some(shown) = super::services::shown(&["-n", "list", "ruleset"]) {
            assert!(shown.contains("tcp dport 8000-8999 return"), "{shown}");
        }
    });
}
