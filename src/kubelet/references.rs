//! Fetching the ConfigMaps and Secrets that a pod refers to, and the tokens that it asks for.
//!
//! Used by operations right before they need them, so that a container always starts with what is true now. Absent
//! objects are left out; whether that matters is for the translation to say. Without an API server all are absent.

use std::collections::BTreeSet;
use std::time::Duration;

use client::{Client, Key, Object};
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use serde_json::json;

use crate::container::{References, Token, TokenWish};
use crate::shared::{PrepareError, Shared};

/// Names of ConfigMaps and Secrets.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) tokens: BTreeSet<TokenWish>,
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
    let Some(client) = &shared.client else {
        return if names.tokens.is_empty() { Ok(references) } else { Err(PrepareError::NoTokens) };
    };
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
    for wish in &names.tokens {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let token = match shared.token(uid, wish) {
            Some(token) => token,
            None => {
                let new = token(shared, client, pod, wish).await?;
                shared.keep_token(uid, wish, &new);
                new
            }
        };
        references.tokens.insert(wish.clone(), token);
    }
    Ok(references)
}

/// Asks for a token of the pod's account, bound to the pod. It is renewed after four fifths of its life, and each day
/// (`pkg/kubelet/token/token_manager.go`).
async fn token(shared: &Shared, client: &Client, pod: &Pod, wish: &TokenWish) -> Result<Token, PrepareError> {
    const DAY: i64 = 24 * 60 * 60;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (namespace, metadata) = (text(&pod.metadata.namespace), &pod.metadata);
    let account = text(&pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()));
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let audiences: Vec<&str> = if wish.audience.is_empty() { Vec::new() } else { vec![&wish.audience] };
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences, "expirationSeconds": wish.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata.name, "uid": metadata.uid},
        },
    });
    let asked = shared.now();
    let answer = client.request(Method::POST, &path, Some(&request)).await;
    let answer = answer.map_err(|source| PrepareError::Token { source: Box::new(source) })?;
    let Some(text) = answer["status"]["token"].as_str() else { return Err(PrepareError::NoTokens) };
    // The server may have given less than was asked for.
    let seconds = answer["spec"]["expirationSeconds"].as_i64().unwrap_or(wish.seconds);
    let life = u64::try_from((seconds * 4 / 5).clamp(0, DAY)).unwrap_or_default();
    Ok(Token { text: text.to_owned(), renew_at: asked + Duration::from_secs(life) })
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
