//! Which of the nodes that fit is the best.
//!
//! Upstream's default plugins with their weights (`apis/config/v1/default_plugins.go`): taints 3, node affinity 2, spread 2,
//! affinity to pods 2, least allocated 1, balanced allocation 1, image locality 1; all in the range 0–100.

mod company;
mod spread;

use api::placement::{is_tolerated, preference};
use k8s_openapi::api::core::v1::{Node, PodSpec};

use super::cluster::{Cluster, NodeRoom};
use super::facts::Facts;
use super::needs::Needs;

const BEST: i64 = 100;
/// Image sizes between these bounds count, per container (`plugins/imagelocality`).
const IMAGE_LEAST: i64 = 23 * 1024 * 1024;
const IMAGE_MOST: i64 = 1000 * 1024 * 1024;

/// The scores of nodes that fit, in the same order; the higher the better.
pub(super) fn score(facts: &Facts<'_>, nodes: &[&NodeRoom]) -> Vec<i64> {
    let (needs, Some(spec)) = (facts.asked.needs, facts.asked.pod.spec.as_ref()) else { return vec![0; nodes.len()] };
    let preferred = relative(nodes.iter().map(|room| preference(spec, &room.node)).collect());
    let tainted = relative(nodes.iter().map(|room| repelling_preferences(spec, &room.node)).collect());
    let spread = spread::scores(facts, nodes);
    let company = company::scores(facts, nodes);
    let images = Images::of(spec, facts.cluster);
    let mut scores = Vec::with_capacity(nodes.len());
    for (index, room) in nodes.iter().enumerate() {
        let weighed = 3 * (BEST - tainted[index]) + 2 * (preferred[index] + spread[index] + company[index]);
        scores.push(weighed + free(needs, room) + balance(needs, room) + images.score(room));
    }
    scores
}

/// Shares of the greatest, which is 100 unless all are nothing (`helper.DefaultNormalizeScore`).
fn relative(mut scores: Vec<i64>) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    if most != 0 {
        scores.iter_mut().for_each(|score| *score = *score * BEST / most);
    }
    scores
}

fn repelling_preferences(spec: &PodSpec, node: &Node) -> i64 {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    count(soft.filter(|taint| !is_tolerated(taint, tolerations)).count())
}

/// How much of the node is free once the pod runs there (`leastResourceScorer`).
fn free(needs: &Needs, room: &NodeRoom) -> i64 {
    let share = |total: i64, used: i64, more: i64| {
        // A hundred times an amount of bytes: i128 for machines beyond 80 PiB.
        let left = i128::from(total) - i128::from(used) - i128::from(more);
        (total > 0).then(|| i64::try_from((left.max(0) * i128::from(BEST)) / i128::from(total)).unwrap_or(0))
    };
    let cpu = share(room.allocatable.cpu(), room.usual.cpu(), needs.usual.cpu());
    let memory = share(room.allocatable.memory(), room.usual.memory(), needs.usual.memory());
    match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu + memory) / 2,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => 0,
    }
}

/// How evenly cpu and memory are used once the pod runs there (`balancedResourceScorer`); nothing for a pod that asks for
/// neither, lest all of these go to one node.
fn balance(needs: &Needs, room: &NodeRoom) -> i64 {
    if needs.requests.cpu() == 0 && needs.requests.memory() == 0 {
        return 0;
    }
    let share = |total: i64, used: i64, more: i64| (total > 0).then(|| (float(used + more) / float(total)).min(1.0));
    let cpu = share(room.allocatable.cpu(), room.requested.cpu(), needs.requests.cpu());
    let memory = share(room.allocatable.memory(), room.requested.memory(), needs.requests.memory());
    // The standard deviation of two shares is half their distance; of one it is nothing.
    let deviation = cpu.zip(memory).map_or(0.0, |(cpu, memory)| ((cpu - memory) / 2.0).abs());
    whole((1.0 - deviation) * float(BEST))
}

/// The images that a pod needs, by the names under which nodes may have them, and the share of nodes that do.
struct Images {
    wanted: Vec<([String; 3], f64)>,
}

impl Images {
    fn of(spec: &PodSpec, cluster: &Cluster) -> Self {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.as_ref());
        let images = containers.filter_map(|container| container.image.as_ref()).chain(volumes);
        let nodes = float(count(cluster.size().max(1)));
        let want = |image: &String| {
            let names = names(image);
            let holders = names.iter().map(|name| cluster.holders(name)).max().unwrap_or(0);
            (names, float(count(holders)) / nodes)
        };
        Self { wanted: images.map(want).collect() }
    }

    /// How much of them a node has already; an image that is on few nodes counts less, lest they heat up.
    fn score(&self, room: &NodeRoom) -> i64 {
        if room.images.is_empty() {
            return 0;
        }
        let size = |names: &[String; 3]| names.iter().find_map(|name| room.images.get(name)).copied();
        let scaled = |(names, share): &([String; 3], f64)| size(names).map_or(0, |size| whole(float(size) * share));
        let sum: i64 = self.wanted.iter().map(scaled).sum();
        let most = IMAGE_MOST * count(self.wanted.len()).max(1);
        (sum.clamp(IMAGE_LEAST, most) - IMAGE_LEAST) * BEST / (most - IMAGE_LEAST)
    }
}

/// As written, and as nodes call images of the registry that goes without saying; the tag `latest` does too.
fn names(image: &str) -> [String; 3] {
    let has_tag = image.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    let image = if has_tag { image.to_owned() } else { format!("{image}:latest") };
    [format!("docker.io/library/{image}"), format!("docker.io/{image}"), image]
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "as upstream, which compares shares")]
fn float(value: i64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the conversion saturates, and scores are small")]
fn whole(value: f64) -> i64 {
    value as i64
}
