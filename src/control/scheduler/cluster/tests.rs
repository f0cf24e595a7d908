use proptest::prelude::*;
use serde_json::json;

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

/// Every third is told apart by a label, and bears none of its own sort near it.
fn pod(name: usize, cpu: i64, node: Option<usize>) -> Arc<Pod> {
    let apart = json!([{"labelSelector": {"matchLabels": {"sort": "1"}}, "topologyKey": "kubernetes.io/hostname"}]);
    let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}});
    let resources = json!({"requests": {"cpu": format!("{cpu}m")}});
    let is_apart = cpu % 3 == 1;
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name.to_string(), "namespace": "x", "uid": "u", "labels": {"sort": (cpu % 3).to_string()}},
            "spec": {
                "nodeName": node.map(|node| node.to_string()), "affinity": is_apart.then_some(affinity),
                "containers": [{"name": "c", "resources": resources}],
            },
        }))
        .unwrap(),
    )
}

fn sort() -> Crowd {
    let company = Needs::of(&pod(0, 1, None)).company;
    Crowd { covers: vec![company.apart[0].cover.clone()], with_ending: true }
}

proptest! {
    #[test]
    fn what_is_taken_of_a_node_is_the_sum_of_its_pods_whatever_happened(steps in steps()) {
        let mut cluster = Cluster::default();
        let mut model: HashMap<usize, (usize, i64)> = HashMap::new();
        let mut known: std::collections::HashSet<usize> = std::collections::HashSet::new();
        let key = |pod: usize| Key::namespaced("x", &pod.to_string());
        cluster.get_ready(vec![sort()]);
        for step in steps {
            match step {
                Step::Place(name, node, cpu) => {
                    cluster.place(&pod(name, cpu, Some(node)), &node.to_string());
                    model.insert(name, (node, cpu));
                }
                Step::Assume(name, node, cpu) => {
                    let pod = pod(name, cpu, None);
                    cluster.assume(&pod, &Arc::new(Needs::of(&pod)), &node.to_string());
                    prop_assert!(cluster.is_assumed(&key(name), "u") && !cluster.is_assumed(&key(name), "other"));
                    model.insert(name, (node, cpu));
                }
                Step::Remove(pod) => prop_assert_eq!(cluster.remove(&key(pod)).is_some(), model.remove(&pod).is_some()),
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
            let counts = cluster.counts(&sort()).into_owned();
            for node in 0..3_usize {
                let pods = model.values().filter(|(at, _)| *at == node);
                let (count, sum) = pods.clone().fold((0, 0), |(count, sum), (_, cpu)| (count + 1, sum + cpu));
                let of_the_sort = pods.filter(|(_, cpu)| cpu % 3 == 1).count();
                let number = cluster.numbers.get(&node.to_string()).copied();
                let room = number.map(|number| &cluster.rooms[number]);
                prop_assert_eq!(room.map_or(0, |room| room.requested.get("cpu")), sum);
                prop_assert_eq!(room.map_or(0, |room| room.pods.len()), count);
                prop_assert_eq!(room.is_none(), count == 0 && !known.contains(&node));
                let counted = number.and_then(|number| counts.get(number).copied()).unwrap_or(0);
                prop_assert_eq!(counted, u32::try_from(of_the_sort).unwrap());
            }
            let apart = model.values().any(|(_, cpu)| cpu % 3 == 1);
            prop_assert_eq!(cluster.pulls_on(&Needs::of(&pod(9, 1, None))).next().is_some(), apart);
        }
    }
}
