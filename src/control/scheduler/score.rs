//! Which of the nodes that fit is the best.
//!
//! Upstream's default plugins with their weights: taints 3, node affinity 2, least allocated 1, balanced allocation 1,
//! image locality 1; all in the range 0–100, computed in integers.

use api::placement::{is_tolerated, preference};
use k8s_openapi::api::core::v1::{Container, Node, PodSpec};

use super::cluster::NodeRoom;
use super::needs::Needs;

const BEST: i64 = 100;
/// Image sizes between these bounds count, per container (`plugins/imagelocality`).
const IMAGE_LEAST: i64 = 23 * 1024 * 1024;
const IMAGE_MOST: i64 = 1000 * 1024 * 1024;

/// The scores of nodes that fit, in the same order; the higher the better.
pub(super) fn score(spec: &PodSpec, needs: &Needs, nodes: &[(&Node, &NodeRoom)]) -> Vec<i64> {
    let preferred: Vec<_> = nodes.iter().map(|(node, _)| preference(spec, node)).collect();
    let taints: Vec<_> = nodes.iter().map(|(node, _)| repelling_preferences(spec, node)).collect();
    let (most_preferred, most_taints) = (largest(&preferred), largest(&taints));
    let mut scores = Vec::with_capacity(nodes.len());
    for (index, (node, room)) in nodes.iter().enumerate() {
        let preferred = if most_preferred == 0 { 0 } else { preferred[index] * BEST / most_preferred };
        let untainted = if most_taints == 0 { BEST } else { BEST - taints[index] * BEST / most_taints };
        scores.push(3 * untainted + 2 * preferred + room_score(needs, room) + images_score(spec, node, nodes));
    }
    scores
}

fn largest(values: &[i64]) -> i64 {
    values.iter().copied().max().unwrap_or(0)
}

fn repelling_preferences(spec: &PodSpec, node: &Node) -> i64 {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    count(soft.filter(|taint| !is_tolerated(taint, tolerations)).count())
}

/// How free the node is, and how evenly it is used, once the pod runs there.
fn room_score(needs: &Needs, room: &NodeRoom) -> i64 {
    let share = |resource: &str| {
        let total = room.allocatable.get(resource).max(1);
        let used = room.usual.get(resource).saturating_add(needs.usual.get(resource)).min(total);
        // At most 10,000 times an amount of bytes: i128 for machines beyond 800 TiB.
        i64::try_from(i128::from(used) * 10_000 / i128::from(total)).unwrap_or(10_000)
    };
    let (cpu, memory) = (share("cpu"), share("memory"));
    let free = (20_000 - cpu - memory) / 200;
    // The standard deviation of two shares is half their distance.
    let balanced = BEST - (cpu - memory).abs() / 200;
    free + balanced
}

/// How much of the pod's images the node has already; an image that is on few nodes counts less, lest they heat up.
fn images_score(spec: &PodSpec, node: &Node, nodes: &[(&Node, &NodeRoom)]) -> i64 {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let sum: i64 = containers()
        .filter_map(|container| {
            let size = image_size(container, node)?;
            let holders = count(nodes.iter().filter(|(other, _)| image_size(container, other).is_some()).count());
            Some(size / count(nodes.len()).max(1) * holders)
        })
        .sum();
    let most = IMAGE_MOST * count(containers().count()).max(1);
    (sum.clamp(IMAGE_LEAST, most) - IMAGE_LEAST) * BEST / (most - IMAGE_LEAST)
}

fn image_size(container: &Container, node: &Node) -> Option<i64> {
    let image = container.image.as_deref()?;
    let images = node.status.as_ref()?.images.as_ref()?;
    let is_it = |name: &String| {
        name == image
            || name.strip_suffix(image).is_some_and(|rest| rest == "docker.io/" || rest == "docker.io/library/")
    };
    images.iter().find(|held| held.names.iter().flatten().any(is_it))?.size_bytes
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
