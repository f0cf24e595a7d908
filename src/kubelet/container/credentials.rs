//! Registry credentials from image pull secrets, after `pkg/credentialprovider` upstream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use runtime::Credentials;
use serde_json::Value;

/// The registry of an image without one.
const DEFAULT_REGISTRY: &str = "docker.io";

/// The credentials in `secrets` that are meant for the registry and repository of `reference`, the most specific first.
pub fn pull_credentials(secrets: &[Secret], reference: &str) -> Vec<Credentials> {
    let mut found: Vec<(usize, Credentials)> = Vec::new();
    for auths in secrets.iter().filter_map(auths) {
        for (place, entry) in auths.as_object().into_iter().flatten() {
            let place = normalize(place);
            if let Some(credentials) = credentials(entry).filter(|_| matches(&place, reference)) {
                found.push((place.len(), credentials));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, credentials)| credentials).collect()
}

/// The `auths` of a secret of either kind.
fn auths(secret: &Secret) -> Option<Value> {
    let data = secret.data.as_ref()?;
    if let Some(config) = data.get(".dockerconfigjson") {
        return serde_json::from_slice::<Value>(&config.0).ok()?.get("auths").cloned();
    }
    serde_json::from_slice(&data.get(".dockercfg")?.0).ok()
}

/// `https://index.docker.io/v1/` and `docker.io` mean the same.
fn normalize(place: &str) -> String {
    let bare = place.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        other => other.to_owned(),
    }
}

/// Whether credentials for `place`, a registry with or without a path, are meant for an image. `*` matches within one
/// label of the host name.
fn matches(place: &str, reference: &str) -> bool {
    let (host, path) = split(place);
    let (registry, repository) = match reference.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, reference),
    };
    let hosts = host.split('.').count() == registry.split('.').count()
        && host.split('.').zip(registry.split('.')).all(|(pattern, label)| label_matches(pattern, label));
    hosts && repository.starts_with(path)
}

fn split(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or((text, ""))
}

fn label_matches(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((start, end)) => {
            label.len() >= start.len() + end.len() && label.starts_with(start) && label.ends_with(end)
        }
    }
}

fn credentials(entry: &Value) -> Option<Credentials> {
    let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    if !text("username").is_empty() {
        return Some(Credentials { username: text("username"), password: text("password") });
    }
    let decoded = STANDARD.decode(text("auth")).ok()?;
    let (username, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Credentials { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}
