//! Pods of manifests, and their mirrors.

use runtime::simulated::{Call, Program};
use serde_json::Value;

use super::World;
use super::scenarios::{is_ready, started};

#[tokio::test(start_paused = true)]
async fn a_static_pod_runs_without_an_api_server_and_goes_with_its_manifest() {
    let mut world = World::without_api();
    let manifests = world.directory.path().join("manifests");
    std::fs::create_dir_all(&manifests).expect("a directory");
    let manifest =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: 'web:1'}]}\n";
    std::fs::write(manifests.join("web.yaml"), manifest).expect("a manifest");
    world.start_agent().await;
    world.until("it runs", |world| world.runtime.running() == 1).await;
    let (code, pods) = world.ask("/pods").await;
    assert_eq!(code, 200);
    assert!(pods.contains("\"web-edge\""), "{pods}");
    std::fs::remove_file(manifests.join("web.yaml")).expect("the manifest");
    world.until("it is gone", |world| world.network.attached().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_has_a_mirror_that_shows_its_status() {
    let world = started().await;
    let manifests = world.directory.path().join("manifests");
    let manifest =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: 'web:1'}]}\n";
    world.until("the directory is watched", |_| manifests.is_dir()).await;
    std::fs::write(manifests.join("web.yaml"), manifest).expect("a manifest");
    world.until_pod("web-edge", "its mirror is ready", is_ready).await;
    let pod = world.pod("web-edge").expect("the mirror");
    assert!(pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string());
    std::fs::remove_file(manifests.join("web.yaml")).expect("the manifest");
    world.until_gone("web-edge").await;
    world.until("it is gone", |world| world.network.attached().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_somebody_deletes_is_made_again_and_the_pod_never_notices() {
    let world = started().await;
    let manifests = world.directory.path().join("manifests");
    let manifest =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: 'web:1'}]}\n";
    world.until("the directory is watched", |_| manifests.is_dir()).await;
    std::fs::write(manifests.join("web.yaml"), manifest).expect("a manifest");
    world.until_pod("web-edge", "its mirror is ready", is_ready).await;
    let uid = |world: &World| world.pod("web-edge").map(|pod| pod["metadata"]["uid"].clone());
    for grace in [0, 30] {
        let before = uid(&world);
        world.delete("web-edge", grace);
        let is_new = |world: &World| uid(world).is_some_and(|now| Some(now) != before);
        world.until("there is another one", is_new).await;
        world.until_pod("web-edge", "it shows the pod", is_ready).await;
    }
    let starts = world.runtime.calls().into_iter().filter(|call| matches!(call, Call::StartContainer(..))).count();
    assert_eq!(starts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_whose_manifest_changes_begins_when_the_former_one_has_ended() {
    let world = started().await;
    let manifests = world.directory.path().join("manifests");
    let manifest =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: 'web:1'}]}\n";
    world.program("web", &[Program::ignores_stop()]);
    world.until("the directory is watched", |_| manifests.is_dir()).await;
    std::fs::write(manifests.join("web.yaml"), manifest).expect("a manifest");
    world.until_pod("web-edge", "it is ready", is_ready).await;
    std::fs::write(manifests.join("web.yaml"), manifest.replace("web:1", "web:2")).expect("a manifest");
    let begun = world.elapsed();
    let is_new = |pod: &Value| pod["spec"]["containers"][0]["image"] == "web:2" && is_ready(pod);
    world.until_pod("web-edge", "the new one is ready", is_new).await;
    assert!(world.elapsed() - begun >= 30, "the former one had its grace");
    assert_eq!(world.runtime.running(), 1);
    let calls = world.runtime.calls();
    let removed = calls.iter().position(|call| matches!(call, Call::RemoveSandbox(..))).expect("a call");
    let created = calls.iter().rposition(|call| matches!(call, Call::CreateSandbox(..))).expect("a call");
    assert!(removed < created, "{calls:?}");
}
