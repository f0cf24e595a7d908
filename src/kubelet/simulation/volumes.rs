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
async fn huge_pages_that_nobody_asks_for_are_refused_by_name() {
    let world = started().await;
    world.create("web", with_volume(&json!({"emptyDir": {"medium": "HugePages"}}), &json!({})));
    let unsaid = "medium HugePages: hugePages storage requested, but there is no resource request for huge pages";
    until_said(&world, "FailedMount", unsaid).await;
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
    until_said(&world, "ErrImageNeverPull", words).await;
    let waiting = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    world.until_pod("never", "its container waits for it", |pod| waiting(pod)["reason"] == "ErrImageNeverPull").await;
    assert_eq!(waiting(&world.pod("never").expect("the pod"))["message"], words);
    world.delete("never", 0);
    world.until_gone("never").await;
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Where a volume of the API is on the host.
fn shown(world: &World, name: &str, root: &str, kind: &str) -> PathBuf {
    let uid = world.pod(name).expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    world.directory.path().join(root).join("pods").join(uid).join(format!("volumes/kubernetes.io~{kind}/data"))
}

fn text(path: &std::path::Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[tokio::test(start_paused = true)]
async fn a_config_map_is_followed_while_its_pod_runs() {
    let mut world = started().await;
    let map = json!({"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1", "b": "1"}});
    world.api.create(MAPS, map);
    world.create("web", with_volume(&json!({"configMap": {"name": "settings"}}), &json!({})));
    world.until_pod("web", "it is ready", is_ready).await;
    let volume = shown(&world, "web", "lib", "configmap");
    let begun = world.elapsed();
    world.api.patch(&format!("{MAPS}/settings"), &json!({"data": {"a": "2", "b": null, "c": "2"}}));
    world.until("the new value shows", |_| text(&volume.join("a")).as_deref() == Some("2")).await;
    assert!(world.elapsed() - begun < 5, "it took {} seconds", world.elapsed() - begun);
    world.until("the new key shows", |_| text(&volume.join("c")).as_deref() == Some("2")).await;
    world.until("the key that was removed has gone", |_| !volume.join("b").exists()).await;
    // The next agent knows nothing of the state in which the last one left the volume.
    world.start_agent().await;
    world.api.patch(&format!("{MAPS}/settings"), &json!({"data": {"a": "3"}}));
    world.until("the newest value shows", |_| text(&volume.join("a")).as_deref() == Some("3")).await;
    // One that has gone leaves the volume as it is, says so, and is followed again when it comes back.
    world.api.delete(&format!("{MAPS}/settings"), None);
    until_said(&world, "FailedMount", "configmap \"settings\" not found").await;
    assert_eq!(text(&volume.join("a")).as_deref(), Some("3"));
    world.api.create(MAPS, json!({"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "4"}}));
    world.until("the value of the other shows", |_| text(&volume.join("a")).as_deref() == Some("4")).await;
    assert_eq!(world.pod("web").expect("the pod")["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_optional_appears_later_and_what_never_changes_is_not_followed() {
    let world = started().await;
    world.create("web", with_volume(&json!({"secret": {"secretName": "key", "optional": true}}), &json!({})));
    world.until_pod("web", "it is ready", is_ready).await;
    let volume = shown(&world, "web", "run", "secret");
    assert!(volume.is_dir() && !volume.join("k").exists());
    let secret = json!({"metadata": {"name": "key", "namespace": "default"}, "data": {"k": "MQ=="}, "immutable": true});
    world.api.create(SECRETS, secret);
    world.until("the secret shows", |_| text(&volume.join("k")).as_deref() == Some("1")).await;
    world.api.patch(&format!("{SECRETS}/key"), &json!({"data": {"k": "Mg=="}}));
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    assert_eq!(text(&volume.join("k")).as_deref(), Some("1"), "nobody looks at what says that it never changes");
}

#[tokio::test(start_paused = true)]
async fn labels_are_shown_as_they_are_now() {
    let world = started().await;
    let item = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
    let source = json!({"projected": {"sources": [{"downwardAPI": {"items": [item]}}]}});
    world.create("web", with_volume(&source, &json!({})));
    world.until_pod("web", "it is ready", is_ready).await;
    let volume = shown(&world, "web", "run", "projected");
    world.api.patch("/api/v1/namespaces/default/pods/web", &json!({"metadata": {"labels": {"tier": "front"}}}));
    world.until("the label shows", |_| text(&volume.join("labels")).as_deref() == Some("tier=\"front\"")).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_writes_more_than_its_volume_may_hold_is_evicted() {
    let world = started().await;
    world.create("web", with_volume(&json!({"emptyDir": {"sizeLimit": "64Ki"}}), &json!({})));
    world.create("other", with_volume(&json!({"emptyDir": {"sizeLimit": "64Ki"}}), &json!({})));
    for name in ["web", "other"] {
        world.until_pod(name, "it is ready", is_ready).await;
    }
    let file = shown(&world, "web", "lib", "empty-dir").join("file");
    std::fs::write(&file, vec![1; 256 << 10]).expect("a file");
    std::fs::File::open(&file).and_then(|file| file.sync_all()).expect("synced");
    world.until_pod("web", "it has failed", |pod| pod["status"]["phase"] == "Failed").await;
    let pod = world.pod("web").expect("the pod");
    let message = "Usage of EmptyDir volume \"data\" exceeds the limit \"64Ki\". ";
    assert_eq!((&pod["status"]["reason"], &pod["status"]["message"]), (&json!("Evicted"), &json!(message)));
    let conditions = pod["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|one| one["type"] == "DisruptionTarget" && one["reason"] == "TerminationByKubelet"));
    assert_eq!(said(&world, "Evicted"), [message]);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(is_ready(&world.pod("other").expect("the pod")));
    world.delete("web", 30);
    world.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_begins_as_soon_as_what_it_lacked_is_there() {
    let world = started().await;
    world.create("web", with_volume(&json!({"configMap": {"name": "settings"}}), &json!({})));
    until_said(&world, "FailedMount", "configmap \"settings\" not found").await;
    // By now the pauses between two tries are minutes.
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let begun = world.elapsed();
    world.api.create(MAPS, json!({"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}}));
    world.until_pod("web", "it is ready", is_ready).await;
    assert!(world.elapsed() - begun < 5, "it took {} seconds", world.elapsed() - begun);
}
