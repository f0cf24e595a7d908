//! Random objects that own each other, random deletions, and an oracle that says what must be left: no object that anybody
//! still owns or that nobody ever owned is lost, and no garbage stays.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Key, Patch};
use futures_util::future::join_all;
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use serde_json::{Value, json};
use support::{Cluster, cluster_with, until};
use task::{SharedClock, SimulatedClock};

/// Simulated time in which everything must have come to rest.
const PATIENCE: Duration = Duration::from_secs(120);
const SEEDS: u64 = 24;
const OBJECTS: usize = 26;
const ROUNDS: usize = 6;

/// SplitMix64, so that a seed is a history.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Where an object lives: cluster roles in no namespace, the others in one of two.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    namespace: &'static str,
    kind: &'static str,
    name: String,
}

impl Place {
    fn collection(namespace: &str, kind: &str) -> String {
        match kind {
            "ClusterRole" => "/apis/rbac.authorization.k8s.io/v1/clusterroles".to_owned(),
            "ConfigMap" => format!("/api/v1/namespaces/{namespace}/configmaps"),
            _ => format!("/api/v1/namespaces/{namespace}/secrets"),
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", Self::collection(self.namespace, self.kind), self.name)
    }

    fn reference(&self, uid: &str, blocks: bool) -> Value {
        let version = if self.kind == "ClusterRole" { "rbac.authorization.k8s.io/v1" } else { "v1" };
        json!({"apiVersion": version, "kind": self.kind, "name": self.name, "uid": uid, "blockOwnerDeletion": blocks})
    }
}

/// What must be there.
#[derive(Debug, Default)]
struct Oracle {
    /// Objects that live, by uid, with the uids of their owners.
    living: BTreeMap<String, (Place, BTreeSet<String>)>,
}

impl Oracle {
    /// Whether an owner lives where a dependent may have it.
    fn is_solid(&self, owner: &str, dependent: &Place) -> bool {
        let place = self.living.get(owner).map(|(place, _)| place);
        place.is_some_and(|place| place.namespace.is_empty() || place.namespace == dependent.namespace)
    }

    /// Lets everything go that has owners, none of which lives; who has a living one loses the others.
    fn collect(&mut self) {
        loop {
            let is_garbage = |(place, owners): &(Place, BTreeSet<String>)| {
                !owners.is_empty() && !owners.iter().any(|owner| self.is_solid(owner, place))
            };
            let garbage: Vec<String> =
                self.living.iter().filter(|(_, object)| is_garbage(object)).map(|(uid, _)| uid.clone()).collect();
            if garbage.is_empty() {
                break;
            }
            garbage.iter().for_each(|uid| drop(self.living.remove(uid)));
        }
        let solid: Vec<(String, BTreeSet<String>)> = self
            .living
            .iter()
            .map(|(uid, (place, owners))| {
                (uid.clone(), owners.iter().filter(|owner| self.is_solid(owner, place)).cloned().collect())
            })
            .collect();
        for (uid, owners) in solid {
            self.living.get_mut(&uid).unwrap().1 = owners;
        }
    }

    fn delete(&mut self, uid: &str, policy: &str) {
        if policy == "Orphan" {
            self.living.values_mut().for_each(|(_, owners)| owners.retain(|owner| owner != uid));
        }
        self.living.remove(uid);
    }

    fn expected(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.living.iter().map(|(uid, (_, owners))| (uid.clone(), owners.clone())).collect()
    }
}

/// What is there of what the test made: uids and the uids of owners. Nothing may wait for ever.
async fn present(client: &Client) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for (namespace, kind) in
        [("", "ClusterRole"), ("a", "ConfigMap"), ("a", "Secret"), ("b", "ConfigMap"), ("b", "Secret")]
    {
        let list = client.request(Method::GET, &Place::collection(namespace, kind), None).await.unwrap();
        for object in list["items"].as_array().unwrap() {
            let metadata = &object["metadata"];
            if metadata["name"].as_str().unwrap().starts_with("made-") {
                let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
                let owners = owners.map(|owner| owner["uid"].as_str().unwrap().to_owned()).collect();
                found.insert(metadata["uid"].as_str().unwrap().to_owned(), owners);
            }
        }
    }
    found
}

