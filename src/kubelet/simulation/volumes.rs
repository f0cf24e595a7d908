//! Volumes of pods on simulated seams.

use std::path::PathBuf;

use runtime::VolumeSource;
use runtime::simulated::Call;
use serde_json::{Value, json};

use super::World;

async fn started() -> World {
    let mut world = World::new();
    world.start_agent().await;
    world
}

/// A pod of one container that mounts one volume.
fn with_volume(source: &Value, mount: &Value) -> Value {
    let (mut volume, mut own) = (source.clone(), mount.clone());
    volume["name"] = json!("data");
    (own["name"], own["mountPath"]) = (json!("data"), json!("/data"));
    json!({"containers": [{"name": "web", "image": "web:1", "volumeMounts": [own]}], "volumes": [volume]})
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]
}

/// Messages of the events about pods for a reason.
fn said(world: &World, reason: &str) -> Vec<String> {
    let events = world.api.list("/api/v1/namespaces/default/events");
    let events = events.iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn until_said(world: &World, reason: &str, words: &str) {
    world.until(words, |world| said(world, reason).iter().any(|message| message.contains(words))).await;
}

fn add_claim(world: &World, name: &str, status: &str, modes: &Value) -> Value {
    let claim = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"volumeName": "disk", "accessModes": modes}, "status": {"phase": status},
    });
    world.api.create("/api/v1/namespaces/default/persistentvolumeclaims", claim)
}

fn add_volume(world: &World, claim: &Value, source: &Value) {
    let mut volume = json!({"metadata": {"name": "disk"}, "spec": source});
    volume["spec"]["claimRef"] = json!({"name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"]});
    world.api.create("/api/v1/persistentvolumes", volume);
}

fn claim_source() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "web"}})
}

#[tokio::test(start_paused = true)]
async fn an_unsupported_volume_keeps_the_pod_waiting_and_says_why() {
    let world = started().await;
    world.create("web", with_volume(&json!({"rbd": {"image": "i", "monitors": []}}), &json!({})));
    let words = "MountVolume.SetUp failed for volume \"data\" : volumes of this kind are not supported: rbd";
    until_said(&world, "FailedMount", words).await;
    assert_eq!(waiting(&world.pod("web").expect("the pod"))["reason"], "ContainerCreating");
    world.delete("web", 30);
    world.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_told_of_and_the_pod_can_be_deleted() {
    let world = started().await;
    world.create("web", with_volume(&json!({"nfs": {"server": "files", "path": "/"}}), &json!({})));
    until_said(&world, "FailedMount", "MountVolume.SetUp failed for volume \"data\" : mount failed").await;
    world.delete("web", 30);
    world.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_waited_for_until_it_is_bound() {
    let world = started().await;
    let disk = world.directory.path().join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    world.create("web", with_volume(&claim_source(), &json!({})));
    until_said(&world, "FailedMount", "error processing PVC default/web: failed to fetch PVC from API server").await;
    let claim = add_claim(&world, "web", "Pending", &json!(["ReadWriteOnce"]));
    until_said(&world, "FailedMount", "error processing PVC default/web: PVC is not bound").await;
    add_volume(&world, &claim, &json!({"local": {"path": disk.join("absent")}}));
    let path = "/api/v1/namespaces/default/persistentvolumeclaims/web";
    world.api.patch(path, &json!({"status": {"phase": "Bound"}}));
    until_said(&world, "FailedMount", "MountVolume.NewMounter initialization failed for volume \"disk\"").await;
    world.api.patch("/api/v1/persistentvolumes/disk", &json!({"spec": {"local": {"path": disk}}}));
    world.until_pod("web", "it is ready", is_ready).await;
    std::fs::write(disk.join("kept"), "").expect("a file");
    world.delete("web", 30);
    world.until_gone("web").await;
    assert!(disk.join("kept").exists(), "the volume was removed with the pod");
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_one_pod_is_given_to_the_next_when_that_is_gone() {
    let world = started().await;
    let claim = add_claim(&world, "web", "Bound", &json!(["ReadWriteOncePod"]));
    add_volume(&world, &claim, &json!({"hostPath": {"path": world.directory.path()}}));
    world.create("first", with_volume(&claim_source(), &json!({})));
    world.until_pod("first", "it is ready", is_ready).await;
    world.create("second", with_volume(&claim_source(), &json!({})));
    until_said(&world, "FailedMount", "volume uses the ReadWriteOncePod access mode and is already in use").await;
    world.delete("first", 30);
    world.until_gone("first").await;
    world.until_pod("second", "it is ready", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_directory_in_memory_is_mounted_with_its_size_and_unmounted() {
    let world = started().await;
    let source = json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}});
    world.create("web", with_volume(&source, &json!({})));
    world.until_pod("web", "it is ready", is_ready).await;
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let run = world.directory.path().join("run/pods");
    let at = run.join(uid).join("volumes/kubernetes.io~empty-dir/data");
    let mounted = |path: PathBuf, size| {
        let mode = if size == Some(1 << 20) { 0o777 } else { 0o750 };
        Call::MountVolume(path, VolumeSource::Memory { size, mode, group: None })
    };
    let calls = world.runtime.calls();
    assert!(calls.contains(&mounted(run, None)), "secrets must stay in memory: {calls:?}");
    assert!(calls.contains(&mounted(at.clone(), Some(1 << 20))), "{calls:?}");
    world.delete("web", 30);
    world.until_gone("web").await;
    assert!(world.runtime.calls().contains(&Call::UnmountVolume(at)));
}

#[tokio::test(start_paused = true)]
async fn huge_pages_are_refused_by_name() {
    let world = started().await;
    world.create("web", with_volume(&json!({"emptyDir": {"medium": "HugePages"}}), &json!({})));
    until_said(&world, "FailedMount", "not supported: emptyDir of medium HugePages").await;
}

#[tokio::test(start_paused = true)]
async fn an_image_is_fetched_for_a_volume_and_kept_for_the_life_of_the_pod() {
    let world = started().await;
    let source = json!({"image": {"reference": "files:1", "pullPolicy": "Always"}});
    world.create("web", with_volume(&source, &json!({})));
    world.until_pod("web", "it is ready", is_ready).await;
    assert!(said(&world, "Pulled").iter().any(|message| message.contains("files:1")));
    world.create("never", with_volume(&json!({"image": {"reference": "no:1", "pullPolicy": "Never"}}), &json!({})));
    let words = "Container image \"no:1\" is not present with pull policy of Never";
    until_said(&world, "FailedMount", words).await;
}
