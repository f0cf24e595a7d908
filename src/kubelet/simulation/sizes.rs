//! What pods ask for against what the node has: rejected, resized, deferred.

use std::path::Path;
use std::time::Duration;

use runtime::VolumeSource;
use runtime::simulated::{Call, Program};
use serde_json::{Value, json};

use super::World;
use super::scenarios::{condition, is_ready, one_container, phase, started};

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_is_rejected_and_harms_nobody() {
    let world = started().await;
    let asking = |cpu: i64| {
        let mut spec = one_container();
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu.to_string()}});
        spec
    };
    let processors =
        i64::try_from(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).expect("few");
    world.create("fits", asking(processors));
    world.until_pod("fits", "it is ready", is_ready).await;
    world.create("late", asking(1));
    world.until_pod("late", "it is rejected", |pod| phase(pod) == "Failed").await;
    let pod = world.pod("late").expect("the pod");
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    let milli = processors * 1000;
    let message = format!(
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000, used: {milli}, capacity: {milli}"
    );
    assert_eq!(pod["status"]["message"], message);
    assert!(pod["status"]["containerStatuses"].is_null(), "{pod}");
    assert!(world.events("Pod").contains(&"OutOfcpu".to_owned()));
    assert_eq!(world.runtime.running(), 1);
    world.delete("late", 0);
    world.until_gone("late").await;
    world.delete("fits", 0);
    world.until_gone("fits").await;
    world.create("again", asking(1));
    world.until_pod("again", "it is ready", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_resized_where_it_runs_once_there_is_room() {
    const SMALL: &str = "/api/v1/namespaces/default/pods/small";
    let world = started().await;
    let sized = |milli: i64| {
        let mut spec = one_container();
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{milli}m")}});
        spec
    };
    let all =
        1000 * i64::try_from(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).expect("few");
    world.create("small", sized(200));
    world.create("other", sized(all - 500));
    for name in ["small", "other"] {
        world.until_pod(name, "it is ready", is_ready).await;
    }
    let resize = |milli: i64| {
        let containers = &sized(milli)["containers"];
        world.api.patch(SMALL, &json!({"spec": {"containers": containers}})).expect("the pod");
    };
    let has = |pod: &Value, milli: i64| {
        pod["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == format!("{milli}m")
    };
    resize(400);
    world.until_pod("small", "it is resized", |pod| has(pod, 400)).await;
    let resized = world.runtime.calls().into_iter().find_map(|call| match call {
        Call::ResizeContainer(_, _, resize) => Some(resize),
        _ => None,
    });
    assert_eq!(resized.and_then(|resize| resize.container.cpu_shares), Some(409));
    resize(all + 1);
    world.until_pod("small", "it cannot be", |pod| condition(pod, "PodResizePending") == "True").await;
    let pending = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == "PodResizePending").unwrap_or_default()
    };
    assert_eq!(pending(&world.pod("small").expect("the pod"))["reason"], "Infeasible");
    resize(600);
    world.until_pod("small", "it has to wait", |pod| pending(pod)["reason"] == "Deferred").await;
    let pod = world.pod("small").expect("the pod");
    assert!(has(&pod, 400) && is_ready(&pod), "{pod}");
    world.delete("other", 0);
    world.until_gone("other").await;
    world.until_pod("small", "there is room now", |pod| has(pod, 600)).await;
    world.until_pod("small", "nothing is left to do", |pod| condition(pod, "PodResizePending") == "absent").await;
    assert_eq!(world.pod("small").expect("the pod")["status"]["containerStatuses"][0]["restartCount"], 0);
    let told: Vec<String> = world.events("Pod").into_iter().filter(|reason| reason.starts_with("Resize")).collect();
    for reason in ["ResizeStarted", "ResizeCompleted", "ResizeInfeasible", "ResizeDeferred"] {
        assert!(told.contains(&reason.to_owned()), "{reason}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_size_as_a_whole_gets_another_without_its_containers() {
    let world = started().await;
    let sized = |milli: i64| json!({"requests": {"cpu": format!("{milli}m")}, "limits": {"cpu": format!("{milli}m")}});
    let mut spec = one_container();
    spec["resources"] = sized(200);
    world.create("whole", spec);
    world.until_pod("whole", "it is ready", is_ready).await;
    assert_eq!(world.pod("whole").expect("the pod")["status"]["resources"], sized(200));
    let path = "/api/v1/namespaces/default/pods/whole";
    world.api.patch(path, &json!({"spec": {"resources": sized(300)}})).expect("the pod");
    world.until_pod("whole", "it is resized", |pod| pod["status"]["resources"] == sized(300)).await;
    let resized = world.runtime.calls().into_iter().find_map(|call| match call {
        Call::ResizeContainer(_, _, resize) => Some(resize),
        _ => None,
    });
    assert_eq!(resized.and_then(|resize| resize.pod.cpu_quota), Some(30_000));
    let pod = world.pod("whole").expect("the pod");
    assert_eq!(pod["status"]["allocatedResources"]["cpu"], "300m");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn classes_of_pods_have_what_their_pods_ask_for() {
    let world = started().await;
    let shares =
        |world: &World, group: &str| world.runtime.groups().get(Path::new(group)).and_then(|own| own.cpu_shares);
    let burstable = |wanted: u64| move |world: &World| shares(world, "kubepods/burstable") == Some(wanted);
    let sized = |milli: i64| {
        let mut spec = one_container();
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{milli}m")}});
        spec
    };
    world.until("nothing runs", burstable(2)).await;
    let all = &world.runtime.groups()[Path::new("kubepods")];
    assert_eq!(all.memory_limit, Some(8 << 30));
    world.create("first", sized(250));
    world.create("second", sized(500));
    world.create("third", one_container());
    world.until("three pods", burstable(768)).await;
    assert_eq!(shares(&world, "kubepods/besteffort"), Some(2));
    world.until_pod("first", "it is ready", is_ready).await;
    let path = "/api/v1/namespaces/default/pods/first";
    world.api.patch(path, &json!({"spec": {"containers": sized(500)["containers"]}})).expect("the pod");
    world.until("one is resized", burstable(1024)).await;
    world.delete("first", 0);
    world.until("one has gone", burstable(512)).await;
    let mut job = sized(100);
    job["restartPolicy"] = json!("Never");
    job["containers"][0]["name"] = json!("job");
    world.program("job", &[Program::exits(Duration::from_secs(5), 0)]);
    world.create("job", job);
    world.until("a job runs", burstable(614)).await;
    world.until("the job is done", burstable(512)).await;
}

#[tokio::test(start_paused = true)]
async fn huge_pages_are_counted_limited_and_made_to_volumes() {
    let mut world = World::new();
    let pages = world.directory.path().join("sys/kernel/mm/hugepages/hugepages-2048kB");
    std::fs::create_dir_all(&pages).expect("a directory");
    std::fs::write(pages.join("nr_hugepages"), "4\n").expect("a file");
    world.start_agent().await;
    world.until("the node is there", |world| world.api.get("/api/v1/nodes/edge").is_some()).await;
    let status = world.api.get("/api/v1/nodes/edge").expect("the node")["status"].clone();
    assert_eq!(
        (&status["capacity"]["hugepages-2Mi"], &status["capacity"]["memory"]),
        (&json!("8Mi"), &json!("8388608Ki"))
    );
    assert_eq!(status["allocatable"]["memory"], "8380416Ki");
    let asking = |amount: &str| {
        let mut spec = one_container();
        let pages = json!({"hugepages-2Mi": amount, "memory": "1Mi"});
        spec["containers"][0]["resources"] = json!({"requests": pages, "limits": pages});
        spec["volumes"] = json!([{"name": "pages", "emptyDir": {"medium": "HugePages"}}]);
        spec
    };
    world.create("fits", asking("6Mi"));
    world.until_pod("fits", "it is ready", is_ready).await;
    let sandboxes = runtime::Runtime::list(&world.runtime).await.expect("a list");
    assert_eq!(sandboxes[0].spec.resources.huge_pages, [(2 << 20, 6 << 20)].into());
    let calls = world.runtime.calls();
    let made = calls.iter().any(
        |call| matches!(call, Call::MountVolume(_, VolumeSource::HugePages { page_size, .. }) if *page_size == 2 << 20),
    );
    assert!(made, "{calls:?}");
    world.create("late", asking("4Mi"));
    world.until_pod("late", "it is rejected", |pod| phase(pod) == "Failed").await;
    assert_eq!(world.pod("late").expect("the pod")["status"]["reason"], "OutOfhugepages-2Mi");
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_gets_in_by_the_end_of_others() {
    let world = started().await;
    let processors =
        i64::try_from(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).expect("few");
    let asking = |milli: i64, priority: i64| {
        let mut spec = one_container();
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{milli}m")}});
        spec["priority"] = json!(priority);
        spec
    };
    world.create("large", asking(processors * 1000 - 400, 0));
    world.create("small", asking(300, 5));
    world.create("free", one_container());
    for name in ["large", "small", "free"] {
        world.until_pod(name, "it is ready", is_ready).await;
    }
    world.create("vital", asking(350, 2_000_000_000));
    world.until_pod("vital", "it is ready", is_ready).await;
    world.until_pod("small", "it has made room", |pod| phase(pod) == "Failed").await;
    let small = world.pod("small").expect("the pod");
    let status = &small["status"];
    let message = "Preempted in order to admit critical pod";
    assert_eq!((&status["reason"], &status["message"]), (&json!("Preempting"), &json!(message)));
    assert_eq!(condition(&small, "DisruptionTarget"), "True");
    assert_eq!(world.messages("Preempting"), [message]);
    assert!(["large", "free"].iter().all(|name| is_ready(&world.pod(name).expect("the pod"))));
    world.create("huge", asking(processors * 1000, 2_000_000_000));
    world.until_pod("huge", "it is rejected", |pod| phase(pod) == "Failed").await;
    let huge = world.pod("huge").expect("the pod")["status"].clone();
    assert_eq!(huge["reason"], "UnexpectedAdmissionError");
    assert!(is_ready(&world.pod("large").expect("the pod")), "nobody goes in vain");
}

#[tokio::test(start_paused = true)]
async fn what_others_give_a_node_is_there_for_pods_until_they_take_it_back() {
    const NODE: &str = "/api/v1/nodes/edge";
    let world = started().await;
    world.until("the node is there", |world| world.api.get(NODE).is_some()).await;
    let dongles =
        |world: &World, of: &str| world.api.get(NODE).expect("a node")["status"][of]["example.com/dongle"].clone();
    for amount in [json!("4"), json!(null)] {
        let patch = json!({"status": {"capacity": {"example.com/dongle": amount}}});
        world.api.patch(NODE, &patch).expect("the node");
        world.until("it can be had", |world| dongles(world, "allocatable") == amount).await;
        assert_eq!(dongles(&world, "capacity"), amount);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_measured_by_what_the_node_is_now() {
    let world = started().await;
    world.until("the node is there", |world| world.api.get("/api/v1/nodes/edge").is_some()).await;
    let mut spec = one_container();
    spec["nodeSelector"] = json!({"disk": "ssd"});
    world.create("early", spec.clone());
    world.until_pod("early", "it is rejected", |pod| phase(pod) == "Failed").await;
    assert_eq!(world.pod("early").expect("the pod")["status"]["reason"], "NodeAffinity");
    let patch = json!({"metadata": {"labels": {"disk": "ssd"}}});
    world.api.patch("/api/v1/nodes/edge", &patch).expect("the node");
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.create("late", spec);
    world.until_pod("late", "it is ready", is_ready).await;
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
    world.api.patch("/api/v1/nodes/edge", &taint).expect("the node");
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.create("repelled", one_container());
    world.until_pod("repelled", "it is rejected", |pod| phase(pod) == "Failed").await;
    assert_eq!(world.pod("repelled").expect("the pod")["status"]["reason"], "TaintToleration");
    assert!(is_ready(&world.pod("late").expect("the pod")), "who is here stays");
}

#[tokio::test(start_paused = true)]
async fn a_node_short_of_memory_ends_the_pod_that_uses_the_most_beyond_its_request() {
    let mut world = World::new();
    world.eviction_hard = vec!["memory.available<100Mi"];
    world.start_agent().await;
    let asking = |memory: &str| {
        let mut spec = one_container();
        spec["containers"][0]["resources"] = json!({"requests": {"memory": memory}});
        spec
    };
    world.create("modest", asking("300Mi"));
    world.create("greedy", asking("10Mi"));
    world.create("greedier", asking("10Mi"));
    for name in ["modest", "greedy", "greedier"] {
        world.until_pod(name, "it is ready", is_ready).await;
    }
    let mut usage = runtime::Usage::default();
    for sandbox in runtime::Runtime::list(&world.runtime).await.expect("a list") {
        let megabytes = match sandbox.spec.name.as_str() {
            "modest" => 200,
            "greedy" => 50,
            _ => 60,
        };
        let stats = runtime::Stats { memory_working_set: Some(megabytes << 20), ..runtime::Stats::default() };
        let containers = sandbox.containers.iter().map(|one| (one.id.clone(), stats.clone())).collect();
        usage.sandboxes.insert(sandbox.spec.id, runtime::SandboxUsage { whole: stats, containers });
    }
    world.runtime.use_up(usage);
    let meminfo = |free: i64| format!("MemTotal: 8388608 kB\nMemFree: {free} kB\nInactive(file): 1024 kB\n");
    let path = world.directory.path().join("proc/meminfo");
    std::fs::write(&path, meminfo(50 << 10)).expect("a file");
    world.until_pod("greedier", "it is evicted", |pod| phase(pod) == "Failed").await;
    std::fs::write(&path, meminfo(1 << 20)).expect("a file");
    let pod = world.pod("greedier").expect("the pod");
    let message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51Mi. Container web was \
                   using 60Mi, request is 10Mi, has larger consumption of memory. ";
    assert_eq!((&pod["status"]["reason"], &pod["status"]["message"]), (&json!("Evicted"), &json!(message)));
    assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    let holds = |world: &World, status: &str| {
        let node = world.api.get("/api/v1/nodes/edge").unwrap_or_default();
        let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["type"] == "MemoryPressure" && one["status"] == status)
    };
    world.until("the node says so", |world| holds(world, "True")).await;
    world.create("free", one_container());
    world.until_pod("free", "it is refused", |pod| phase(pod) == "Failed").await;
    let refused = world.pod("free").expect("the pod")["status"]["message"].clone();
    assert_eq!(refused, "Pod was rejected: The node had condition: [MemoryPressure]. ");
    world.until("the node has recovered", |world| holds(world, "False")).await;
    assert!(world.elapsed() > 300, "not at once: {}", world.elapsed());
    let told = world.events("Node");
    let lack =
        ["EvictionThresholdMet", "NodeHasInsufficientMemory"].iter().all(|reason| told.iter().any(|own| own == reason));
    assert!(lack, "{told:?}");
    assert!(["modest", "greedy"].iter().all(|name| is_ready(&world.pod(name).expect("the pod"))));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_logs_more_than_it_may_have_on_disk_is_evicted_with_its_pod() {
    let world = started().await;
    let sized = |limit: &str| {
        let mut spec = one_container();
        spec["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": limit}});
        spec
    };
    let mut both = sized("3Mi");
    let other = json!({"name": "other", "image": "web:1", "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": {"ephemeral-storage": "1Mi"}}});
    both["containers"].as_array_mut().expect("a list").push(other);
    world.create("fits", sized("3Mi"));
    world.create("whole", sized("1Mi"));
    world.create("part", both);
    for (name, container) in [("fits", "web"), ("whole", "web"), ("part", "other")] {
        world.until_pod(name, "it is ready", is_ready).await;
        let uid = world.pod(name).expect("the pod")["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let logs = world.directory.path().join(format!("log/default_{name}_{uid}/{container}"));
        std::fs::create_dir_all(&logs).expect("a directory");
        std::fs::write(logs.join("0.log"), vec![1; 2 << 20]).expect("a log");
        std::fs::File::open(logs.join("0.log")).and_then(|file| file.sync_all()).expect("synced");
    }
    for (name, message) in [
        ("whole", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "),
        ("part", "Container other exceeded its local ephemeral storage limit \"1Mi\". "),
    ] {
        world.until_pod(name, "it is evicted", |pod| phase(pod) == "Failed").await;
        let status = world.pod(name).expect("the pod")["status"].clone();
        assert_eq!((&status["reason"], &status["message"]), (&json!("Evicted"), &json!(message)));
    }
    assert!(is_ready(&world.pod("fits").expect("the pod")));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_wants_it_so_is_restarted_for_its_new_size() {
    let world = started().await;
    let mut spec = one_container();
    spec["containers"][0]["resources"] = json!({"requests": {"memory": "64Mi"}});
    spec["containers"][0]["resizePolicy"] = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    world.create("web", spec.clone());
    world.until_pod("web", "it is ready", is_ready).await;
    spec["containers"][0]["resources"]["requests"]["memory"] = json!("128Mi");
    let path = "/api/v1/namespaces/default/pods/web";
    world.api.patch(path, &json!({"spec": {"containers": spec["containers"]}})).expect("the pod");
    let restarted = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && is_ready(pod) && status["resources"]["requests"]["memory"] == "128Mi"
    };
    world.until_pod("web", "it is restarted", restarted).await;
    let resized = |call: &Call| matches!(call, Call::ResizeContainer(..));
    assert!(!world.runtime.calls().iter().any(resized));
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_port_of_the_host_is_taken_is_rejected_until_it_is_given_back() {
    let world = started().await;
    let mut spec = one_container();
    spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}]);
    world.create("first", spec.clone());
    world.until_pod("first", "it is ready", is_ready).await;
    world.create("second", spec.clone());
    world.until_pod("second", "it is rejected", |pod| phase(pod) == "Failed").await;
    let second = world.pod("second").expect("the pod");
    assert_eq!(second["status"]["reason"], "NodePorts");
    assert!(world.events("Pod").contains(&"NodePorts".to_owned()));
    world.delete("first", 0);
    world.until_gone("first").await;
    world.create("third", spec);
    world.until_pod("third", "it is ready", is_ready).await;
}
