use std::net::Ipv4Addr;

use super::*;
use crate::Protocol;
use crate::policies::Ports;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 2));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 3));

fn web(peers: Peers) -> Opening {
    Opening { peers, port: Some(Ports { protocol: Protocol::Tcp, range: Some((80, 80)) }) }
}

fn group(name: &str) -> Peers {
    Peers::Group(name.to_owned())
}

fn groups(members: &[IpAddr]) -> BTreeMap<String, BTreeSet<IpAddr>> {
    [("friends".to_owned(), members.iter().copied().collect())].into()
}

#[test]
fn equal_fences_are_one_chain_and_a_new_member_is_one_element() {
    let mut book = Book::default();
    let fence: Fence = [web(group("friends"))].into();
    let ingress: BTreeMap<_, _> = [(A, fence.clone()), (B, fence.clone())].into();
    let wanted = Policies { ingress: ingress.clone(), groups: groups(&[A]), ..Policies::default() };
    let change = book.change(wanted.clone());
    assert_eq!(change.new_groups, [1]);
    assert_eq!(change.new_fences, [(2, Way::In, vec![(web(group("friends")), Some(1))])]);
    assert_eq!(change.fenced, [(Way::In, A, 2), (Way::In, B, 2)]);
    assert_eq!(change.selves, [A, B]);
    assert!(book.change(wanted).is_empty());
    let more = book.change(Policies { ingress, groups: groups(&[A, B]), ..Policies::default() });
    assert_eq!(more, Change { joins: vec![(1, B)], ..Change::default() });
}

#[test]
fn a_pod_goes_from_one_fence_to_another_and_is_free_in_the_end() {
    let mut book = Book::default();
    let closed = Policies { egress: [(A, Fence::new())].into(), ..Policies::default() };
    let change = book.change(closed);
    assert_eq!(change.new_fences, [(1, Way::Out, vec![])]);
    let open = Policies { egress: [(A, [web(Peers::All)].into())].into(), ..Policies::default() };
    let change = book.change(open);
    assert_eq!(change.new_fences, [(2, Way::Out, vec![(web(Peers::All), None)])]);
    assert_eq!((change.freed, change.fenced), (vec![(Way::Out, A)], vec![(Way::Out, A, 2)]));
    assert_eq!((change.gone_fences, change.selves), (vec![1], vec![]));
    let change = book.change(Policies::default());
    assert_eq!((change.freed, change.gone_fences, change.others), (vec![(Way::Out, A)], vec![2], vec![A]));
    assert!(book.fences.is_empty() && book.groups.is_empty());
}

/// Any series of changes leads to what the last state makes of an empty table.
#[test]
fn what_came_by_steps_is_what_would_come_at_once() {
    let state = |step: usize| {
        let mut state = Policies::default();
        let bit = |place: usize| step.wrapping_mul(2_654_435_761) >> place & 1 == 1;
        if bit(3) {
            state.ingress.insert(A, [web(group("friends"))].into());
        }
        if bit(4) {
            state.ingress.insert(B, if bit(5) { [web(group("friends"))].into() } else { Fence::new() });
        }
        if bit(6) {
            state.egress.insert(A, if bit(7) { [web(Peers::All)].into() } else { [web(group("friends"))].into() });
        }
        let members: Vec<_> =
            [A, B].into_iter().enumerate().filter(|(place, _)| bit(8 + place)).map(|(_, at)| at).collect();
        state.groups = groups(&members);
        state
    };
    let mut book = Book::default();
    let (mut fences, mut groups) = (BTreeSet::new(), BTreeMap::<u32, BTreeSet<IpAddr>>::new());
    let mut fenced = BTreeMap::new();
    for step in 0..300 {
        let change = book.change(state(step));
        groups.extend(change.new_groups.iter().map(|number| (*number, BTreeSet::new())));
        for (number, member) in &change.leaves {
            assert!(groups.get_mut(number).unwrap().remove(member), "step {step}");
        }
        for (number, member) in &change.joins {
            assert!(groups.get_mut(number).unwrap().insert(*member), "step {step}");
        }
        assert!(change.new_fences.iter().all(|(number, ..)| fences.insert(*number)), "step {step}");
        for (way, at) in &change.freed {
            assert!(fenced.remove(&(*way, *at)).is_some(), "step {step}");
        }
        for (way, at, number) in &change.fenced {
            assert!(fences.contains(number) && fenced.insert((*way, *at), *number).is_none(), "step {step}");
        }
        for number in &change.gone_fences {
            assert!(fences.remove(number) && fenced.values().all(|used| used != number), "step {step}");
        }
        assert!(change.gone_groups.iter().all(|number| groups.remove(number).is_some()), "step {step}");
        let fresh = Book::default().change(state(step));
        assert_eq!((fences.len(), groups.len()), (fresh.new_fences.len(), fresh.new_groups.len()), "step {step}");
        assert_eq!(fenced.len(), fresh.fenced.len(), "step {step}");
        assert_eq!(groups.values().map(BTreeSet::len).sum::<usize>(), fresh.joins.len(), "step {step}");
    }
}
