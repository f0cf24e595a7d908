//! Random pods, and what is expected of each.

use std::time::Duration;

use runtime::simulated::{Ending, OnStop, Program, PullOutcome, StartFailure};
use serde_json::{Value, json};

use crate::expectation::{self, Fate, Policy};
use crate::node::Node;
use crate::random::Random;

/// A pod of the simulation.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) policy: Policy,
    pub(crate) apps: Vec<String>,
    pub(crate) phase: &'static str,
    /// It has a deadline, so it may also have failed.
    pub(crate) has_deadline: bool,
    /// A fault has killed its containers, or might have.
    pub(crate) was_hit: bool,
    pub(crate) deleted: bool,
}

/// Makes pods.
pub(crate) struct Workload {
    random: Random,
    made: u64,
}

impl Workload {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, 3), made: 0 }
    }

    /// The next pod, whose programs the nodes are told, and what is expected of it; its uid is still to come.
    pub(crate) fn next(&mut self, namespace: &str, nodes: &[Node]) -> (Value, Expected) {
        self.made += 1;
        let random = &self.random;
        let policy = *random.pick(&[Policy::Always, Policy::OnFailure, Policy::Never]).unwrap();
        let own = |role: &str, number: u64| format!("{role}{number}-{}", self.made);
        let init: Vec<(String, Fate)> =
            (0..random.below(3).saturating_sub(1)).map(|number| (own("init", number), self.init_fate())).collect();
        let apps: Vec<(String, Fate)> =
            (0..1 + random.below(2)).map(|number| (own("app", number), self.app_fate())).collect();
        let sidecar = random.chance(15).then(|| own("side", 0));
        for (container, fate) in init.iter().chain(&apps) {
            let programs = self.programs(*fate);
            nodes.iter().for_each(|node| node.runtime.program(container, programs.clone()));
        }
        let fates = |all: &[(String, Fate)]| all.iter().map(|(_, fate)| *fate).collect::<Vec<_>>();
        let phase = expectation::phase(policy, &fates(&init), &fates(&apps));
        let deadline = random.chance(8).then(|| 5 + random.below(60));
        let mut inits: Vec<Value> = init.iter().map(|(name, fate)| self.container(name, *fate)).collect();
        if let Some(name) = &sidecar {
            let mut side = self.container(name, Fate::Serves);
            side["restartPolicy"] = json!("Always");
            inits.insert(0, side);
        }
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("pod-{}", random.below(12)), "namespace": namespace },
            "spec": {
                "restartPolicy": policy.word(),
                "terminationGracePeriodSeconds": random.below(40),
                "initContainers": inits,
                "containers": apps.iter().map(|(name, fate)| self.container(name, *fate)).collect::<Vec<_>>(),
            },
        });
        if let Some(deadline) = deadline {
            pod["spec"]["activeDeadlineSeconds"] = json!(deadline);
        }
        let expected = Expected {
            namespace: namespace.to_owned(),
            name: pod["metadata"]["name"].as_str().unwrap().to_owned(),
            uid: String::new(),
            policy,
            apps: apps.into_iter().map(|(name, _)| name).collect(),
            phase,
            has_deadline: deadline.is_some(),
            was_hit: false,
            deleted: false,
        };
        (pod, expected)
    }

    fn app_fate(&self) -> Fate {
        let times = 1 + usize::try_from(self.random.below(2)).unwrap();
        match self.random.below(12) {
            0 | 1 => Fate::Succeeds,
            2 => Fate::Fails,
            3 => Fate::ServesAfter(times),
            4 => Fate::SucceedsAfter(times),
            5 => Fate::NoCommand,
            6 => Fate::NoImage,
            _ => Fate::Serves,
        }
    }

    fn init_fate(&self) -> Fate {
        match self.random.below(8) {
            0 => Fate::Fails,
            1 => Fate::SucceedsAfter(1),
            2 => Fate::NoCommand,
            _ => Fate::Succeeds,
        }
    }

    /// What each attempt does.
    fn programs(&self, fate: Fate) -> Vec<Program> {
        let random = &self.random;
        let after = Duration::from_millis(random.below(15_000));
        let serves = match random.below(4) {
            0 => Program::ignores_stop(),
            1 => Program { on_stop: OnStop::Dies, ..Program::serves() },
            2 => {
                let after = random.millis(5000);
                Program { on_stop: OnStop::Exits { after, code: 0 }, ..Program::serves() }
            }
            _ => Program::serves(),
        };
        let killed = Ending { after, oom_killed: true, ..Ending::default() };
        let fails = match random.below(3) {
            0 => Program { ending: Some(killed), ..Program::serves() },
            _ => Program::exits(after, 1),
        };
        let succeeds = Program::exits(after, 0);
        let after_failures = |times: usize, last: Program| {
            let mut all = vec![fails.clone(); times];
            all.push(last);
            all
        };
        let mut programs = match fate {
            Fate::Serves | Fate::NoImage => vec![serves],
            Fate::Succeeds => vec![succeeds],
            Fate::Fails => vec![fails],
            Fate::ServesAfter(times) => after_failures(times, serves),
            Fate::SucceedsAfter(times) => after_failures(times, succeeds),
            Fate::NoCommand => vec![Program::fails_to_start(StartFailure::NotFound)],
        };
        for program in &mut programs {
            program.start_latency = random.millis(300);
        }
        programs
    }

    fn container(&self, name: &str, fate: Fate) -> Value {
        let image = match fate {
            Fate::NoImage => "registry.test/missing:1".to_owned(),
            _ => format!("registry.test/image-{}:1", self.random.below(4)),
        };
        let policy = self.random.pick(&["IfNotPresent", "Always"]).unwrap();
        json!({ "name": name, "image": image, "imagePullPolicy": policy })
    }
}

/// Says what the registry does: while it storms some images cannot be had, and pulls take time.
pub(crate) fn set_registry(nodes: &[Node], random: &Random, stormy: bool) {
    for node in nodes {
        for number in 0..4 {
            let reference = format!("registry.test/image-{number}:1");
            let latency = random.millis(4000);
            let image = Box::new(runtime::simulated::SimulatedImages::image_of(&reference));
            let outcome = if stormy && random.chance(30) {
                PullOutcome::Unreachable { latency }
            } else {
                PullOutcome::Arrives { latency, image }
            };
            node.images.on_pull(&reference, outcome);
        }
        let refused = PullOutcome::Refused { latency: random.millis(900), message: "no such image".to_owned() };
        node.images.on_pull("registry.test/missing:1", refused);
    }
}
