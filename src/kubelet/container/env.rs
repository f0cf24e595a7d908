//! The environment of a container, after `kubelet_pods.makeEnvironmentVariables` upstream.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};
use runtime::ImageDefaults;

use super::{ConfigError, Context, command, fields};

/// What containerd sets when the image does not.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that the pod asks for, in order: those that name Services, `envFrom`, then `env`.
pub(super) fn of_container(
    pod: &Pod,
    container: &Container,
    context: &Context,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = context.links.clone();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (name, value) in from_source(source, context)? {
            set(&mut env, format!("{prefix}{name}"), value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => match from_reference(pod, container, source, context)? {
                Some(value) => value,
                None => continue,
            },
            None => command::expand(variable.value.as_deref().unwrap_or_default(), &env),
        };
        set(&mut env, variable.name.clone(), value);
    }
    Ok(env)
}

/// The whole environment: `PATH` below the image's variables below the pod's. `HOSTNAME` is the runtime's, which knows
/// what the container will see.
pub(super) fn with_image(own: Vec<(String, String)>, defaults: &ImageDefaults) -> Vec<(String, String)> {
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    for variable in &defaults.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        set(&mut env, name.to_owned(), value.to_owned());
    }
    for (name, value) in own {
        set(&mut env, name, value);
    }
    env
}

/// A later value takes the place of an earlier one.
fn set(env: &mut Vec<(String, String)>, name: String, value: String) {
    match env.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => env.push((name, value)),
    }
}

fn from_source(source: &EnvFromSource, context: &Context) -> Result<Vec<(String, String)>, ConfigError> {
    if let Some(reference) = &source.config_map_ref {
        let Some(map) = context.references.config_maps.get(&reference.name) else {
            return absent("configmap", &reference.name, reference.optional);
        };
        return Ok(map.data.clone().unwrap_or_default().into_iter().collect());
    }
    if let Some(reference) = &source.secret_ref {
        let Some(secret) = context.references.secrets.get(&reference.name) else {
            return absent("secret", &reference.name, reference.optional);
        };
        let data = secret.data.iter().flatten();
        return Ok(data.map(|(name, value)| (name.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect());
    }
    Ok(Vec::new())
}

fn absent<T: Default>(kind: &'static str, name: &str, optional: Option<bool>) -> Result<T, ConfigError> {
    if optional == Some(true) { Ok(T::default()) } else { Err(ConfigError::NotFound { kind, name: name.to_owned() }) }
}

/// The value of a `valueFrom`; none when an optional source is absent.
fn from_reference(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    context: &Context,
) -> Result<Option<String>, ConfigError> {
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, &reference.field_path, context).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return fields::resource_field(pod, Some(container), reference, context).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(map) = context.references.config_maps.get(&reference.name) else {
            return absent("configmap", &reference.name, reference.optional);
        };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned();
        return key(pod, ("ConfigMap", &reference.name, &reference.key), reference.optional, value);
    }
    if let Some(reference) = &source.secret_key_ref {
        let Some(secret) = context.references.secrets.get(&reference.name) else {
            return absent("secret", &reference.name, reference.optional);
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return key(pod, ("Secret", &reference.name, &reference.key), reference.optional, value);
    }
    Err(ConfigError::Value { field: "env.valueFrom", value: "fileKeyRef".to_owned() })
}

fn key(
    pod: &Pod,
    (kind, name, key): (&'static str, &str, &str),
    optional: Option<bool>,
    value: Option<String>,
) -> Result<Option<String>, ConfigError> {
    if value.is_some() || optional == Some(true) {
        return Ok(value);
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    Err(ConfigError::NoKey { kind, namespace, name: name.to_owned(), key: key.to_owned() })
}
