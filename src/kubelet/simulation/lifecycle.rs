//! Turns in the lives of containers: hooks, sidecars, ephemeral containers, restart policies.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Runtime;
use runtime::simulated::{Call, ExecOutcome, Program};
use serde_json::{Value, json};

use super::World;
use super::scenarios::{condition, is_ready, one_container, phase, started, state};

fn takes(seconds: u64, code: i32) -> ExecOutcome {
    ExecOutcome { latency: Duration::from_secs(seconds), code, ..ExecOutcome::default() }
}

fn hook(name: &str, command: &str) -> Value {
    let mut spec = one_container();
    spec["containers"][0]["lifecycle"] = json!({name: {"exec": {"command": [command]}}});
    spec
}

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(-1)
}

fn commands(world: &World) -> Vec<String> {
    let calls = world.runtime.calls().into_iter();
    calls.filter_map(|call| if let Call::Exec(_, _, args) = call { args.first().cloned() } else { None }).collect()
}

/// Containers that exist, by their names.
async fn names(world: &World) -> BTreeMap<runtime::ContainerId, String> {
    let sandboxes = world.runtime.list().await.expect("a list");
    let all = sandboxes.into_iter().flat_map(|sandbox| sandbox.containers);
    all.map(|one| (one.id, one.name)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_once_its_post_start_hook_is_done_and_the_next_one_waits_for_that() {
    let world = started().await;
    world.program("web", &[Program::serves().with_command("warm-up", takes(20, 0))]);
    let mut spec = hook("postStart", "warm-up");
    spec["containers"].as_array_mut().expect("a list").push(json!({"name": "log", "image": "log:1"}));
    world.create("web", spec);
    world.until("the first container is started", |world| world.runtime.running() == 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let pod = world.pod("web").expect("the pod");
    assert_eq!(state(&pod, "waiting")["reason"], "ContainerCreating");
    assert_eq!((phase(&pod), world.runtime.running()), ("Pending", 1));
    world.until_pod("web", "it is ready", is_ready).await;
    assert!((20..24).contains(&world.elapsed()), "it took {} simulated seconds", world.elapsed());
    assert_eq!((commands(&world), world.runtime.running()), (vec!["warm-up".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_ends_the_container_which_is_started_again() {
    let world = started().await;
    world.program("web", &[Program::serves().with_command("warm-up", takes(1, 3)), Program::serves()]);
    world.create("web", hook("postStart", "warm-up"));
    world.until_pod("web", "it is ready", |pod| is_ready(pod) && restarts(pod) == 1).await;
    assert_eq!(world.messages("FailedPostStartHook"), ["PostStartHook failed"]);
    assert_eq!(world.messages("Killing"), ["FailedPostStartHook"]);
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_hangs_does_not_keep_a_pod_from_being_deleted() {
    let world = started().await;
    world.program("web", &[Program::ignores_stop().with_command("warm-up", takes(100_000, 0))]);
    world.create("web", hook("postStart", "warm-up"));
    world.until("the hook runs", |world| !commands(world).is_empty()).await;
    let before = world.elapsed();
    world.delete("web", 10);
    world.until_gone("web").await;
    let took = world.elapsed() - before;
    assert!((10..13).contains(&took), "it took {took} simulated seconds");
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_is_not_run_again_by_the_next_agent_but_one_that_was_broken_off_is() {
    let mut world = started().await;
    world.program("web", &[Program::serves().with_command("warm-up", takes(30, 0))]);
    world.create("web", hook("postStart", "warm-up"));
    world.until("the hook runs", |world| commands(world).len() == 1).await;
    world.start_agent().await;
    world.until_pod("web", "it is ready", is_ready).await;
    assert_eq!(commands(&world).len(), 2);
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(commands(&world).len(), 2);
    assert_eq!(restarts(&world.pod("web").expect("the pod")), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_runs_before_the_signal_and_takes_its_time_from_the_grace_period() {
    let world = started().await;
    world.program("web", &[Program::ignores_stop().with_command("drain", takes(8, 0))]);
    world.create("web", hook("preStop", "drain"));
    world.until_pod("web", "it is ready", is_ready).await;
    let before = world.elapsed();
    world.delete("web", 20);
    world
        .until("it is signalled", |world| {
            world.runtime.calls().iter().any(|call| matches!(call, Call::StopContainer(..)))
        })
        .await;
    assert_eq!(world.elapsed() - before, 8);
    world.until_gone("web").await;
    let took = world.elapsed() - before;
    assert!((20..22).contains(&took), "it took {took} simulated seconds");
    assert_eq!(world.messages("Killing"), ["Stopping container web"]);
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_that_hangs_leaves_the_container_two_seconds() {
    let world = started().await;
    world.program("web", &[Program::ignores_stop().with_command("drain", takes(100_000, 0))]);
    world.create("web", hook("preStop", "drain"));
    world.until_pod("web", "it is ready", is_ready).await;
    let before = world.elapsed();
    world.delete("web", 10);
    world.until_gone("web").await;
    let took = world.elapsed() - before;
    assert!((12..14).contains(&took), "it took {took} simulated seconds");
    assert_eq!(world.messages("FailedPreStopHook"), ["PreStopHook failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_pre_stop_hook_is_told_and_changes_nothing_else() {
    let world = started().await;
    world.program("web", &[Program::serves().with_command("drain", takes(1, 1))]);
    world.create("web", hook("preStop", "drain"));
    world.until_pod("web", "it is ready", is_ready).await;
    world.delete("web", 30);
    world.until_gone("web").await;
    assert_eq!(world.messages("FailedPreStopHook"), ["PreStopHook failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_hook_can_sleep_and_one_by_tcp_fails() {
    let world = started().await;
    let mut spec = one_container();
    spec["containers"][0]["lifecycle"] =
        json!({"postStart": {"sleep": {"seconds": 7}}, "preStop": {"tcpSocket": {"port": 80}}});
    world.create("web", spec);
    world.until_pod("web", "it is ready", is_ready).await;
    assert!((7..9).contains(&world.elapsed()), "it took {} simulated seconds", world.elapsed());
    world.delete("web", 30);
    world.until_gone("web").await;
    assert_eq!(world.messages("FailedPreStopHook"), ["PreStopHook failed"]);
}

fn with_sidecars(policy: &str) -> Value {
    let mut spec = one_container();
    spec["restartPolicy"] = json!(policy);
    let sidecar = |name: &str| json!({"name": name, "image": "side:1", "restartPolicy": "Always"});
    spec["initContainers"] = json!([sidecar("first"), sidecar("second")]);
    spec
}

#[tokio::test(start_paused = true)]
async fn sidecars_are_signalled_last_in_reverse_order_and_their_hooks_first_of_all() {
    let world = started().await;
    world.program(
        "web",
        &[Program {
            on_stop: runtime::simulated::OnStop::Exits { after: Duration::from_secs(5), code: 0 },
            ..Program::serves()
        }],
    );
    let mut spec = with_sidecars("Always");
    spec["initContainers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["drain"]}}});
    world.create("web", spec);
    world.until_pod("web", "it is ready", is_ready).await;
    let names = names(&world).await;
    world.delete("web", 30);
    world.until("the hook has run", |world| commands(world) == ["drain"]).await;
    assert_eq!(world.runtime.running(), 3);
    world.until_gone("web").await;
    let calls = world.runtime.calls().into_iter();
    let stops = calls.filter_map(|call| if let Call::StopContainer(_, id, _) = call { names.get(&id) } else { None });
    assert_eq!(stops.collect::<Vec<_>>(), ["web", "second", "first"]);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_does_not_keep_a_pod_from_completing_and_is_gone_when_it_is_complete() {
    let world = started().await;
    world.program("web", &[Program::exits(Duration::from_secs(5), 0)]);
    let slow = runtime::simulated::OnStop::Exits { after: Duration::from_secs(3), code: 0 };
    world.program("first", &[Program { on_stop: slow, ..Program::serves() }]);
    world.create("web", with_sidecars("Never"));
    world
        .until_pod("web", "it is not ready any more", |pod| {
            phase(pod) == "Running" && !state(pod, "terminated").is_null()
        })
        .await;
    let pod = world.pod("web").expect("the pod");
    let reason = |pod: &Value, name: &str| {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == name).map(|one| one["reason"].clone())
    };
    assert_eq!((condition(&pod, "Ready"), reason(&pod, "Ready")), ("False", Some(json!("PodCompleted"))));
    world.until_pod("web", "it has succeeded", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(world.runtime.running(), 0);
    let sidecar = &world.pod("web").expect("the pod")["status"]["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!(sidecar["reason"], "Completed", "{sidecar}");
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_is_run_once_and_shown() {
    let mut world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    world.program("debug", &[Program { output: vec!["seen".to_owned()], ..Program::exits(Duration::from_secs(5), 4) }]);
    let own = json!([{"name": "debug", "image": "tools:1", "targetContainerName": "web"}]);
    world.api.patch("/api/v1/namespaces/default/pods/web", &json!({"spec": {"ephemeralContainers": own}}));
    let status = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0].clone();
    world.until_pod("web", "it runs", |pod| status(pod)["state"]["running"].is_object()).await;
    world.until_pod("web", "it has ended", |pod| status(pod)["state"]["terminated"]["exitCode"] == 4).await;
    assert_eq!(world.ask("/containerLogs/default/web/debug").await, (200, "seen\n".to_owned()));
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    let starts = world
        .runtime
        .calls()
        .into_iter()
        .filter(|call| matches!(call, Call::StartContainer(_, name, _) if name == "debug"));
    assert_eq!(starts.count(), 1);
    assert!(is_ready(&world.pod("web").expect("the pod")));
}

#[tokio::test(start_paused = true)]
async fn a_restart_rule_restarts_one_container_of_a_pod_that_never_restarts() {
    let world = started().await;
    world.program("web", &[Program::exits(Duration::from_secs(1), 42), Program::exits(Duration::from_secs(1), 1)]);
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["restartPolicy"] = json!("Never");
    spec["containers"][0]["restartPolicyRules"] =
        json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    world.create("web", spec);
    world.until_pod("web", "it has failed", |pod| phase(pod) == "Failed").await;
    let pod = world.pod("web").expect("the pod");
    assert_eq!((restarts(&pod), &state(&pod, "terminated")["exitCode"]), (1, &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_restart_rule_restarts_all_containers_in_their_sandbox() {
    let world = started().await;
    world.program("setup", &[Program::exits(Duration::from_secs(1), 0), Program::exits(Duration::from_secs(1), 0)]);
    world.program("watcher", &[Program::exits(Duration::from_secs(5), 42), Program::serves()]);
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "setup", "image": "web:1"}],
        "containers": [
            {"name": "web", "image": "web:1"},
            {"name": "watcher", "image": "web:1", "restartPolicy": "Never", "restartPolicyRules": rules},
        ],
    });
    world.create("web", spec);
    world.until_pod("web", "it is restarted", |pod| restarts(pod) == 1 && is_ready(pod)).await;
    let pod = world.pod("web").expect("the pod");
    let statuses = ["initContainerStatuses", "containerStatuses"]
        .map(|list| pod["status"][list].as_array().cloned().unwrap_or_default())
        .concat();
    for status in &statuses {
        let last = &status["lastState"]["terminated"];
        assert_eq!((&status["restartCount"], &last["exitCode"]), (&json!(1), &json!(137)), "{status}");
        assert_eq!(last["reason"], "RestartingAllContainers");
    }
    assert_eq!(statuses.len(), 3);
    let calls = world.runtime.calls();
    assert_eq!(calls.iter().filter(|call| matches!(call, Call::CreateSandbox(..))).count(), 1);
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let restarting = conditions.find(|condition| condition["type"] == "AllContainersRestarting");
    assert_eq!(restarting.map(|condition| condition["status"].clone()), Some(json!("False")));
}

#[tokio::test(start_paused = true)]
async fn a_liveness_probe_says_nothing_about_a_container_that_is_being_stopped() {
    let world = started().await;
    let sick = ExecOutcome { code: 1, ..ExecOutcome::default() };
    world.program("web", &[Program::ignores_stop().with_command("check", sick)]);
    let mut spec = one_container();
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 5, "initialDelaySeconds": 10});
    spec["containers"][0]["livenessProbe"] = probe;
    world.create("web", spec);
    world.until_pod("web", "it is ready", is_ready).await;
    world.delete("web", 60);
    world.until_gone("web").await;
    assert!(!world.events("Pod").contains(&"Unhealthy".to_owned()), "{:?}", world.events("Pod"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_asked_condemns_nobody() {
    let world = started().await;
    let mut spec = one_container();
    let probe = json!({"httpGet": {"path": "/", "port": "absent"}, "periodSeconds": 1, "failureThreshold": 1});
    spec["containers"][0]["livenessProbe"] = probe;
    world.create("web", spec);
    world.until("the event is there", |world| !world.messages("Unhealthy").is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let message = "Liveness probe errored and resulted in unknown state: port absent not found";
    assert_eq!(world.messages("Unhealthy")[0], message);
    assert_eq!(restarts(&world.pod("web").expect("the pod")), 0);
}

#[tokio::test(start_paused = true)]
async fn the_first_success_of_a_readiness_probe_is_not_waited_for_a_period() {
    let world = started().await;
    let mut spec = one_container();
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 100});
    spec["containers"][0]["readinessProbe"] = probe;
    world.program("web", &[Program::serves().with_command("check", takes(0, 0))]);
    world.create("web", spec);
    world.until_pod("web", "it is ready", is_ready).await;
    assert!(world.elapsed() < 5, "it took {} simulated seconds", world.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_says_nothing_about_what_to_run_is_an_error_of_creation() {
    let world = started().await;
    let mut image = runtime::simulated::SimulatedImages::image_of("web:1");
    image.defaults.entrypoint.clear();
    world.images.insert(image);
    world.create("web", one_container());
    world.until_pod("web", "the error shows", |pod| state(pod, "waiting")["reason"] == "CreateContainerError").await;
    assert_eq!(state(&world.pod("web").expect("the pod"), "waiting")["message"], "no command specified");
    assert_eq!(world.messages("Failed"), ["Error: no command specified"]);
    world.create("other", json!({"containers": [{"name": "other", "image": "other:1"}]}));
    world.until_pod("other", "it is ready", is_ready).await;
    world.delete("web", 30);
    world.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_user_that_the_image_lacks_is_an_error_of_creation_that_is_tried_again_with_a_back_off() {
    let world = started().await;
    world.program("web", &[Program::fails_to_start(runtime::simulated::StartFailure::UnknownUser)]);
    world.create("web", one_container());
    world.until_pod("web", "the error shows", |pod| state(pod, "waiting")["reason"] == "CreateContainerError").await;
    let message = state(&world.pod("web").expect("the pod"), "waiting")["message"].clone();
    assert!(message.as_str().is_some_and(|text| text.ends_with("is not known in the image")), "{message}");
    tokio::time::sleep(Duration::from_secs(100)).await;
    let tries = world.runtime.calls().into_iter().filter(|call| matches!(call, Call::StartContainer(..))).count();
    assert_eq!(tries, 4, "at 0, 10, 30 and 70 s");
    world.delete("web", 30);
    world.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_is_named_with_its_object() {
    let world = started().await;
    world.api.create(
        "/api/v1/namespaces/default/configmaps",
        json!({"metadata": {"name": "settings", "namespace": "default"}, "data": {"A": "1"}}),
    );
    let mut spec = one_container();
    let reference = json!({"configMapKeyRef": {"name": "settings", "key": "B"}});
    spec["containers"][0]["env"] = json!([{"name": "B", "valueFrom": reference}]);
    world.create("web", spec);
    let waits = |pod: &Value| state(pod, "waiting")["reason"] == "CreateContainerConfigError";
    world.until_pod("web", "the error shows", waits).await;
    let message = state(&world.pod("web").expect("the pod"), "waiting")["message"].clone();
    assert_eq!(message, "couldn't find key B in ConfigMap default/settings");
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_no_yaml_harms_no_other() {
    let world = started().await;
    let manifests = world.directory.path().join("manifests");
    world.until("the directory is watched", |_| manifests.is_dir()).await;
    std::fs::write(manifests.join("broken.yaml"), "apiVersion: v1\nkind: [Pod\n").expect("a manifest");
    let good = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: 'web:1'}]}\n";
    std::fs::write(manifests.join("good.yaml"), good).expect("a manifest");
    world.until_pod("web-edge", "it is ready", is_ready).await;
    std::fs::write(manifests.join("broken.yaml"), good.replace("web", "mended")).expect("a manifest");
    world.until_pod("mended-edge", "it is ready", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_again_asks_a_container_that_is_well_without_taking_it_out_of_service() {
    let mut world = started().await;
    world.program("web", &[Program::serves().with_command("check", takes(0, 0))]);
    let mut spec = one_container();
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 10, "failureThreshold": 1});
    for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
        spec["containers"][0][kind] = probe.clone();
    }
    world.create("web", spec);
    world.until_pod("web", "it is ready", is_ready).await;
    let before = world.pod("web").expect("the pod");
    let asked = commands(&world).len();
    world.start_agent().await;
    world.until("it is asked again", |world| commands(world).len() > asked + 4).await;
    let after = world.pod("web").expect("the pod");
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "{after:#}");
}
