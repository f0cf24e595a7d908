//! kube-rs against an API server: what controllers written with it do. usage: KUBECONFIG=… kube-scenarios [sessions]
//!
//! With `sessions` it talks with pods, which needs a node (scripts/interactive).
//!
//! Prints `ok NAME` or `not ok NAME: why` for each scenario and fails if any failed.

#![expect(clippy::print_stdout, reason = "what it prints is its product")]

mod sessions;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::discovery::{Discovery, Scope};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, Error, ResourceExt as _};
use serde_json::json;

const NAMESPACE: &str = "kube-client";

fn config_map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some(BTreeMap::from([("k".to_owned(), "1".to_owned())])), ..ConfigMap::default() }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Api(status) => status.reason.clone(),
        other => other.to_string(),
    }
}

async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> anyhow::Result<T> {
    let item = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.context("nothing comes")?;
    item.context("the stream has ended")
}

async fn objects_live(client: Client) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
    namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let made = maps.create(&PostParams::default(), &config_map("a")).await?;
    let again = maps.create(&PostParams::default(), &config_map("a")).await;
    ensure!(again.as_ref().err().map(reason).as_deref() == Some("AlreadyExists"), "{again:?}");
    let mut changed = made.clone();
    changed.data.get_or_insert_default().insert("k".to_owned(), "2".to_owned());
    let replaced = maps.replace("a", &PostParams::default(), &changed).await?;
    ensure!(replaced.resource_version() != made.resource_version());
    let stale = maps.replace("a", &PostParams::default(), &changed).await;
    ensure!(stale.as_ref().err().map(reason).as_deref() == Some("Conflict"), "{stale:?}");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("dry")).await?;
    ensure!(maps.get_opt("dry").await?.is_none());
    maps.delete("a", &DeleteParams::default()).await?;
    ensure!(maps.get_opt("a").await?.is_none());
    Ok(())
}

async fn applies_have_owners(client: Client) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let body =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"k": value}});
    let made = maps.patch("b", &PatchParams::apply("one"), &Patch::Apply(body("1"))).await?;
    ensure!(made.managed_fields().len() == 1, "{:?}", made.managed_fields());
    let conflict = maps.patch("b", &PatchParams::apply("two"), &Patch::Apply(body("2"))).await;
    ensure!(conflict.as_ref().err().map(reason).as_deref() == Some("Conflict"), "{conflict:?}");
    let forced = maps.patch("b", &PatchParams::apply("two").force(), &Patch::Apply(body("2"))).await?;
    ensure!(forced.data.is_some_and(|data| data["k"] == "2"));
    Ok(())
}

async fn pages_continue(client: Client) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    for index in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("page-{index}"))).await?;
    }
    let (mut names, mut parameters) = (Vec::new(), ListParams::default().limit(2));
    loop {
        let page = maps.list(&parameters).await?;
        names.extend(page.items.iter().map(|map| map.name_any()).filter(|name| name.starts_with("page-")));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    ensure!(names == ["page-0", "page-1", "page-2", "page-3", "page-4"], "{names:?}");
    Ok(())
}

/// Both ways in which a watcher begins: a list and a watch, or a watch that sends what is there first.
async fn watchers_see_all(client: Client, config: watcher::Config) -> anyhow::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let (reader, writer) = reflector::store();
    let stream = reflector(writer, watcher(maps.clone(), config)).applied_objects();
    let mut stream = std::pin::pin!(stream);
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}});
    maps.patch("seen", &PatchParams::apply("t"), &Patch::Apply(body)).await?;
    loop {
        if next(&mut stream).await??.name_any() == "seen" {
            break;
        }
    }
    maps.patch("seen", &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "1"}}))).await?;
    while next(&mut stream).await??.data.is_none_or(|data| !data.contains_key("x")) {}
    maps.delete("seen", &DeleteParams::default()).await?;
    maps.create(&PostParams::default(), &config_map("last")).await?;
    while next(&mut stream).await??.name_any() != "last" {}
    let known: Vec<String> = reader.state().iter().map(|map| map.name_any()).collect();
    ensure!(!known.contains(&"seen".to_owned()) && known.contains(&"last".to_owned()), "{known:?}");
    maps.delete("last", &DeleteParams::default()).await?;
    Ok(())
}

async fn discovery_finds_kinds(client: Client) -> anyhow::Result<()> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let apps = discovery.get("apps").context("no group apps")?;
    let (deployment, capabilities) = apps.recommended_kind("Deployment").context("no Deployment")?;
    ensure!(capabilities.scope == Scope::Namespaced && deployment.plural == "deployments", "{deployment:?}");
    let api: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &deployment);
    ensure!(api.list(&ListParams::default()).await?.items.is_empty());
    Ok(())
}

async fn metadata_comes_alone(client: Client) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client, NAMESPACE);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "word"}});
    secrets.patch("s", &PatchParams::apply("t"), &Patch::Apply(secret)).await?;
    let partial = secrets.get_metadata("s").await?;
    ensure!(partial.name_any() == "s" && partial.metadata.uid.is_some());
    let partials = secrets.list_metadata(&ListParams::default()).await?;
    ensure!(partials.items.iter().any(|item| item.name_any() == "s"));
    Ok(())
}

async fn namespaces_go(client: Client) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    for _ in 0..300 {
        if namespaces.get_opt(NAMESPACE).await?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("still there")
}

fn told(name: &str, result: anyhow::Result<()>) -> bool {
    match &result {
        Ok(()) => println!("ok kube-rs: {name}"),
        Err(error) => println!("not ok kube-rs: {name}: {error:#}"),
    }
    result.is_ok()
}

#[tokio::main]
async fn main() -> ExitCode {
    let client = match Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            println!("not ok kube-rs: the kubeconfig is read: {error}");
            return ExitCode::FAILURE;
        }
    };
    if std::env::args().nth(1).as_deref() == Some("sessions") {
        let results = [
            told("a command ends with its code", sessions::a_command_ends_with_its_code(client.clone()).await),
            told("a terminal has a size", sessions::a_terminal_has_a_size(client.clone()).await),
            told("a container is talked with", sessions::a_container_is_talked_with(client.clone()).await),
            told("ports are forwarded", sessions::ports_are_forwarded(client).await),
        ];
        return if results.into_iter().all(|passed| passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let list_first = watcher::Config::default();
    let streaming = watcher::Config::default().streaming_lists();
    let results = [
        told("objects live", objects_live(client.clone()).await),
        told("applies have owners", applies_have_owners(client.clone()).await),
        told("pages continue", pages_continue(client.clone()).await),
        told("watchers that list first see all", watchers_see_all(client.clone(), list_first).await),
        told("watchers that stream the list see all", watchers_see_all(client.clone(), streaming).await),
        told("discovery finds kinds", discovery_finds_kinds(client.clone()).await),
        told("metadata comes alone", metadata_comes_alone(client.clone()).await),
        told("namespaces go", namespaces_go(client).await),
    ];
    if results.into_iter().all(|passed| passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
