//! Whole runs with seeds: pods, nodes and labels come, change and go, and an oracle that knows nothing of the counts kept
//! here looks at every binding and, once nothing moves any more, at every pod that still waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::Placed;
use super::hints::Change;
use super::*;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const NAMESPACES: [&str; 2] = ["one", "two"];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((value ^ (value >> 31)) % u64::try_from(limit).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Pods of an app, near or apart by a label of nodes; of all namespaces, or its own.
#[derive(Debug, Clone, Copy)]
struct About {
    app: &'static str,
    key: &'static str,
    everywhere: bool,
}

/// What a pod asks for, as the oracle sees it.
#[derive(Debug, Clone)]
struct Wish {
    namespace: &'static str,
    app: &'static str,
    cpu: i64,
    priority: i32,
    tolerates: bool,
    port: bool,
    near: Option<About>,
    apart: Option<About>,
    spread: Option<(&'static str, i64)>,
}

impl Wish {
    fn random(random: &mut Random) -> Self {
        let apps = ["a", "b", "c"];
        let about = |random: &mut Random, percent| {
            let about = About { app: random.one(&apps), key: random.one(&[HOST, ZONE]), everywhere: random.chance(30) };
            random.chance(percent).then_some(about)
        };
        Self {
            namespace: random.one(&NAMESPACES),
            app: random.one(&apps),
            cpu: i64::try_from(random.below(6)).unwrap() * 200,
            priority: random.one(&[0, 0, 0, 10, 20]),
            tolerates: random.chance(30),
            port: random.chance(10),
            near: about(random, 20),
            apart: about(random, 25),
            spread: random.chance(30).then(|| (random.one(&[HOST, ZONE]), 1 + i64::try_from(random.below(2)).unwrap())),
        }
    }

    fn pod(&self, name: &str, node: Option<&str>) -> Arc<Pod> {
        let term = |about: &About| {
            let selector = json!({"matchLabels": {"app": about.app}});
            let namespaces = about.everywhere.then(|| json!({}));
            json!([{"labelSelector": selector, "topologyKey": about.key, "namespaceSelector": namespaces}])
        };
        let required = |about: &Option<About>| {
            about.as_ref().map(|about| json!({"requiredDuringSchedulingIgnoredDuringExecution": term(about)}))
        };
        let spread = |(key, skew): &(&str, i64)| {
            json!([{
                "topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": self.app}},
            }])
        };
        let pod: Value = json!({
            "metadata": {"name": name, "namespace": self.namespace, "uid": name, "labels": {"app": self.app}},
            "spec": {
                "nodeName": node, "priority": self.priority,
                "tolerations": if self.tolerates { json!([{"operator": "Exists"}]) } else { json!([]) },
                "topologySpreadConstraints": self.spread.as_ref().map(spread),
                "affinity": {"podAffinity": required(&self.near), "podAntiAffinity": required(&self.apart)},
                "containers": [{
                    "name": "c", "resources": {"requests": {"cpu": format!("{}m", self.cpu)}},
                    "ports": if self.port { json!([{"containerPort": 80, "hostPort": 80}]) } else { json!([]) },
                }],
            },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }
}

#[derive(Debug, Clone)]
struct Host {
    zone: &'static str,
    cpu: i64,
    tainted: bool,
}

impl Host {
    fn random(random: &mut Random) -> Self {
        let cpu = i64::try_from(1 + random.below(4)).unwrap() * 500;
        Self { zone: random.one(&["x", "y", ""]), cpu, tainted: random.chance(20) }
    }

    fn node(&self, name: &str) -> Arc<Node> {
        let mut labels = json!({HOST: name});
        if !self.zone.is_empty() {
            labels[ZONE] = json!(self.zone);
        }
        let taint = json!([{"key": "role", "value": "db", "effect": "NoSchedule"}]);
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": if self.tainted { taint } else { json!([]) }},
            "status": {"allocatable": {"cpu": format!("{}m", self.cpu), "memory": "64Gi", "pods": "6"}},
        });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn place<'a>(&self, name: &'a str, key: &str) -> Option<&'a str> {
        match key {
            HOST => Some(name),
            _ => Some(match self.zone {
                "x" => "x",
                "y" => "y",
                _ => return None,
            }),
        }
    }
}

/// What there is, as the oracle sees it.
#[derive(Default)]
struct World {
    hosts: BTreeMap<String, Host>,
    /// Pods with the node of those that have one.
    pods: BTreeMap<String, (Wish, Option<String>)>,
}

impl World {
    fn place(&self, node: &str, key: &str) -> Option<String> {
        let (name, host) = self.hosts.get_key_value(node)?;
        host.place(name, key).map(str::to_owned)
    }

