//! Pods of every kind while everything goes wrong: the agent and shims die, watches break, the API server refuses, images
//! cannot be pulled, starts and hooks are slow. Once it stops, the node must become what the API asks for.
//!
//! A seed makes a run; a failure names it, and `CORACLE_SEED` runs it alone.

use std::time::Duration;

use proptest::test_runner::Config;
use runtime::Runtime;
use runtime::simulated::{Ending, ExecOutcome, OnStop, Program, PullOutcome, SimulatedImages};
use serde_json::{Value, json};

use super::World;
use super::scenarios::{is_ready, phase};

/// SplitMix64: all that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn seconds(&mut self, most: u64) -> Duration {
        Duration::from_secs(self.roll(most + 1))
    }

    fn index(&mut self, length: usize) -> usize {
        let sides = u64::try_from(length.max(1)).expect("it fits");
        usize::try_from(self.roll(sides)).expect("it fits")
    }
}

/// What must have become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Ready,
    Succeeded,
    /// Killed containers do not come back, so it may have failed as well.
    Over,
}

const KINDS: [(&str, Fate); 7] = [
    ("plain", Fate::Ready),
    ("hooks", Fate::Ready),
    ("sidecars", Fate::Ready),
    ("probes", Fate::Ready),
    ("job", Fate::Succeeded),
    ("once", Fate::Over),
    ("rule", Fate::Over),
];

/// A pod of a kind; its containers are called after it.
fn spec(kind: &str) -> Value {
    let container = |name: &str| json!({"name": name, "image": format!("{kind}:1"), "imagePullPolicy": "IfNotPresent"});
    let exec = |command: &str| json!({"exec": {"command": [command]}});
    let mut spec = json!({"terminationGracePeriodSeconds": 20, "containers": [container(kind)]});
    match kind {
        "hooks" => {
            let hooks = json!({"postStart": exec("warm-up"), "preStop": exec("drain")});
            spec["containers"][0]["lifecycle"] = hooks;
            spec["containers"].as_array_mut().expect("a list").push(container("second"));
        }
        "sidecars" => {
            let mut side = container("side");
            side["restartPolicy"] = json!("Always");
            side["lifecycle"] = json!({"preStop": exec("drain")});
            side["startupProbe"] = json!({"exec": {"command": ["check"]}, "periodSeconds": 2});
            spec["initContainers"] = json!([container("first"), side, container("last")]);
        }
        "probes" => {
            spec["containers"][0]["readinessProbe"] = exec("check");
            spec["containers"][0]["livenessProbe"] = exec("check");
        }
        "job" => spec["restartPolicy"] = json!("OnFailure"),
        "once" => {
            let mut side = container("side");
            side["restartPolicy"] = json!("Always");
            (spec["restartPolicy"], spec["initContainers"]) = (json!("Never"), json!([side]));
        }
        "rule" => {
            spec["restartPolicy"] = json!("Never");
            spec["containers"][0]["restartPolicy"] = json!("Never");
            let codes = json!({"operator": "In", "values": [42]});
            spec["containers"][0]["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": codes}]);
        }
        _ => {}
    }
    spec
}

/// What containers do; slow ones and such that ignore signals among them.
fn set_programs(world: &World, dice: &mut Dice) {
    let outcome = |dice: &mut Dice, most| ExecOutcome { latency: dice.seconds(most), ..ExecOutcome::default() };
    for name in ["plain", "hooks", "second", "side", "sidecars", "probes"] {
        let on_stop = match dice.roll(4) {
            0 => OnStop::Ignores,
            1 => OnStop::Dies,
            _ => OnStop::Exits { after: dice.seconds(5), code: 0 },
        };
        let program = Program { on_stop, start_latency: dice.seconds(3), ..Program::default() };
        let program = program.with_command("warm-up", outcome(dice, 10)).with_command("drain", outcome(dice, 40));
        let failing = ExecOutcome { code: 1, ..ExecOutcome::default() };
        let first = program.clone().with_command("warm-up", failing);
        world.program(name, &[first, program]);
    }
    for name in ["first", "last", "once"] {
        world.program(name, &[Program::exits(dice.seconds(5), 0)]);
    }
    world.program("job", &[Program::exits(dice.seconds(5), 1), Program::exits(dice.seconds(5), 0)]);
    world.program("rule", &[Program::exits(dice.seconds(5), 42), Program::exits(dice.seconds(5), 0)]);
}

