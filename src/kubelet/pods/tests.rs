//! What the table makes of its sources, whatever it hears of first.

use client::{Client, ListOptions, Scope};
use serde_json::json;

use super::*;
use crate::pod::Wish;
use crate::simulation::World;

/// An agent that starts hears of the whole list and of each pod in it by two ways.
#[tokio::test(start_paused = true)]
async fn a_pod_of_the_first_list_stays_though_nobody_has_looked_at_it_yet() {
    let world = World::new();
    world.create("web", json!({ "containers": [{ "name": "web", "image": "web:1" }] }));
    let client = Client::new(Arc::clone(&world.api) as _, "test");
    let shared = world.shared_with(client.clone());
    let api: Informer<Pod> = Informer::spawn(&client, &shared.seams.tasks, Scope::Cluster, ListOptions::default());
    api.synced().await;
    let listed = api.snapshot();
    let mut gone = Pod::clone(&listed[0]);
    gone.metadata.uid = Some("gone".to_owned());
    gone.metadata.name = Some("gone".to_owned());
    let sources = Sources { api: Some(api), nodes: None, manifests: None, found: Vec::new() };
    let (ended, _ended) = mpsc::channel(64);
    let (groups, _wishes) = watch::channel(Groups::new());
    let mut table = Table::new(Arc::clone(&shared), &sources, ended, groups);
    let found = |pod: &Pod| Found { pod: pod.clone(), sandboxes: Vec::new(), known: true };
    table.adopt(vec![found(&listed[0]), found(&gone)]);
    table.handle(Event::ApiSynced);
    let wish = |uid: &str| table.workers[uid].assignment.borrow().wish;
    let uid = listed[0].metadata.uid.as_deref().expect("a UID");
    assert_eq!((wish(uid), wish("gone")), (Wish::Keep, Wish::Gone));
    shared.seams.tasks.shutdown().await;
}