/// Waits until what is there is what must be, and sees that it stays so.
async fn settles(client: &Client, oracle: &Oracle, when: &str) {
    let wanted = oracle.expected();
    let waiting = async {
        while present(client).await != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        assert_eq!(present(client).await, wanted, "{when}");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(present(client).await, wanted, "{when}, later");
}

async fn simulated(seed: u64) -> Cluster {
    let clock: SharedClock = Arc::new(SimulatedClock::starting_at("2026-01-02T03:04:05Z".parse().unwrap()));
    let cluster = cluster_with(clock, seed).await;
    for namespace in ["a", "b"] {
        let body = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}});
        cluster.client.request(Method::POST, "/api/v1/namespaces", Some(&body)).await.unwrap();
    }
    cluster
}

/// Makes objects of which each may be owned by earlier ones, and by what never was.
async fn populate(client: &Client, random: &mut Random, oracle: &mut Oracle) {
    let mut made: Vec<(String, Place)> = Vec::new();
    for number in 0..OBJECTS {
        let kind = ["ConfigMap", "ConfigMap", "Secret", "ClusterRole"][random.below(4)];
        let namespace = if kind == "ClusterRole" { "" } else { ["a", "b"][random.below(2)] };
        let place = Place { namespace, kind, name: format!("made-{number}") };
        // An object of no namespace that names an owner in one is left alone, whatever becomes of that.
        let possible: Vec<&(String, Place)> =
            made.iter().filter(|(_, owner)| !namespace.is_empty() || owner.namespace.is_empty()).collect();
        let mut owners = BTreeMap::new();
        for _ in 0..random.below(4) {
            let blocks = random.chance(60);
            if possible.is_empty() || random.chance(8) {
                let absent = Place { name: "made-never".to_owned(), ..place.clone() };
                let uid = format!("never-{}", random.below(3));
                owners.insert(uid.clone(), absent.reference(&uid, blocks));
            } else {
                let (uid, owner) = possible[random.below(possible.len())];
                owners.insert(uid.clone(), owner.reference(uid, blocks));
            }
        }
        let references: Vec<&Value> = owners.values().collect();
        let body = json!({"metadata": {"name": place.name, "ownerReferences": references}});
        let stored = client.request(Method::POST, &Place::collection(namespace, kind), Some(&body)).await.unwrap();
        let uid = stored["metadata"]["uid"].as_str().unwrap().to_owned();
        oracle.living.insert(uid.clone(), (place.clone(), owners.into_keys().collect()));
        made.push((uid, place));
    }
}

/// Lets earlier objects be owned by later ones, so that there are circles.
async fn entangle(client: &Client, random: &mut Random, oracle: &mut Oracle) {
    let living: Vec<(String, Place)> =
        oracle.living.iter().map(|(uid, (place, _))| (uid.clone(), place.clone())).collect();
    for _ in 0..living.len() / 3 {
        let ((uid, dependent), (owner, place)) =
            (&living[random.below(living.len())], &living[random.below(living.len())]);
        if !oracle.is_solid(owner, dependent) {
            continue;
        }
        let present = client.request(Method::GET, &dependent.path(), None).await.unwrap();
        let mut references = present["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        if references.iter().any(|reference| reference["uid"] == owner.as_str()) {
            continue;
        }
        references.push(place.reference(owner, random.chance(70)));
        let patch = Patch::Merge(json!({"metadata": {"ownerReferences": references}}));
        client.patch_path(&dependent.path(), &patch).await.unwrap();
        oracle.living.get_mut(uid).unwrap().1.insert(owner.clone());
    }
}

async fn delete(client: &Client, place: &Place, policy: &str) {
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    match client.request(Method::DELETE, &place.path(), Some(&options)).await {
        Err(error) if !error.is_not_found() => panic!("{place:?}: {error}"),
        _ => {}
    }
}

