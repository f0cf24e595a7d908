//! Whether a pod that is here gets the size that it asks for now, and what it keeps if not: pure.
//!
//! After `pkg/kubelet/allocation` upstream (KEP-1287), words included. Where there is no room, the pod goes on with the
//! sizes that it was granted before; it is asked again whenever room is made.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::admission::Amounts;
use crate::pod::resize::Pending;

/// Whether there is room for what a pod asks for beyond what it holds, beside others that use so much.
pub(crate) fn grow(held: &Amounts, wants: &Amounts, used: &Amounts, allocatable: &Amounts) -> Result<(), Pending> {
    let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or(0);
    let growing = || ["cpu", "memory"].into_iter().filter(|name| of(wants, name) > of(held, name));
    for name in growing() {
        let (requested, capacity) = (of(wants, name), of(allocatable, name));
        if requested > capacity {
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
            return Err(Pending { reason: "Infeasible", message, asked: String::new() });
        }
    }
    for name in growing() {
        let (requested, used, capacity) = (of(wants, name), of(used, name), of(allocatable, name));
        if requested > capacity.saturating_sub(used) {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err(Pending { reason: "Deferred", message, asked: String::new() });
        }
    }
    Ok(())
}

/// A pod with the sizes of another state of it.
pub(crate) fn with_sizes(pod: &Pod, of: &Pod) -> Pod {
    let other = of.spec.as_ref();
    let mut sized = resized(pod, |name| {
        let mut all = other.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        all.find(|one| one.name == name).map(|one| one.resources.clone())
    });
    if let (Some(spec), Some(other)) = (&mut sized.spec, other) {
        spec.resources.clone_from(&other.resources);
    }
    sized
}

/// A pod with the sizes that it and its containers have, as far as its status says so.
pub(crate) fn with_actual_sizes(pod: &Pod) -> Pod {
    let status = pod.status.as_ref();
    let mut sized = resized(pod, |name| {
        let mut all = status
            .iter()
            .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
        all.find(|one| one.name == name).and_then(|one| one.resources.clone()).map(Some)
    });
    let whole = status.and_then(|status| status.resources.as_ref());
    if let (Some(own), Some(whole)) = (sized.spec.as_mut().and_then(|spec| spec.resources.as_mut()), whole) {
        own.clone_from(whole);
    }
    sized
}

fn resized(pod: &Pod, size: impl Fn(&str) -> Option<Option<ResourceRequirements>>) -> Pod {
    let mut pod = pod.clone();
    let set = |container: &mut Container| {
        if let Some(size) = size(&container.name) {
            container.resources = size;
        }
    };
    if let Some(spec) = &mut pod.spec {
        spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(set);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(list: &[(&str, i64)]) -> Amounts {
        list.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    #[test]
    fn what_fits_no_node_of_this_size_is_infeasible_and_what_others_hold_deferred() {
        let (held, allocatable) = (amounts(&[("cpu", 500)]), amounts(&[("cpu", 2000), ("memory", 100)]));
        let grow =
            |wants: i64, used: i64| grow(&held, &amounts(&[("cpu", wants)]), &amounts(&[("cpu", used)]), &allocatable);
        assert_eq!(grow(1500, 500), Ok(()));
        let pending = grow(1501, 500).expect_err("too much now");
        let message = "Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000";
        assert_eq!((pending.reason, pending.message.as_str()), ("Deferred", message));
        let pending = grow(2001, 0).expect_err("too much for ever");
        let message = "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000";
        assert_eq!((pending.reason, pending.message.as_str()), ("Infeasible", message));
        assert_eq!(grow(400, 9000), Ok(()), "what shrinks always may");
    }
}
