//! Fetching the ConfigMaps and Secrets that a pod refers to.
//!
//! Used by operations right before they need them, so that a container always starts with what is true now. Absent
//! objects are left out; whether that matters is for the translation to say. Without an API server all are absent.

use std::collections::BTreeSet;

use client::{Client, Key, Object};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};

use crate::container::References;
use crate::shared::{PrepareError, Shared};

/// Names of ConfigMaps and Secrets.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

/// What the environment of a container refers to.
pub(crate) async fn for_container(shared: &Shared, pod: &Pod, own: &Container) -> Result<References, PrepareError> {
    let mut names = Names::default();
    for source in own.env_from.iter().flatten() {
        names.config_maps.extend(source.config_map_ref.as_ref().map(|reference| reference.name.clone()));
        names.secrets.extend(source.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for source in own.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        names.config_maps.extend(source.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
        names.secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
    }
    fetch(shared, pod, &names).await
}

/// The secrets to pull images with.
pub(crate) async fn pull_secrets(shared: &Shared, pod: &Pod) -> Result<Vec<Secret>, PrepareError> {
    let list = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let names = Names { secrets: list.map(|reference| reference.name.clone()).collect(), ..Names::default() };
    Ok(fetch(shared, pod, &names).await?.secrets.into_values().collect())
}

/// Fetches what there is of the named objects.
pub(crate) async fn fetch(shared: &Shared, pod: &Pod, names: &Names) -> Result<References, PrepareError> {
    let mut references = References::default();
    let Some(client) = &shared.client else { return Ok(references) };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for name in &names.config_maps {
        if let Some(map) = get::<ConfigMap>(client, "configmap", namespace, name).await? {
            references.config_maps.insert(name.clone(), map);
        }
    }
    for name in &names.secrets {
        if let Some(secret) = get::<Secret>(client, "secret", namespace, name).await? {
            references.secrets.insert(name.clone(), secret);
        }
    }
    Ok(references)
}

async fn get<K: Object>(
    client: &Client,
    kind: &'static str,
    namespace: &str,
    name: &str,
) -> Result<Option<K>, PrepareError> {
    let key = Key::namespaced(namespace, name);
    client.get_opt(&key).await.map_err(|source| PrepareError::Fetch {
        kind,
        name: name.to_owned(),
        source: source.into(),
    })
}
