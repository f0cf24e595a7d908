//! Lives of pods, from binding to removal.

use std::time::Duration;

use runtime::SandboxId;
use runtime::simulated::{Call, ExecOutcome, Program, PullOutcome, StartFailure};
use serde_json::{Value, json};

use super::World;

pub(super) fn one_container() -> Value {
    json!({"containers": [{"name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent"}]})
}

pub(super) fn state<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    &pod["status"]["containerStatuses"][0]["state"][kind]
}

pub(super) fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

pub(super) fn condition<'a>(pod: &'a Value, name: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|one| one["type"] == name).and_then(|one| one["status"].as_str()).unwrap_or("absent")
}

pub(super) async fn started() -> World {
    let mut world = World::new();
    world.start_agent().await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_bound_pod_runs_and_a_deleted_one_leaves_nothing() {
    let world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let pod = world.pod("web").expect("the pod");
    assert_eq!(phase(&pod), "Running");
    assert_eq!(pod["status"]["podIP"], "10.42.0.2");
    assert_eq!(pod["status"]["hostIP"], "192.0.2.10");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (&status["ready"], &status["started"], &status["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert!(
        status["containerID"].as_str().is_some_and(|id| id.starts_with("coracle://") && id.len() == 74),
        "{status}"
    );
    assert!(status["imageID"].as_str().is_some_and(|id| id.starts_with("web:1@sha256:")), "{status}");
    for name in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, name), "True", "{name}");
    }
    world.delete("web", 30);
    world.until_gone("web").await;
    assert_eq!(world.runtime.running(), 0);
    assert!(world.network.attached().is_empty());
    for place in ["lib/pods", "run/pods", "log"] {
        let left: Vec<_> = std::fs::read_dir(world.directory.path().join(place)).expect("a directory").collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
    assert_eq!(world.events("Pod"), ["Pulling", "Pulled", "Created", "Started", "Killing"]);
    assert!(world.elapsed() < 5, "it took {} simulated seconds", world.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_lost_a_race_is_repeated() {
    let world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    world.api.lose_deletions(2);
    world.delete("web", 30);
    world.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_waits_longer_each_time() {
    let world = started().await;
    world.program("web", &[Program::exits(Duration::from_secs(1), 3)]);
    world.create("web", one_container());
    let mut starts = Vec::new();
    for restarts in 0..5 {
        let runs = |pod: &Value| {
            pod["status"]["containerStatuses"][0]["restartCount"] == restarts && !state(pod, "running").is_null()
        };
        world.until_pod("web", "it restarts", runs).await;
        starts.push(world.elapsed());
    }
    let waits: Vec<i64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [1, 11, 21, 41]);
    world.until_pod("web", "it backs off", |pod| state(pod, "waiting")["reason"] == "CrashLoopBackOff").await;
    let pod = world.pod("web").expect("the pod");
    let message = state(&pod, "waiting")["message"].as_str().expect("a message");
    assert!(message.starts_with("back-off 1m20s restarting failed container=web pod=web_default(uid-"), "{message}");
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(3), &json!("Error")));
    assert_eq!(phase(&pod), "Running");
    assert!(world.events("Pod").contains(&"BackOff".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_is_tried_again() {
    let world = started().await;
    let refused = PullOutcome::Refused { latency: Duration::from_secs(1), message: "manifest unknown".to_owned() };
    world.images.on_pull("web:1", refused);
    world.create("web", one_container());
    world.until_pod("web", "the error shows", |pod| state(pod, "waiting")["reason"] == "ErrImagePull").await;
    world.until_pod("web", "it backs off", |pod| state(pod, "waiting")["reason"] == "ImagePullBackOff").await;
    let pod = world.pod("web").expect("the pod");
    let message = state(&pod, "waiting")["message"].as_str().expect("a message");
    assert!(
        message.starts_with("Back-off pulling image \"web:1\": ErrImagePull:") && message.ends_with("manifest unknown"),
        "{message}"
    );
    assert_eq!(phase(&pod), "Pending");
    let image = Box::new(runtime::simulated::SimulatedImages::image_of("web:1"));
    world.images.on_pull("web:1", PullOutcome::Arrives { latency: Duration::ZERO, image });
    world.until_pod("web", "it is ready", is_ready).await;
    assert!(world.elapsed() < 30, "it took {} simulated seconds", world.elapsed());
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other_before_the_app() {
    let world = started().await;
    world.program("first", &[Program::exits(Duration::from_secs(2), 0)]);
    world.program("second", &[Program::exits(Duration::from_secs(1), 1), Program::exits(Duration::from_secs(1), 0)]);
    let mut spec = one_container();
    spec["initContainers"] = json!([{"name": "first", "image": "init:1"}, {"name": "second", "image": "init:1"}]);
    world.create("web", spec);
    world.until_pod("web", "it is ready", is_ready).await;
    let starts: Vec<(String, u32)> = world
        .runtime
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::StartContainer(_, name, attempt) => Some((name, attempt)),
            _ => None,
        })
        .collect();
    let expected = [("first", 0), ("second", 0), ("second", 1), ("web", 0)];
    assert_eq!(starts, expected.map(|(name, attempt)| (name.to_owned(), attempt)));
    assert_eq!(condition(&world.pod("web").expect("the pod"), "Initialized"), "True");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_completes_gives_everything_back_but_its_status_and_log() {
    let world = started().await;
    let job = Program { output: vec!["done".to_owned()], ..Program::exits(Duration::from_secs(5), 0) };
    world.program("web", &[job]);
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    world.create("web", spec);
    world.until_pod("web", "it succeeds", |pod| phase(pod) == "Succeeded").await;
    world.until("its sandbox is gone", |world| world.network.attached().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pod = world.pod("web").expect("the pod");
    assert_eq!(state(&pod, "terminated")["reason"], "Completed");
    assert_eq!(condition(&pod, "Ready"), "False");
    let (code, log) = world.ask("/containerLogs/default/web/web").await;
    assert_eq!((code, log.as_str()), (200, "done\n"));
    world.delete("web", 30);
    world.until_gone("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_replaced_and_its_container_counted() {
    let world = started().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    world.runtime.kill_shim(&SandboxId::new(&uid, 0));
    world
        .until_pod("web", "it runs again", |pod| {
            is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let pod = world.pod("web").expect("the pod");
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137, "{last}");
    assert_eq!(world.network.attached(), [format!("{uid}-1")]);
    assert!(world.events("Pod").contains(&"SandboxChanged".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ignores_the_signal_is_killed_at_the_deadline() {
    let world = started().await;
    world.program("web", &[Program::ignores_stop()]);
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let before = world.elapsed();
    world.delete("web", 30);
    world.until_gone("web").await;
    let took = world.elapsed() - before;
    assert!((30..33).contains(&took), "it took {took} simulated seconds");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_moves_the_deadline_earlier() {
    let world = started().await;
    world.program("web", &[Program::ignores_stop()]);
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    let before = world.elapsed();
    world.delete("web", 600);
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.delete("web", 5);
    world.until_gone("web").await;
    let took = world.elapsed() - before;
    assert!((15..18).contains(&took), "it took {took} simulated seconds");
}

#[tokio::test(start_paused = true)]
async fn a_failing_liveness_probe_restarts_the_container() {
    let world = started().await;
    let sick = Program { exec: ExecOutcome { code: 1, ..ExecOutcome::default() }, ..Program::serves() };
    world.program("web", &[sick, Program::serves()]);
    let mut spec = one_container();
    spec["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["check"]}, "periodSeconds": 10});
    world.create("web", spec);
    world
        .until_pod("web", "it restarts", |pod| {
            is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    assert!((20..24).contains(&world.elapsed()), "it took {} simulated seconds", world.elapsed());
    assert!(world.events("Pod").contains(&"Unhealthy".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_readiness_probe_decides_about_readiness_only() {
    let world = started().await;
    let sick = Program { exec: ExecOutcome { code: 1, ..ExecOutcome::default() }, ..Program::serves() };
    world.program("web", &[sick]);
    let mut spec = one_container();
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["check"]}});
    world.create("web", spec);
    world.until_pod("web", "it runs", |pod| phase(pod) == "Running").await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let pod = world.pod("web").expect("the pod");
    assert_eq!(
        (condition(&pod, "Ready"), &pod["status"]["containerStatuses"][0]["restartCount"]),
        ("False", &json!(0))
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_that_does_not_exist_counts_as_ended_with_128() {
    let world = started().await;
    world.program("web", &[Program::fails_to_start(StartFailure::NotFound)]);
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    world.create("web", spec);
    world.until_pod("web", "it fails", |pod| phase(pod) == "Failed").await;
    let pod = world.pod("web").expect("the pod");
    let ended = state(&pod, "terminated");
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(128), &json!("StartError")));
    let message = ended["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("OCI runtime create failed: unable to start container process: exec: ")
            && !message.contains("os error"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_is_waited_for() {
    let world = started().await;
    let mut spec = one_container();
    spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    world.create("web", spec);
    world
        .until_pod("web", "the error shows", |pod| state(pod, "waiting")["reason"] == "CreateContainerConfigError")
        .await;
    let pod = world.pod("web").expect("the pod");
    assert_eq!(state(&pod, "waiting")["message"], "configmap \"settings\" not found");
    world.api.create(
        "/api/v1/namespaces/default/configmaps",
        json!({"metadata": {"name": "settings", "namespace": "default"}, "data": {"A": "1"}}),
    );
    world.until_pod("web", "it is ready", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_parameter_that_is_not_allowed_fails_before_anything_begins() {
    let mut world = started().await;
    let mut spec = one_container();
    spec["securityContext"] = json!({"sysctls": [{"name": "kernel.sem", "value": "1"}]});
    world.create("web", spec.clone());
    world.until_pod("web", "it fails", |pod| phase(pod) == "Failed").await;
    world.start_agent().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = world.pod("web").expect("the pod")["status"].clone();
    assert_eq!(status["reason"], "SysctlForbidden");
    assert_eq!(status["message"], "Pod was rejected: forbidden sysctl: \"kernel.sem\" not allowlisted");
    assert!(status["containerStatuses"].is_null(), "{status}");
    assert_eq!(world.events("Pod"), ["SysctlForbidden"]);
    let begun = |call: &Call| matches!(call, Call::CreateSandbox(_) | Call::StartContainer(..));
    assert!(!world.runtime.calls().iter().any(begun) && world.network.attached().is_empty());
    world.delete("web", 30);
    world.until_gone("web").await;
    spec["securityContext"]["sysctls"][0]["name"] = json!("kernel.msgmax");
    world.create("web", spec);
    world.until_pod("web", "what is allowed is taken", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_pods_with_one_port_of_the_host_the_second_fails_and_a_third_takes_over() {
    let world = started().await;
    let mut spec = one_container();
    spec["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 80}]);
    world.create("first", spec.clone());
    world.until_pod("first", "it is ready", is_ready).await;
    world.create("second", spec.clone());
    world.until_pod("second", "it fails", |pod| phase(pod) == "Failed").await;
    assert_eq!(world.pod("second").expect("the pod")["status"]["reason"], "NodePorts");
    world.delete("first", 30);
    world.until_gone("first").await;
    world.create("third", spec);
    world.until_pod("third", "it is ready", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_runtime_that_its_class_names() {
    let world = started().await;
    world.api.create(
        "/apis/node.k8s.io/v1/runtimeclasses",
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "other"}, "handler": "crun"}),
    );
    let mut spec = one_container();
    spec["runtimeClassName"] = json!("other");
    world.create("web", spec);
    world.until("it is told", |world| world.events("Pod").contains(&"FailedCreatePodSandBox".to_owned())).await;
    let events = world.api.list("/api/v1/namespaces/default/events");
    let message = "Failed to create pod sandbox: no runtime for \"crun\" is configured";
    assert!(events.iter().any(|event| event["message"] == message), "{events:?}");
    world.runtime.add_handler("crun");
    world.until_pod("web", "it is ready", is_ready).await;
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let all = runtime::Runtime::list(&world.runtime).await.expect("a list");
    let own = all.iter().find(|sandbox| sandbox.spec.pod_uid == uid).expect("a sandbox");
    assert_eq!(own.spec.handler.as_deref(), Some("crun"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_told_that_the_cluster_resolves_no_names() {
    let mut world = World::new();
    world.cluster_dns = Vec::new();
    world.start_agent().await;
    world.create("web", one_container());
    world.until_pod("web", "it is ready", is_ready).await;
    assert_eq!(world.events("Pod").iter().filter(|reason| *reason == "MissingClusterDNS").count(), 1);
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let conf = std::fs::read_to_string(world.directory.path().join(format!("lib/pods/{uid}/resolv.conf")));
    assert_eq!(conf.expect("a resolver configuration"), "nameserver 192.0.2.1\n");
}

#[tokio::test(start_paused = true)]
async fn a_whole_host_name_that_is_too_long_keeps_the_pod_from_starting() {
    let world = started().await;
    let mut spec = one_container();
    spec["hostname"] = json!("a".repeat(40));
    spec["subdomain"] = json!("sub");
    spec["setHostnameAsFQDN"] = json!(true);
    world.create("web", spec);
    world.until("it is told", |world| world.events("Pod").contains(&"FailedCreatePodSandBox".to_owned())).await;
    assert!(world.network.attached().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_port_is_its_pods_until_the_pod_has_gone() {
    let world = started().await;
    let mut spec = one_container();
    spec["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 80}]);
    world.create("web", spec.clone());
    world.until_pod("web", "it is ready", is_ready).await;
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let ports = |world: &World| world.network.ports(&SandboxId::new(&uid, 0).0);
    assert_eq!(
        ports(&world).iter().map(|port| (port.host_port, port.container_port)).collect::<Vec<_>>(),
        [(80, 8080)]
    );
    world.delete("web", 30);
    world.until_gone("web").await;
    assert!(ports(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_active_deadline_ends_the_pod() {
    let world = started().await;
    let mut spec = one_container();
    spec["activeDeadlineSeconds"] = json!(30);
    world.create("web", spec);
    world.until_pod("web", "it fails", |pod| phase(pod) == "Failed").await;
    let pod = world.pod("web").expect("the pod");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(world.events("Pod").iter().filter(|reason| *reason == "DeadlineExceeded").count(), 1);
    assert!((30..33).contains(&world.elapsed()), "it took {} simulated seconds", world.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_fails_when_its_sandbox_dies_before_all_containers_were_started() {
    let world = started().await;
    world
        .images
        .on_pull("slow:1", PullOutcome::Refused { latency: Duration::from_secs(1), message: "not yet".to_owned() });
    world.create(
        "web",
        json!({
            "restartPolicy": "Never",
            "containers": [{"name": "web", "image": "web:1"}, {"name": "slow", "image": "slow:1"}],
        }),
    );
    world.until("one container runs", |world| world.runtime.running() == 1).await;
    let uid = world.pod("web").expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    world.runtime.kill_shim(&SandboxId::new(&uid, 0));
    world.until_pod("web", "it has failed", |pod| phase(pod) == "Failed").await;
    world.until("its sandbox is gone", |world| world.network.attached().is_empty()).await;
}