/// Something goes wrong, or merely happens.
async fn happen(world: &mut World, dice: &mut Dice, deleted: &mut Vec<usize>) {
    let sandboxes = world.runtime.list().await.expect("a list");
    let which = dice.index(KINDS.len());
    let kind = KINDS[which].0;
    match dice.roll(9) {
        0 => world.start_agent().await,
        1 if !sandboxes.is_empty() => world.runtime.kill_shim(&sandboxes[dice.index(sandboxes.len())].spec.id),
        2 if !sandboxes.is_empty() => {
            let sandbox = &sandboxes[dice.index(sandboxes.len())];
            if let Some(one) = sandbox.containers.get(dice.index(sandbox.containers.len())) {
                let ending = Ending { signal: Some(9), ..Ending::default() };
                world.runtime.end_container(&sandbox.spec.id, &one.id, ending);
            }
        }
        3 => world.api.break_watches(),
        4 => world.api.refuse(u32::try_from(dice.roll(6)).expect("it fits")),
        5 => {
            let message = "manifest unknown".to_owned();
            world.images.on_pull(&format!("{kind}:1"), PullOutcome::Refused { latency: dice.seconds(2), message });
        }
        6 => {
            world.delete(kind, i64::try_from(dice.roll(30)).expect("it fits"));
            deleted.push(which);
        }
        7 => {
            let own = json!([{"name": "debug", "image": "tools:1", "targetContainerName": kind}]);
            let path = format!("/api/v1/namespaces/default/pods/{kind}");
            world.api.patch(&path, &json!({"spec": {"ephemeralContainers": own}}));
        }
        _ => {}
    }
    tokio::time::sleep(dice.seconds(20)).await;
}

fn has_its_fate(pod: &Value, fate: Fate) -> bool {
    match fate {
        Fate::Ready => is_ready(pod) && phase(pod) == "Running",
        Fate::Succeeded => phase(pod) == "Succeeded",
        Fate::Over => ["Succeeded", "Failed"].contains(&phase(pod)),
    }
}

/// Waits for two hours at most; looks less often than scenarios do, of which there are fewer.
async fn eventually(world: &World, what: &str, holds: impl Fn(&World) -> bool) {
    for _ in 0..7200 {
        if holds(world) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{what} never happened; pods: {:#?}", world.api.list("/api/v1/pods"));
}

async fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut world = World::new();
    world.start_agent().await;
    set_programs(&world, &mut dice);
    for (kind, _) in KINDS {
        world.create(kind, spec(kind));
    }
    let mut deleted = Vec::new();
    for _ in 0..12 {
        happen(&mut world, &mut dice, &mut deleted).await;
    }
    for (kind, _) in KINDS {
        let reference = format!("{kind}:1");
        let image = Box::new(SimulatedImages::image_of(&reference));
        world.images.on_pull(&reference, PullOutcome::Arrives { latency: Duration::ZERO, image });
    }
    for (index, (kind, fate)) in KINDS.into_iter().enumerate() {
        if deleted.contains(&index) {
            eventually(&world, &format!("seed {seed}: {kind} is gone"), |world| world.pod(kind).is_none()).await;
        } else {
            let what = format!("seed {seed}: {kind} is {fate:?}");
            eventually(&world, &what, |world| world.pod(kind).is_some_and(|pod| has_its_fate(&pod, fate))).await;
        }
    }
    // Nothing runs that nobody asked for.
    let uid = |kind: &str| Some(world.pod(kind)?["metadata"]["uid"].as_str()?.to_owned());
    let alive = KINDS.into_iter().filter(|(_, fate)| *fate == Fate::Ready).filter_map(|(kind, _)| uid(kind));
    let mut alive: Vec<String> = alive.collect();
    alive.sort();
    let own = |world: &World| {
        let attached = world.network.attached().into_iter();
        let mut pods: Vec<String> = attached.filter_map(|one| Some(one.rsplit_once('-')?.0.to_owned())).collect();
        pods.sort();
        pods
    };
    eventually(&world, &format!("seed {seed}: only {alive:?} have a network"), |world| own(world) == alive).await;
    let sandboxes = world.runtime.list().await.expect("a list");
    assert_eq!(sandboxes.len(), alive.len(), "seed {seed}: {sandboxes:#?}");
}

#[test]
fn whatever_goes_wrong_the_node_becomes_what_was_asked_for() {
    let only = std::env::var("CORACLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..u64::from(Config::default().cases / 8).max(1), |seed| seed..seed + 1);
    for seed in seeds {
        let paused = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        paused.expect("a runtime").block_on(run(seed));
    }
}
