//! What users see of a pull while it lasts.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use runtime::simulated::{PullOutcome, SimulatedImages};

use super::World;
use super::scenarios::{is_ready, one_container, started, state};

fn slow(world: &World, seconds: u64) {
    let image = Box::new(SimulatedImages::image_of("web:1"));
    world.images.on_pull("web:1", PullOutcome::Arrives { latency: Duration::from_secs(seconds), image });
}

/// All that the container's waiting message says until it is ready.
async fn said(world: &World) -> BTreeSet<String> {
    let said = Mutex::new(BTreeSet::new());
    let note = |pod: &serde_json::Value| {
        let waiting = state(pod, "waiting");
        if let Some(message) = waiting["message"].as_str() {
            assert_eq!(waiting["reason"], "ContainerCreating");
            said.lock().expect("nobody panicked").insert(message.to_owned());
        }
        is_ready(pod)
    };
    world.until_pod("web", "it is ready", note).await;
    said.into_inner().expect("nobody panicked")
}

#[tokio::test(start_paused = true)]
async fn a_long_pull_says_how_far_it_is_every_few_seconds() {
    let world = started().await;
    slow(&world, 100);
    world.create("web", one_container());
    let said = said(&world).await;
    let of_registry = "Pulling image \"web:1\" from docker.io: ";
    assert!(said.iter().all(|message| message.starts_with(of_registry)), "{said:?}");
    assert!(said.iter().any(|message| message.contains(": 524288/1048576 bytes, ")), "{said:?}");
    assert!((5..=20).contains(&said.len()), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_short_pull_says_nothing() {
    let world = started().await;
    slow(&world, 4);
    world.create("web", one_container());
    assert_eq!(said(&world).await, BTreeSet::new());
}