    /// The pods that have a node, beside one.
    fn placed<'a>(&'a self, but: &'a str) -> impl Iterator<Item = (&'a Wish, &'a str)> {
        let others = self.pods.iter().filter(move |(name, _)| *name != but);
        others.filter_map(|(_, (wish, node))| node.as_deref().map(|node| (wish, node)))
    }

    /// Whether a pod may be where it is, by all rules, each stated as directly as can be.
    fn objection(&self, name: &str, node: &str) -> Option<String> {
        let (wish, host) = (&self.pods[name].0, &self.hosts[node]);
        let here = || self.placed(name).filter(|(_, at)| *at == node).map(|(other, _)| other);
        let used = here().map(|other| other.cpu).sum::<i64>();
        // A node that has become smaller still takes pods that ask for nothing.
        if (wish.cpu > 0 && used + wish.cpu > host.cpu) || here().count() + 1 > 6 {
            return Some("too much".to_owned());
        }
        if host.tainted && !wish.tolerates {
            return Some("taint".to_owned());
        }
        if wish.port && here().any(|other| other.port) {
            return Some("port".to_owned());
        }
        let is_about = |about: &About, own: &Wish, other: &Wish| {
            about.app == other.app && (about.everywhere || own.namespace == other.namespace)
        };
        let is_same_place = |key: &str, at: &str| {
            let place = self.place(node, key);
            place.is_some() && place == self.place(at, key)
        };
        if let Some(about) = &wish.near {
            let others = || {
                self.placed(name)
                    .filter(|(other, at)| is_about(about, wish, other) && self.place(at, about.key).is_some())
            };
            let is_there = others().any(|(_, at)| is_same_place(about.key, at));
            let is_first =
                others().count() == 0 && is_about(about, wish, wish) && self.place(node, about.key).is_some();
            if !is_there && !is_first {
                return Some("not near".to_owned());
            }
        }
        for (other, at) in self.placed(name) {
            let by_own = wish.apart.is_some_and(|about| is_about(&about, wish, other) && is_same_place(about.key, at));
            let by_its = other.apart.is_some_and(|about| is_about(&about, other, wish) && is_same_place(about.key, at));
            if by_own || by_its {
                return Some(format!("not apart from {other:?} on {at}"));
            }
        }
        wish.spread.and_then(|(key, skew)| self.crowded(name, node, key, skew))
    }

    fn crowded(&self, name: &str, node: &str, key: &str, skew: i64) -> Option<String> {
        let wish = &self.pods[name].0;
        let mut counts: BTreeMap<String, i64> =
            self.hosts.keys().filter_map(|host| Some((self.place(host, key)?, 0))).collect();
        for (other, at) in self.placed(name) {
            if other.app == wish.app
                && other.namespace == wish.namespace
                && let Some(place) = self.place(at, key)
            {
                *counts.entry(place).or_default() += 1;
            }
        }
        let least = counts.values().copied().min().unwrap_or(0);
        let here = self.place(node, key).map(|place| counts[&place]);
        here.is_none_or(|here| here + 1 - least > skew).then(|| format!("crowded: {counts:?}"))
    }
}

/// The scheduler without its shell.
struct Run {
    random: Random,
    world: World,
    cluster: Cluster,
    pending: Pending,
    now: Instant,
    number: usize,
    seed: u64,
}

fn budgets() -> Vec<Arc<PodDisruptionBudget>> {
    Vec::new()
}

impl Run {
    fn new(seed: u64) -> Self {
        let (cluster, pending) = (Cluster::default(), Pending::default());
        Self { random: Random(seed), world: World::default(), cluster, pending, now: Instant::now(), number: 0, seed }
    }

    fn wake(&mut self, change: Change<'_>) {
        self.pending.wake(change, self.cluster.namespaces());
    }

