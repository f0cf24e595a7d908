//! The files of volumes that come from the API: pure.
//!
//! After `pkg/volume/{configmap,secret,downwardapi,projected}` upstream.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::atomic::{File, Files, Owner};
use super::{Problem, ownership};
use crate::container::{ConfigError, Context, TokenWish, field, resource_field};
use crate::references::Names;

/// Mode of files that say nothing about it.
const DEFAULT_MODE: i32 = 0o644;
/// Life of a token that says nothing about it, in seconds.
const DEFAULT_LIFETIME: i64 = 60 * 60;

/// What a volume refers to.
pub(super) fn names(volume: &Volume) -> Names {
    let mut names = Names::default();
    names.config_maps.extend(volume.config_map.as_ref().map(|map| map.name.clone()));
    names.secrets.extend(volume.secret.as_ref().and_then(|secret| secret.secret_name.clone()));
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        names.config_maps.extend(source.config_map.as_ref().map(|map| map.name.clone()));
        names.secrets.extend(source.secret.as_ref().map(|secret| secret.name.clone()));
        names.tokens.extend(source.service_account_token.as_ref().map(wish));
    }
    names
}

/// The token that a projection asks for.
fn wish(projection: &ServiceAccountTokenProjection) -> TokenWish {
    let audience = projection.audience.clone().unwrap_or_default();
    TokenWish { audience, seconds: projection.expiration_seconds.unwrap_or(DEFAULT_LIFETIME) }
}

/// The files of a volume.
pub(super) fn files(pod: &Pod, volume: &Volume, context: &Context) -> Result<Files, Problem> {
    let mut files = Files::new();
    let mut build = Builder { pod, context, files: &mut files, default_mode: DEFAULT_MODE };
    if let Some(map) = &volume.config_map {
        build.default_mode = map.default_mode.unwrap_or(DEFAULT_MODE);
        build.config_map(&map.name, map.items.as_deref(), map.optional)?;
    } else if let Some(secret) = &volume.secret {
        build.default_mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
        let name = secret.secret_name.as_deref().unwrap_or_default();
        build.secret(name, secret.items.as_deref(), secret.optional)?;
    } else if let Some(downward) = &volume.downward_api {
        build.default_mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
        build.downward(downward.items.as_deref())?;
    } else if let Some(projected) = &volume.projected {
        build.default_mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            build.projection(source)?;
        }
    }
    if let Some(group) = group(pod)? {
        for file in files.values_mut() {
            file.owner.group = Some(group);
            file.mode = ownership::read_mode(file.mode);
        }
    }
    Ok(files)
}

/// The one user as whom all containers of a pod run; none if they differ or leave it to their images.
fn only_user(pod: &Pod) -> Result<Option<u32>, ConfigError> {
    let Some(spec) = &pod.spec else { return Ok(None) };
    let usual = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let of_container = |container: &Container| {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        own.or(usual)
    };
    let mut users = spec.init_containers.iter().flatten().chain(&spec.containers).map(of_container);
    let first = users.next().flatten();
    match first {
        Some(user) if users.all(|other| other == Some(user)) => id("runAsUser", user).map(Some),
        _ => Ok(None),
    }
}

/// The group that the volumes of a pod are given to.
pub(super) fn group(pod: &Pod) -> Result<Option<u32>, ConfigError> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    context.and_then(|context| context.fs_group).map(|group| id("fsGroup", group)).transpose()
}

fn id(field: &'static str, id: i64) -> Result<u32, ConfigError> {
    u32::try_from(id).map_err(|_| ConfigError::Value { field, value: id.to_string() })
}

struct Builder<'a> {
    pod: &'a Pod,
    context: &'a Context,
    files: &'a mut Files,
    default_mode: i32,
}

impl Builder<'_> {
    fn put(&mut self, path: &str, content: Vec<u8>, mode: Option<i32>) -> Result<(), ConfigError> {
        let mode = mode.unwrap_or(self.default_mode);
        let bits = u32::try_from(mode).ok().filter(|bits| *bits <= 0o777);
        let bits = bits.ok_or_else(|| ConfigError::Value { field: "mode", value: mode.to_string() })?;
        self.files.insert(path.to_owned(), File { content, mode: bits, owner: Owner::default() });
        Ok(())
    }

    /// A token is for the pod's user alone, if all containers have the same, and for its group
    /// (`pkg/volume/projected`, `FsUserFrom` and `SetVolumeOwnership` upstream).
    fn token(&mut self, projection: &ServiceAccountTokenProjection) -> Result<(), ConfigError> {
        let wish = wish(projection);
        let token = self.context.references.tokens.get(&wish);
        let absent = || ConfigError::NotFound { kind: "token", name: wish.audience.clone() };
        let content = token.ok_or_else(absent)?.text.clone().into_bytes();
        let owner = Owner { user: only_user(self.pod)?, group: group(self.pod)? };
        match owner {
            Owner { user: None, group: None } => return self.put(&projection.path, content, None),
            Owner { group: None, .. } => self.put(&projection.path, content, Some(0o600))?,
            Owner { group: Some(_), .. } => self.put(&projection.path, content, Some(0o640))?,
        }
        if let Some(file) = self.files.get_mut(&projection.path) {
            file.owner = owner;
        }
        Ok(())
    }

    fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), ConfigError> {
        let map = self.context.references.config_maps.get(name);
        let content = map.map(|map| {
            let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
            let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
            text.chain(binary).collect()
        });
        self.keys(("configmap", name), content, items, optional)
    }

    fn secret(&mut self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<(), ConfigError> {
        let secret = self.context.references.secrets.get(name);
        let content = secret
            .map(|secret| secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect());
        self.keys(("secret", name), content, items, optional)
    }

    fn keys(
        &mut self,
        (kind, name): (&'static str, &str),
        content: Option<BTreeMap<String, Vec<u8>>>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), ConfigError> {
        let optional = optional == Some(true);
        let Some(content) = content else {
            return if optional { Ok(()) } else { Err(ConfigError::NotFound { kind, name: name.to_owned() }) };
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return content.into_iter().try_for_each(|(key, value)| self.put(&key, value, None));
        };
        for item in items {
            match content.get(&item.key) {
                Some(value) => self.put(&item.path, value.clone(), item.mode)?,
                None if optional => {}
                None => {
                    let what = if kind == "secret" { kind } else { "config" };
                    return Err(ConfigError::NoItem { what, key: item.key.clone() });
                }
            }
        }
        Ok(())
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>) -> Result<(), ConfigError> {
        for item in items.into_iter().flatten() {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(reference), _) => field(self.pod, &reference.field_path, self.context)?,
                (None, Some(reference)) => resource_field(self.pod, None, reference, self.context)?,
                (None, None) => String::new(),
            };
            self.put(&item.path, text.into_bytes(), item.mode)?;
        }
        Ok(())
    }

    fn projection(&mut self, source: &VolumeProjection) -> Result<(), Problem> {
        if let Some(map) = &source.config_map {
            self.config_map(&map.name, map.items.as_deref(), map.optional)?;
        } else if let Some(secret) = &source.secret {
            self.secret(&secret.name, secret.items.as_deref(), secret.optional)?;
        } else if let Some(downward) = &source.downward_api {
            self.downward(downward.items.as_deref())?;
        } else if let Some(token) = &source.service_account_token {
            self.token(token)?;
        } else {
            let kind = match source {
                VolumeProjection { cluster_trust_bundle: Some(_), .. } => "projected clusterTrustBundle",
                _ => "projected podCertificate",
            };
            return Err(Problem::Unsupported { kind: kind.to_owned() });
        }
        Ok(())
    }
}
