//! Manifests of a folder with the real API server over the memory store, in process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::sync::Arc;

use client::{DeleteOptions, Informer, Key, ListOptions, Patch, Scope};
use control::autoapply::{self, MARK, Places};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace};
use serde_json::json;
use support::{Cluster, cluster, read, until};
use task::Tasks;

fn places(folder: &Path) -> Places {
    Places { folder: folder.join("manifests"), record: folder.join("manifests.json") }
}

fn start(cluster: &Cluster, folder: &Path) -> Tasks {
    // A group of its own, which can be waited for alone.
    let tasks = Tasks::new();
    std::fs::create_dir_all(folder.join("manifests")).unwrap();
    autoapply::spawn(&cluster.client, &cluster.clock, &tasks, places(folder));
    tasks
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join("manifests").join(name), text).unwrap();
}

fn has(key: &'static str, value: &'static str) -> impl Fn(Option<&ConfigMap>) -> bool {
    move |map| {
        map.is_some_and(|map| map.data.as_ref().is_some_and(|data| data.get(key).is_some_and(|own| own == value)))
    }
}

async fn said(cluster: &Cluster, reason: &str, text: &str) {
    let events = Informer::<Event>::spawn(&cluster.client, &cluster.tasks, Scope::Cluster, ListOptions::default());
    let mut dirty = events.subscribe();
    let is_it = |event: &Arc<Event>| {
        event.reason.as_deref() == Some(reason) && event.message.as_deref().is_some_and(|said| said.contains(text))
    };
    let found = async {
        while !events.snapshot().iter().any(is_it) {
            dirty.next().await;
        }
    };
    let late = |_| panic!("nobody said {reason}: {text}");
    tokio::time::timeout(std::time::Duration::from_secs(20), found).await.unwrap_or_else(late);
}

const TEAM: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: team}
data: {colour: blue}
---
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: example.com/v1
kind: Thing
metadata: {name: one, namespace: team}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
";

#[tokio::test]
async fn what_a_file_says_is_made_in_order_and_goes_with_it_also_after_a_restart() {
    let (cluster, folder) = (cluster().await, tempfile::tempdir().unwrap());
    let first = start(&cluster, folder.path());
    write(folder.path(), "team.yaml", TEAM);
    let settings = Key::namespaced("team", "settings");
    let map = until::<ConfigMap>(&cluster, settings.clone(), has("colour", "blue")).await.unwrap();
    assert_eq!(map.metadata.annotations.as_ref().unwrap()[MARK], "team.yaml");
    // Informers keep nothing of who manages what.
    let whole: ConfigMap = cluster.client.get(&settings).await.unwrap();
    assert_eq!(whole.metadata.managed_fields.unwrap()[0].manager.as_deref(), Some("coracle-manifests"));
    said(&cluster, "Applied", "team.yaml: Thing team/one").await;
    // The part goes while nobody looks.
    first.shutdown().await;
    let (_, rest) = TEAM.split_once("---\n").unwrap();
    write(folder.path(), "team.yaml", rest);
    let second = start(&cluster, folder.path());
    until::<ConfigMap>(&cluster, settings, |map| map.is_none()).await;
    assert!(cluster.client.get_opt::<Namespace>(&Key::cluster("team")).await.unwrap().is_some());
    std::fs::remove_file(folder.path().join("manifests/team.yaml")).unwrap();
    until::<Namespace>(&cluster, Key::cluster("team"), |namespace| namespace.is_none()).await;
    let note = folder.path().join("manifests.json");
    let forgotten = async {
        while std::fs::read_to_string(&note).unwrap() != "{}" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), forgotten).await.unwrap();
    second.shutdown().await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn what_others_have_made_is_left_alone_and_mistakes_are_named_by_file_and_line() {
    let (cluster, folder) = (cluster().await, tempfile::tempdir().unwrap());
    let own: ConfigMap = read(json!({"metadata": {"name": "own", "namespace": "default"}, "data": {"colour": "red"}}));
    cluster.client.create(&own).await.unwrap();
    let tasks = start(&cluster, folder.path());
    let map = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{colour: blue}}\n"
        )
    };
    write(folder.path(), "own.yaml", &map("own"));
    write(folder.path(), "broken.yaml", "apiVersion: v1\nkind: [\n");
    write(folder.path(), "good.yml", &map("good"));
    said(&cluster, "FailedApply", "own.yaml: line 1: ConfigMap default/own: it was made by somebody else").await;
    said(&cluster, "FailedApply", "broken.yaml: line ").await;
    let (own, good) = (Key::namespaced("default", "own"), Key::namespaced("default", "good"));
    until(&cluster, good.clone(), has("colour", "blue")).await;
    until(&cluster, own.clone(), has("colour", "red")).await;
    // With the file goes nothing that has not its mark.
    std::fs::remove_file(folder.path().join("manifests/own.yaml")).unwrap();
    std::fs::remove_file(folder.path().join("manifests/good.yml")).unwrap();
    until::<ConfigMap>(&cluster, good, |map| map.is_none()).await;
    assert!(has("colour", "red")(cluster.client.get_opt(&own).await.unwrap().as_ref()));
    // Given over by the mark, it is as the file says, and goes with it.
    let marked = Patch::Merge(json!({"metadata": {"annotations": {MARK: "own.yaml"}}}));
    cluster.client.patch::<ConfigMap>(&own, &marked).await.unwrap();
    write(folder.path(), "own.yaml", &map("own"));
    until(&cluster, own.clone(), has("colour", "blue")).await;
    // What somebody removes comes back when the folder is looked at for another reason, if not before.
    cluster.client.delete::<ConfigMap>(&own, &DeleteOptions::default()).await.unwrap();
    write(folder.path(), "other.yaml", &map("other"));
    until(&cluster, own, has("colour", "blue")).await;
    tasks.shutdown().await;
    cluster.tasks.shutdown().await;
}
