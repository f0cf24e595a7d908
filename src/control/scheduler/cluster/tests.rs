use proptest::prelude::*;

use super::*;

/// A step on one of a few pods and nodes.
#[derive(Debug, Clone)]
enum Step {
    Place(usize, usize, i64),
    Assume(usize, usize, i64),
    Remove(usize),
    SetNode(usize),
    RemoveNode(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..5_usize, 0..4_usize, 0..3_usize, 1..100_i64).prop_map(|(kind, pod, node, cpu)| match kind {
        0 => Step::Place(pod, node, cpu),
        1 => Step::Assume(pod, node, cpu),
        2 => Step::Remove(pod),
        3 => Step::SetNode(node),
        _ => Step::RemoveNode(node),
    });
    proptest::collection::vec(step, 0..40)
}

fn needs(cpu: i64) -> Arc<Needs> {
    let mut needs = Needs::default();
    needs.requests.set("cpu", cpu);
    Arc::new(needs)
}

proptest! {
    #[test]
    fn what_is_taken_of_a_node_is_the_sum_of_its_pods_whatever_happened(steps in steps()) {
        let mut cluster = Cluster::default();
        let mut model: HashMap<usize, (usize, i64)> = HashMap::new();
        let mut known: std::collections::HashSet<usize> = std::collections::HashSet::new();
        let key = |pod: usize| Key::namespaced("x", &pod.to_string());
        for step in steps {
            match step {
                Step::Place(pod, node, cpu) => {
                    cluster.place(&key(pod), "u", &node.to_string(), &needs(cpu));
                    model.insert(pod, (node, cpu));
                }
                Step::Assume(pod, node, cpu) => {
                    cluster.assume(&key(pod), "u", &node.to_string(), &needs(cpu));
                    prop_assert!(cluster.is_assumed(&key(pod), "u") && !cluster.is_assumed(&key(pod), "other"));
                    model.insert(pod, (node, cpu));
                }
                Step::Remove(pod) => prop_assert_eq!(cluster.remove(&key(pod)), model.remove(&pod).is_some()),
                Step::SetNode(node) => {
                    cluster.set_node(&node.to_string(), &Arc::new(Node::default()));
                    known.insert(node);
                }
                Step::RemoveNode(node) => {
                    cluster.remove_node(&node.to_string());
                    known.remove(&node);
                }
            }
            prop_assert_eq!(cluster.nodes().count(), known.len());
            for node in 0..3_usize {
                let pods = model.values().filter(|(at, _)| *at == node);
                let (count, sum) = pods.fold((0, 0), |(count, sum), (_, cpu)| (count + 1, sum + cpu));
                let room = cluster.nodes.get(&node.to_string());
                prop_assert_eq!(room.map_or(0, |room| room.requested.get("cpu")), sum);
                prop_assert_eq!(room.map_or(0, |room| room.pods.len()), count);
                prop_assert_eq!(room.is_none(), count == 0 && !known.contains(&node));
            }
        }
    }
}
