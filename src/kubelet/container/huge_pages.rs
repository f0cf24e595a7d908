//! Huge pages: what containers and pods may have of them, and which pages a volume is made of.
//!
//! After `GetHugepageLimitsFromResources` in `pkg/kubelet/kuberuntime`, `HugePageLimits` in `pkg/kubelet/cm` and
//! `getPageSizeMountOption` in `pkg/volume/emptydir` upstream, words included: who asks for no pages of a size has none.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::resources::pod::requests::pod_requests;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;

use super::resources::amount;

/// Bytes by the size of a page.
pub(crate) type Pages = BTreeMap<u64, i64>;

/// What all pages of a size are as a resource: `hugepages-2Mi`.
pub(crate) fn resource_of(size: u64) -> String {
    format!("hugepages-{}", Quantity::from_bytes(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn size_of(resource: &str) -> Option<u64> {
    Quantity::parse(resource.strip_prefix("hugepages-")?).ok().and_then(|size| u64::try_from(size.value()).ok())
}

/// What a container may have of pages of the sizes that the node has. What the pod asks for as a whole its containers share.
pub(super) fn of_container(pod: &Pod, container: &Container, sizes: &[u64]) -> Pages {
    let own = container.resources.as_ref().and_then(|own| own.limits.as_ref());
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.limits.as_ref());
    let limit = |size: u64| {
        let name = resource_of(size);
        amount(own, &name).or_else(|| amount(whole, &name)).map_or(0, Quantity::value)
    };
    sizes.iter().map(|size| (*size, limit(*size))).collect()
}

/// What a whole pod may have.
pub(crate) fn of_pod(pod: &Pod, sizes: &[u64]) -> Pages {
    if sizes.is_empty() {
        return Pages::new();
    }
    // A spec that cannot be written as JSON was never read from it.
    let spec = pod.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or_default();
    let requests = pod_requests(&json!({ "spec": spec }));
    sizes.iter().map(|size| (*size, requests.get(&resource_of(*size)).map_or(0, |amount| amount.value()))).collect()
}

/// Why a volume of huge pages cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PageError {
    #[error("medium: {medium} can't be used if container requests multiple huge page sizes")]
    Several { medium: String },
    #[error("medium {medium}: hugePages storage requested, but there is no resource request for huge pages")]
    NotRequested { medium: String },
}

/// The size of the pages that a volume of a medium is made of: the one that the medium names, else the only one that the pod
/// asks for.
pub(crate) fn of_medium(pod: &Pod, medium: &str) -> Result<u64, PageError> {
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let lists = containers.map(|one| one.resources.as_ref()).chain([spec.and_then(|spec| spec.resources.as_ref())]);
    let requests = lists.flatten().filter_map(|own| own.requests.as_ref()).flatten();
    let mut sizes: Vec<u64> = requests.filter_map(|(name, _)| size_of(name)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let named = medium.strip_prefix("HugePages-").and_then(|size| size_of(&format!("hugepages-{size}")));
    let medium = || medium.to_owned();
    match (named, &sizes[..]) {
        (Some(named), sizes) if sizes.contains(&named) => Ok(named),
        (None, [only]) => Ok(*only),
        (None, [_, _, ..]) => Err(PageError::Several { medium: medium() }),
        _ => Err(PageError::NotRequested { medium: medium() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const SIZES: [u64; 2] = [2 << 20, 1 << 30];

    fn pod(resources: &[Value]) -> Pod {
        let container =
            |resources: &Value| json!({"name": "c", "resources": {"requests": resources, "limits": resources}});
        let containers: Vec<Value> = resources.iter().map(container).collect();
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).expect("a pod")
    }

    #[test]
    fn who_asks_for_no_pages_has_none() {
        let pod = pod(&[json!({"hugepages-2Mi": "4Mi"}), json!({"hugepages-2Mi": "2Mi"}), json!({"cpu": "1"})]);
        let of = |index: usize| {
            let container = &pod.spec.as_ref().expect("a spec").containers[index];
            of_container(&pod, container, &SIZES).into_values().collect::<Vec<_>>()
        };
        assert_eq!((of(0), of(2)), (vec![4 << 20, 0], vec![0, 0]));
        assert_eq!(of_pod(&pod, &SIZES).into_values().collect::<Vec<_>>(), [6 << 20, 0]);
        assert_eq!(of_pod(&pod, &[]), Pages::new());
    }

    #[test]
    fn containers_share_what_their_pod_asks_for_as_a_whole() {
        let mut pod = pod(&[json!({"hugepages-2Mi": "2Mi"}), json!({})]);
        let spec = pod.spec.as_mut().expect("a spec");
        let whole = json!({"requests": {"hugepages-2Mi": "8Mi"}, "limits": {"hugepages-2Mi": "8Mi"}});
        spec.resources = serde_json::from_value(whole).expect("resources");
        let of =
            |index: usize| of_container(&pod, &pod.spec.as_ref().expect("a spec").containers[index], &SIZES)[&SIZES[0]];
        assert_eq!((of(0), of(1), of_pod(&pod, &SIZES)[&SIZES[0]]), (2 << 20, 8 << 20, 8 << 20));
    }

    #[test]
    fn a_volume_is_made_of_the_pages_that_the_pod_asks_for() {
        let one = pod(&[json!({"hugepages-2Mi": "4Mi"}), json!({})]);
        let two = pod(&[json!({"hugepages-2Mi": "4Mi"}), json!({"hugepages-1Gi": "1Gi"})]);
        assert_eq!(of_medium(&one, "HugePages"), Ok(2 << 20));
        assert_eq!(of_medium(&one, "HugePages-2Mi"), Ok(2 << 20));
        assert_eq!(of_medium(&two, "HugePages-1Gi"), Ok(1 << 30));
        let text = |pod: &Pod, medium| of_medium(pod, medium).expect_err("no pages").to_string();
        let several = "medium: HugePages can't be used if container requests multiple huge page sizes";
        assert_eq!(text(&two, "HugePages"), several);
        let none = "medium HugePages-1Gi: hugePages storage requested, but there is no resource request for huge pages";
        assert_eq!(text(&one, "HugePages-1Gi"), none);
    }
}
