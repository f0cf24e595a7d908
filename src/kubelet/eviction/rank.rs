//! Which pod goes first when the node runs out of something, and what it is told: pure.
//!
//! After `rankMemoryPressure`, `rankDiskPressureFunc`, `rankPIDPressure` and `evictionMessage` in
//! `pkg/kubelet/eviction/helpers.go` upstream, words included: first those that use more than they asked for, of these the
//! least important, of these the one that uses the most beyond.

use std::cmp::Reverse;
use std::fmt::Write as _;

use super::threshold::{Resource, Starved};

/// A pod that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) uid: String,
    pub(super) priority: i32,
    /// What it uses; none where that is not known.
    pub(super) usage: Option<i64>,
    /// What it asked for.
    pub(super) request: i64,
    pub(super) containers: Vec<Part>,
}

/// A container of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) usage: i64,
    pub(super) request: i64,
}

/// Puts the pods in the order in which they go.
pub(super) fn rank(pods: &mut [Candidate], resource: Resource) {
    let beyond = |pod: &Candidate| pod.usage.map_or(i64::MAX, |usage| usage.saturating_sub(pod.request));
    // Nobody asks for processes.
    let stays = |pod: &Candidate| resource != Resource::Pids && beyond(pod) <= 0;
    pods.sort_by_key(|pod| (stays(pod), pod.priority, Reverse(beyond(pod))));
}

/// What the pod is told that goes, with the space at its end that upstream's has.
pub(super) fn message(starved: &Starved, pod: &Candidate) -> String {
    let Starved { resource, least, available, .. } = starved;
    let text = |amount: i64| resource.amount(amount).to_string();
    let mut message = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        text(*least),
        text(*available)
    );
    for Part { name, usage, request } in pod.containers.iter().filter(|part| part.usage > part.request) {
        let (usage, request) = (text(*usage), text(*request));
        // Writing to a string cannot fail.
        let _ = write!(
            message,
            "Container {name} was using {usage}, request is {request}, has larger consumption of {resource}. "
        );
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32, usage: impl Into<Option<i64>>, request: i64) -> Candidate {
        Candidate { uid: uid.to_owned(), priority, usage: usage.into(), request, containers: Vec::new() }
    }

    fn order(mut pods: Vec<Candidate>, resource: Resource) -> Vec<String> {
        rank(&mut pods, resource);
        pods.into_iter().map(|pod| pod.uid).collect()
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_before_the_less_important_and_the_larger() {
        let pods = vec![
            pod("modest", 0, 500, 600),
            pod("vital and greedy", 1000, 900, 100),
            pod("greedy", 0, 300, 100),
            pod("greedier", 0, 250, 0),
            pod("unknown", 0, None, 0),
            pod("less important", -5, 10, 5),
            pod("modest and unimportant", -5, 5, 5),
        ];
        let memory =
            ["less important", "unknown", "greedier", "greedy", "vital and greedy", "modest and unimportant", "modest"];
        assert_eq!(order(pods, Resource::Memory), memory);
    }

    #[test]
    fn of_processes_the_least_important_with_the_most_of_them_goes() {
        let pods = vec![pod("many", 0, 90, 0), pod("few", 0, 3, 0), pod("unimportant", -1, 1, 0)];
        assert_eq!(order(pods, Resource::Pids), ["unimportant", "many", "few"]);
    }

    #[test]
    fn the_one_that_goes_is_told_which_of_its_containers_used_too_much() {
        let part = |name: &str, usage, request| Part { name: name.to_owned(), usage, request };
        let containers = vec![part("c", 30 << 20, 10 << 20), part("d", 5 << 20, 10 << 20), part("e", 1025, 0)];
        let pod = Candidate { containers, ..pod("p", 0, 40 << 20, 20 << 20) };
        let starved = Starved { resource: Resource::Memory, least: 100 << 20, available: 51_200, is_soft: false };
        let expected = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Ki. Container c was \
                        using 30Mi, request is 10Mi, has larger consumption of memory. Container e was using 1025, \
                        request is 0, has larger consumption of memory. ";
        assert_eq!(message(&starved, &pod), expected);
    }
}
