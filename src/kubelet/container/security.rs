//! Users, capabilities and filters, after `pkg/kubelet/kuberuntime/security_context.go` upstream.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};
use runtime::{GroupFiles, ImageDefaults, Privileges, ProcMount, Seccomp, User};

use super::{ConfigError, Context};
use crate::shared::in_full;

fn contexts<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> (Option<&'a PodSecurityContext>, Option<&'a SecurityContext>) {
    (pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()), container.security_context.as_ref())
}

/// Who the container runs as: the container's wish, else the pod's, else the image's.
pub(super) fn user(pod: &Pod, container: &Container, defaults: &ImageDefaults) -> Result<User, ConfigError> {
    let (all, own) = contexts(pod, container);
    let uid = own.and_then(|own| own.run_as_user).or(all.and_then(|all| all.run_as_user));
    let gid = own.and_then(|own| own.run_as_group).or(all.and_then(|all| all.run_as_group));
    let non_root = own.and_then(|own| own.run_as_non_root).or(all.and_then(|all| all.run_as_non_root));
    if non_root == Some(true) {
        verify_non_root(pod, container, uid, defaults)?;
    }
    let group =
        |field, value: i64| u32::try_from(value).map_err(|_| ConfigError::Value { field, value: value.to_string() });
    let mut additional_gids = Vec::new();
    for gid in all.iter().flat_map(|all| all.supplemental_groups.iter().flatten().chain(&all.fs_group)) {
        additional_gids.push(group("supplementalGroups", *gid)?);
    }
    Ok(User {
        user: uid.map_or_else(|| defaults.user.clone(), |uid| uid.to_string()),
        gid: gid.map(|gid| group("runAsGroup", gid)).transpose()?,
        additional_gids,
        group_files: match all.and_then(|all| all.supplemental_groups_policy.as_deref()) {
            Some("Strict") => GroupFiles::Ignored,
            _ => GroupFiles::Merged,
        },
    })
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    uid: Option<i64>,
    defaults: &ImageDefaults,
) -> Result<(), ConfigError> {
    let (pod, name) = (in_full(&pod.metadata), container.name.clone());
    match uid {
        Some(0) => return Err(ConfigError::UserIsRoot { pod, container: name }),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = defaults.user.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(0) => Err(ConfigError::ImageRunsAsRoot { pod, container: name }),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() => Err(ConfigError::ImageRunsAsRoot { pod, container: name }),
        Err(_) => Err(ConfigError::UserIsName { user: user.to_owned(), pod, container: name }),
    }
}

/// What the container may do.
pub(super) fn privileges(pod: &Pod, container: &Container, context: &Context) -> Result<Privileges, ConfigError> {
    let (all, own) = contexts(pod, container);
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let privileged = own.and_then(|own| own.privileged).unwrap_or(false);
    let app_armor =
        [all.and_then(|all| all.app_armor_profile.as_ref()), own.and_then(|own| own.app_armor_profile.as_ref())];
    if let Some(wish) = app_armor.into_iter().flatten().find(|profile| profile.type_ != "Unconfined") {
        return Err(ConfigError::Value { field: "appArmorProfile.type", value: wish.type_.clone() });
    }
    let profile = own.and_then(|own| own.seccomp_profile.as_ref()).or(all.and_then(|all| all.seccomp_profile.as_ref()));
    Ok(Privileges {
        privileged,
        add_capabilities: capabilities.and_then(|list| list.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|list| list.drop.clone()).unwrap_or_default(),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(profile, context)? },
        proc_mount: match own.and_then(|own| own.proc_mount.as_deref()) {
            Some("Unmasked") => ProcMount::Whole,
            _ => ProcMount::Masked,
        },
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
    })
}

/// Without a wish the default profile applies, as with upstream's `SeccompDefault`.
fn seccomp(profile: Option<&SeccompProfile>, context: &Context) -> Result<Seccomp, ConfigError> {
    let Some(profile) = profile else { return Ok(Seccomp::RuntimeDefault) };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            if name.is_empty() {
                return Err(ConfigError::NoProfile);
            }
            let outside = name.starts_with('/') || name.split('/').any(|part| part == "..");
            if outside {
                let field = "seccompProfile.localhostProfile";
                return Err(ConfigError::Value { field, value: name.to_owned() });
            }
            Ok(Seccomp::Localhost(context.seccomp_profiles.join(name)))
        }
        other => Err(ConfigError::Value { field: "seccompProfile.type", value: other.to_owned() }),
    }
}
