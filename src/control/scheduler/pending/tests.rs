use k8s_openapi::api::core::v1::PodSpec;

use super::*;

fn key(name: &str) -> Key {
    Key::namespaced("default", name)
}

fn pod(name: &str, priority: i32) -> Arc<Pod> {
    let mut pod = Pod { spec: Some(PodSpec { priority: Some(priority), ..PodSpec::default() }), ..Pod::default() };
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.uid = Some(name.to_owned());
    Arc::new(pod)
}

fn pending(pods: &[(&str, i32)]) -> Pending {
    let mut pending = Pending::default();
    for (name, priority) in pods {
        pending.observe(&key(name), &pod(name, *priority));
    }
    pending
}

fn take(pending: &mut Pending) -> Option<String> {
    pending.take().map(|(key, _)| key.name)
}

fn node() -> k8s_openapi::api::core::v1::Node {
    serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}})).unwrap()
}

fn freed(cpu: i64) -> Needs {
    let mut needs = Needs::default();
    needs.requests.set("cpu", cpu);
    needs
}

fn full() -> BTreeSet<Refusal> {
    BTreeSet::from([Refusal::Insufficient("cpu".to_owned())])
}

fn second(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[tokio::test(start_paused = true)]
async fn pods_come_by_priority_then_by_arrival_and_each_once() {
    let mut pending = pending(&[("a", 0), ("b", 10), ("c", 0), ("d", 10)]);
    let order: Vec<_> = std::iter::from_fn(|| take(&mut pending)).collect();
    assert_eq!(order, ["b", "d", "a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_status_update_of_a_parked_pod_does_not_bring_it_back_but_a_new_spec_or_a_new_pod_does() {
    let now = Instant::now();
    let mut pending = pending(&[("a", 0)]);
    pending.take();
    pending.park(&key("a"), full(), now);
    let mut touched = (*pod("a", 0)).clone();
    touched.metadata.resource_version = Some("2".to_owned());
    pending.observe(&key("a"), &Arc::new(touched.clone()));
    assert_eq!(take(&mut pending), None);
    touched.metadata.uid = Some("another".to_owned());
    pending.observe(&key("a"), &Arc::new(touched));
    assert_eq!(take(&mut pending).as_deref(), Some("a"));
    pending.park(&key("a"), full(), now);
    pending.observe(&key("a"), &pod("a", 5));
    assert_eq!(take(&mut pending).as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn only_changes_that_can_help_wake_a_parked_pod_and_others_come_before_it_while_it_rests() {
    let now = Instant::now();
    let mut pending = pending(&[("full", 0), ("tainted", 0)]);
    pending.take();
    pending.take();
    pending.park(&key("full"), full(), now);
    pending.park(&key("tainted"), BTreeSet::from([Refusal::Taint]), now);
    pending.wake(Change::Gone(&freed(0)), &Namespaces::new());
    assert_eq!((pending.wake_at(), take(&mut pending)), (Some(now + second(300)), None));
    pending.wake(Change::Gone(&freed(5)), &Namespaces::new());
    assert_eq!(pending.wake_at(), Some(now + second(1)));
    pending.observe(&key("new"), &pod("new", -1));
    assert_eq!(take(&mut pending).as_deref(), Some("new"));
    assert_eq!(take(&mut pending).as_deref(), Some("full"));
    pending.rest(&key("full"), now);
    pending.wake(Change::Node(&node()), &Namespaces::new());
    assert_eq!(take(&mut pending).as_deref(), Some("tainted"));
    assert_eq!(take(&mut pending), None);
    pending.ripen(now + second(2));
    assert_eq!(take(&mut pending).as_deref(), Some("full"));
}

#[tokio::test(start_paused = true)]
async fn back_off_doubles_to_ten_seconds_and_a_parked_pod_comes_back_after_five_minutes() {
    let now = Instant::now();
    let mut pending = pending(&[("a", 0)]);
    let mut waits = Vec::new();
    for _ in 0..6 {
        pending.take();
        pending.rest(&key("a"), now);
        let until = pending.wake_at().unwrap();
        waits.push(until.duration_since(now).as_secs());
        pending.ripen(until);
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    pending.take();
    pending.park(&key("a"), BTreeSet::new(), now);
    assert_eq!(pending.wake_at(), Some(now + second(300)));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_bound_is_not_taken_again_and_a_removed_one_never() {
    let mut pending = pending(&[("a", 0), ("b", 0)]);
    assert_eq!(take(&mut pending).as_deref(), Some("a"));
    pending.observe(&key("a"), &pod("a", 7));
    pending.remove(&key("b"));
    assert_eq!(take(&mut pending), None);
    assert_eq!(pending.wake_at(), None);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_volumes_brings_back_pods_that_use_claims_and_no_others() {
    let now = Instant::now();
    let mut pending = pending(&[("plain", 0)]);
    let mut uses = (*pod("uses", 0)).clone();
    let volume = serde_json::json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    uses.spec.as_mut().unwrap().volumes = serde_json::from_value(volume).unwrap();
    pending.observe(&key("uses"), &Arc::new(uses));
    for name in ["plain", "uses"] {
        pending.take();
        pending.park(&key(name), full(), now);
    }
    pending.wake(Change::Volume, &Namespaces::new());
    pending.ripen(now + second(2));
    assert_eq!(take(&mut pending).as_deref(), Some("uses"));
    assert_eq!(take(&mut pending), None);
}