    fn key(&self, name: &str) -> Key {
        Key::namespaced(self.world.pods[name].0.namespace, name)
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..=4 => self.add_pod(),
            5 | 6 => self.remove_pod(),
            7 => self.set_node(),
            8 => self.remove_node(),
            _ => self.relabel(),
        }
        self.now += Duration::from_millis(u64::try_from(self.random.below(3000)).unwrap());
        self.schedule();
    }

    fn add_pod(&mut self) {
        self.number += 1;
        let (name, wish) = (format!("p{}", self.number), Wish::random(&mut self.random));
        let (key, pod) = (Key::namespaced(wish.namespace, &name), wish.pod(&name, None));
        self.world.pods.insert(name, (wish, None));
        self.pending.observe(&key, &pod);
    }

    fn some_pod(&mut self) -> Option<String> {
        let count = self.world.pods.len();
        (count > 0).then(|| self.world.pods.keys().nth(self.random.below(count)).unwrap().clone())
    }

    fn remove_pod(&mut self) {
        if let Some(name) = self.some_pod() {
            self.delete(&name);
        }
    }

    fn delete(&mut self, name: &str) {
        let key = self.key(name);
        self.world.pods.remove(name);
        if let Some((resident, _)) = self.cluster.remove(&key) {
            self.wake(Change::Gone(&resident.needs));
        }
        if self.cluster.nominations.remove(&key).is_some() {
            self.wake(Change::Released);
        }
        self.pending.remove(&key);
    }

    fn set_node(&mut self) {
        let (name, host) = (format!("n{}", self.random.below(5)), Host::random(&mut self.random));
        let node = host.node(&name);
        self.world.hosts.insert(name.clone(), host);
        self.cluster.set_node(&name, &node);
        self.wake(Change::Node(&node));
    }

    fn remove_node(&mut self) {
        let name = format!("n{}", self.random.below(5));
        if self.world.hosts.remove(&name).is_none() {
            return;
        }
        self.cluster.remove_node(&name);
        self.wake(Change::NodeGone);
        let on: Vec<String> = self
            .world
            .pods
            .iter()
            .filter(|(_, (_, at))| at.as_ref() == Some(&name))
            .map(|(pod, _)| pod.clone())
            .collect();
        on.iter().for_each(|pod| self.delete(pod));
    }

    /// A pod that has a node is called something else.
    fn relabel(&mut self) {
        let Some(name) = self.some_pod() else { return };
        let app = self.random.one(&["a", "b", "c"]);
        let (wish, node) = self.world.pods.get_mut(&name).unwrap();
        let Some(node) = node.clone() else { return };
        wish.app = app;
        wish.spread = None;
        let pod = wish.pod(&name, Some(&node));
        if let Placed::Changed(before) = self.cluster.place(&pod, &node) {
            self.wake(Change::Different(&before, &Needs::of(&pod)));
        }
    }

    fn schedule(&mut self) {
        let mut rounds = 0;
        self.pending.ripen(self.now);
        while let Some((key, waiting)) = self.pending.take() {
            rounds += 1;
            assert!(rounds < 1000, "seed {}: it does not come to rest", self.seed);
            let asked = Asked { pod: &waiting.pod, needs: &waiting.needs, family: None };
            self.cluster.get_ready(asked.crowds());
            let seed = u64::try_from(self.random.below(1000)).unwrap();
            let circumstances = Circumstances { budgets: &budgets, start: self.random.below(5), seed };
            match decide(asked, &self.cluster, circumstances).decision {
                Decision::Bind { node, .. } => self.bind(&key, &waiting.pod, &waiting.needs, &node),
                Decision::Unschedulable { refusals, nomination, .. } => {
                    if nomination == Nomination::None && self.cluster.nominations.remove(&key).is_some() {
                        self.wake(Change::Released);
                    }
                    self.pending.park(&key, refusals, self.now);
                    if let Nomination::Preempts(preemption) = nomination {
                        self.cluster.nominations.nominate(&waiting.pod, &waiting.needs, &preemption.node);
                        for (victim, _) in preemption.victims {
                            let lower = self.world.pods[&victim.name].0.priority < waiting.needs.priority;
                            assert!(lower, "seed {}: {victim} goes for one that matters no more", self.seed);
                            self.delete(&victim.name);
                        }
                        for demoted in preemption.demoted {
                            self.cluster.nominations.remove(&demoted);
                            self.wake(Change::Released);
                        }
                    }
                }
            }
        }
    }

    fn bind(&mut self, key: &Key, pod: &Arc<Pod>, needs: &Arc<Needs>, node: &str) {
        let objection = self.world.objection(&key.name, node);
        assert_eq!(objection, None, "seed {}: {key} on {node}: {:?}", self.seed, self.world.pods[&key.name]);
        if self.cluster.nominations.remove(key).is_some_and(|kept| kept != node) {
            self.wake(Change::Released);
        }
        self.cluster.assume(pod, needs, node);
        self.wake(Change::Came(needs));
        self.world.pods.get_mut(&key.name).unwrap().1 = Some(node.to_owned());
        // The API confirms it some time.
        if self.random.chance(70) {
            let pod = self.world.pods[&key.name].0.pod(&key.name, Some(node));
            assert_eq!(self.cluster.place(&pod, node), Placed::Same, "seed {}", self.seed);
            self.pending.remove(key);
        }
    }

    /// Nobody waits who need not: nothing has been missed that could have helped.
    fn check_rest(&mut self) {
        for _ in 0..3 {
            self.now += Duration::from_secs(11);
            self.schedule();
        }
        let waiting: BTreeSet<String> =
            self.world.pods.iter().filter(|(_, (_, node))| node.is_none()).map(|(name, _)| name.clone()).collect();
        let kept = |run: &Self, name: &str, host: &str| {
            let (own, priority) = (run.key(name), run.world.pods[name].0.priority);
            run.cluster.nominations.on(host).any(|(key, nominee)| *key != own && nominee.needs.priority >= priority)
        };
        for name in waiting {
            for host in self.world.hosts.keys().cloned().collect::<Vec<_>>() {
                let fits = self.world.objection(&name, &host).is_none() && !kept(self, &name, &host);
                assert!(!fits, "seed {}: {name} waits, though it fits {host}: {:?}", self.seed, self.world.pods[&name]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_node_is_overcommitted_no_rule_broken_and_nobody_forgotten_whatever_happens() {
    for seed in 0..60 {
        let mut run = Run::new(seed);
        for _ in 0..60 {
            run.step();
        }
        run.check_rest();
    }
}