async fn history(seed: u64) {
    let cluster = simulated(seed).await;
    let (client, mut random, mut oracle) = (&cluster.client, Random(seed), Oracle::default());
    populate(client, &mut random, &mut oracle).await;
    oracle.collect();
    settles(client, &oracle, &format!("seed {seed}: at first")).await;
    entangle(client, &mut random, &mut oracle).await;
    settles(client, &oracle, &format!("seed {seed}: entangled")).await;
    for round in 0..ROUNDS {
        let living: Vec<(String, Place)> =
            oracle.living.iter().map(|(uid, (place, _))| (uid.clone(), place.clone())).collect();
        if living.is_empty() {
            break;
        }
        // Several at once, unless the result depended on who is first.
        let count = if random.chance(40) { 1 } else { 3 };
        let mut deletions = Vec::new();
        for _ in 0..count {
            let (uid, place) = living[random.below(living.len())].clone();
            let policies: &[&str] = if count == 1 { &["Orphan"] } else { &["Background", "Foreground", "Foreground"] };
            deletions.push((uid, place, policies[random.below(policies.len())]));
        }
        join_all(deletions.iter().map(|(_, place, policy)| delete(client, place, policy))).await;
        deletions.iter().for_each(|(uid, _, policy)| oracle.delete(uid, policy));
        oracle.collect();
        settles(client, &oracle, &format!("seed {seed}: round {round}, {deletions:?}")).await;
    }
    cluster.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn no_living_object_is_lost_and_no_garbage_stays() {
    for seed in 0..SEEDS {
        history(seed).await;
    }
}

async fn make(client: &Client, namespace: &str, name: &str, owner: Option<(&Place, &str)>) -> (Place, String) {
    let namespace = if namespace == "a" { "a" } else { "b" };
    let place = Place { namespace, kind: "ConfigMap", name: name.to_owned() };
    let owners: Vec<Value> = owner.iter().map(|(place, uid)| place.reference(uid, true)).collect();
    let body = json!({"metadata": {"name": name, "ownerReferences": owners}});
    let stored = client.request(Method::POST, &Place::collection(namespace, "ConfigMap"), Some(&body)).await.unwrap();
    (place, stored["metadata"]["uid"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_the_foreground_goes_after_the_dependent_that_blocks_it() {
    let cluster = simulated(1).await;
    let client = &cluster.client;
    let (parent, uid) = make(client, "a", "parent", None).await;
    let (child, _) = make(client, "a", "child", Some((&parent, &uid))).await;
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    client.patch_path(&child.path(), &hold(json!(["example.com/hold"]))).await.unwrap();
    delete(client, &parent, "Foreground").await;
    let held = |map: Option<&ConfigMap>| map.is_some_and(|map| map.metadata.deletion_timestamp.is_some());
    until::<ConfigMap>(&cluster, Key::namespaced("a", "child"), held).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    until::<ConfigMap>(&cluster, Key::namespaced("a", "parent"), held).await;
    client.patch_path(&child.path(), &hold(Value::Null)).await.unwrap();
    until::<ConfigMap>(&cluster, Key::namespaced("a", "parent"), |map| map.is_none()).await;
    cluster.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_owner_is_in_another_namespace_goes_and_an_event_says_why() {
    let cluster = simulated(1).await;
    let client = &cluster.client;
    let (parent, uid) = make(client, "a", "parent", None).await;
    // The kinds have been listed once this one has gone.
    let (_, absent) = (make(client, "a", "early", Some((&parent, "never"))).await, Key::namespaced("a", "early"));
    until::<ConfigMap>(&cluster, absent, |map| map.is_none()).await;
    make(client, "b", "child", Some((&parent, &uid))).await;
    until::<ConfigMap>(&cluster, Key::namespaced("b", "child"), |map| map.is_none()).await;
    let told = async {
        loop {
            let events = client.list::<Event>(&client::Scope::namespace("b"), &client::ListOptions::default()).await;
            let said = |event: &Event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace");
            if let Some(event) = events.unwrap().items.into_iter().find(said) {
                return event.message.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let text = tokio::time::timeout(PATIENCE, told).await.expect("an event");
    let wanted =
        format!("ownerRef [v1/ConfigMap, namespace: b, name: parent, uid: {uid}] does not exist in namespace \"b\"");
    assert_eq!(text, wanted);
    cluster.tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_of_a_kind_that_nobody_knows_is_not_taken_for_absent() {
    let cluster = simulated(1).await;
    let client = &cluster.client;
    let owner = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "x", "uid": "u"});
    let body = json!({"metadata": {"name": "child", "ownerReferences": [owner]}});
    client.request(Method::POST, "/api/v1/namespaces/a/configmaps", Some(&body)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    client.request(Method::GET, "/api/v1/namespaces/a/configmaps/child", None).await.unwrap();
    cluster.tasks.shutdown().await;
}
