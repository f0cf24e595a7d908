//! One run: the storm, the calm after it, and the end of everything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::random::Random;
use crate::verdict;
use crate::workload::{Expected, Workload, set_registry};

/// Steps of the storm.
const STEPS: u64 = 60;
/// How long the cluster may take to come to rest: longest waits of pulls and restarts are five minutes.
const PATIENCE: Duration = Duration::from_secs(1500);
/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
const NAMESPACES: [&str; 3] = ["default", "blue", "green"];

struct Storm {
    random: Random,
    cluster: Cluster,
    workload: Workload,
    pods: Vec<Expected>,
}

/// Runs a seed; panics if anything is not as it must be.
pub(crate) async fn run(seed: u64) {
    let cluster = Cluster::start(seed).await;
    let mut storm = Storm { random: Random::new(seed, 1), cluster, workload: Workload::new(seed), pods: Vec::new() };
    set_registry(&storm.cluster.nodes, &storm.random, true);
    for _ in 0..STEPS {
        Box::pin(storm.step()).await;
        storm.assert_sound();
        tokio::time::sleep(storm.random.millis(4000)).await;
    }
    set_registry(&storm.cluster.nodes, &storm.random, false);
    storm.cluster.ground.weather.calm_down();
    // Kubelets that are to be dropped a moment from now are dropped before all is mended.
    tokio::time::sleep(LOOK).await;
    storm.cluster.mend().await;
    storm.until_settled("after the storm").await;
    for number in 0..storm.pods.len() {
        storm.delete(number).await;
    }
    storm.until_settled("at the end").await;
    storm.assert_sound();
    storm.cluster.end().await;
}

impl Storm {
    async fn step(&mut self) {
        match self.random.below(100) {
            0..40 => self.create().await,
            40..55 => self.delete_any().await,
            55..58 => self.delete_namespace().await,
            58..68 => self.drop_agent(),
            68..71 => self.cluster.kill_server().await,
            71..74 => self.cluster.kill_controllers().await,
            74..82 => self.kill_shim().await,
            82..86 => self.kill_container().await,
            86..88 => set_registry(&self.cluster.nodes, &self.random, true),
            _ => Box::pin(self.cluster.mend()).await,
        }
        if self.random.chance(10) {
            let node = usize::try_from(self.random.below(2)).unwrap();
            self.cluster.nodes[node].kill_agent().await;
        }
        if self.random.chance(40) {
            Box::pin(self.cluster.mend()).await;
        }
    }

    fn server_is_up(&self) -> bool {
        self.cluster.ground.door.borrow().is_some()
    }

    async fn create(&mut self) {
        if !self.server_is_up() {
            return;
        }
        let namespace = *self.random.pick(&NAMESPACES).unwrap();
        let (pod, mut expected) = self.workload.next(namespace, &self.cluster.nodes);
        let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        let admin = self.cluster.admin.clone();
        admin.ask("POST", "/api/v1/namespaces", Some(&body)).await;
        let (code, answer) = admin.ask("POST", &format!("/api/v1/namespaces/{namespace}/pods"), Some(&pod)).await;
        match code {
            201 => {
                expected.uid = answer["metadata"]["uid"].as_str().unwrap().to_owned();
                self.pods.push(expected);
            }
            // The name is taken, or the namespace has no account yet or is on its way out.
            403 | 404 | 409 => {}
            _ => panic!("{code} {answer}"),
        }
    }

    async fn delete_any(&mut self) {
        let living: Vec<usize> = (0..self.pods.len()).filter(|number| !self.pods[*number].deleted).collect();
        if let Some(number) = self.random.pick(&living).copied()
            && self.server_is_up()
        {
            self.delete(number).await;
        }
    }

    async fn delete(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        let mut options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": pod.uid },
        });
        if self.random.chance(70) {
            options["gracePeriodSeconds"] = json!(self.random.pick(&[0, 1, 5, 30]).unwrap());
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        let (code, answer) = self.cluster.admin.ask("DELETE", &path, Some(&options)).await;
        assert!(matches!(code, 200 | 202 | 404 | 409), "{code} {answer}");
        pod.deleted = true;
    }

    async fn delete_namespace(&mut self) {
        let namespace = *self.random.pick(&NAMESPACES[1..]).unwrap();
        if self.server_is_up() {
            self.cluster.admin.ask("DELETE", &format!("/api/v1/namespaces/{namespace}"), None).await;
            for pod in self.pods.iter_mut().filter(|pod| pod.namespace == namespace) {
                pod.deleted = true;
            }
        }
    }

    /// Kills a kubelet a moment from now, whatever it does then.
    fn drop_agent(&mut self) {
        let node = usize::try_from(self.random.below(2)).unwrap();
        self.cluster.nodes[node].kill_agent_soon(self.random.millis(2000));
    }

    fn hit(&mut self, uid: &str) {
        self.pods.iter_mut().filter(|pod| pod.uid == uid).for_each(|pod| pod.was_hit = true);
    }

    async fn kill_shim(&mut self) {
        let node = self.random.pick(&self.cluster.nodes).unwrap();
        let sandboxes = runtime::Runtime::list(&node.runtime).await.unwrap();
        if let Some(sandbox) = self.random.pick(&sandboxes) {
            node.runtime.kill_shim(&sandbox.spec.id);
            self.hit(&sandbox.spec.pod_uid);
        }
    }

    async fn kill_container(&mut self) {
        let node = self.random.pick(&self.cluster.nodes).unwrap();
        let sandboxes = runtime::Runtime::list(&node.runtime).await.unwrap();
        let Some(sandbox) = self.random.pick(&sandboxes) else { return };
        if let Some(container) = self.random.pick(&sandbox.containers) {
            let killed = runtime::simulated::Ending { oom_killed: true, ..Default::default() };
            node.runtime.end_container(&sandbox.spec.id, &container.id, killed);
            self.hit(&sandbox.spec.pod_uid);
        }
    }

    fn assert_sound(&self) {
        let problems = self.cluster.ground.ledger.problems();
        assert!(problems.is_empty(), "this must never happen:\n{}", problems.join("\n"));
    }

    /// Waits until everything is as it must be.
    async fn until_settled(&self, when: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            tokio::time::sleep(LOOK).await;
            self.assert_sound();
            let problems = verdict::problems(&self.cluster, &self.pods).await;
            if problems.is_empty() {
                return;
            }
            let pods: Vec<Value> = self.cluster.admin.list("/api/v1/pods").await;
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "not settled {when}:\n{}\n{}", problems.join("\n"), json!(pods));
        }
    }
}
