//! The containers of a pod by name, of whatever kind they are.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

/// All containers of a pod: init containers, app containers, ephemeral ones.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = Cow<'_, Container>> {
    let spec = pod.spec.as_ref().into_iter();
    spec.flat_map(|spec| {
        let declared = spec.init_containers.iter().flatten().chain(&spec.containers).map(Cow::Borrowed);
        declared.chain(spec.ephemeral_containers.iter().flatten().map(|own| Cow::Owned(as_container(own))))
    })
}

/// The container of this name.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    containers(pod).find(|one| one.name == name)
}

/// The ephemeral container of this name.
pub(crate) fn ephemeral<'a>(pod: &'a Pod, name: &str) -> Option<&'a EphemeralContainer> {
    pod.spec.as_ref()?.ephemeral_containers.iter().flatten().find(|one| one.name == name)
}

/// An ephemeral container as the container that it is beside its target (`EphemeralContainerCommon` upstream).
pub(super) fn as_container(own: &EphemeralContainer) -> Container {
    let own = own.clone();
    Container {
        args: own.args,
        command: own.command,
        env: own.env,
        env_from: own.env_from,
        image: own.image,
        image_pull_policy: own.image_pull_policy,
        lifecycle: own.lifecycle,
        liveness_probe: own.liveness_probe,
        name: own.name,
        ports: own.ports,
        readiness_probe: own.readiness_probe,
        resize_policy: own.resize_policy,
        resources: own.resources,
        restart_policy: own.restart_policy,
        restart_policy_rules: own.restart_policy_rules,
        security_context: own.security_context,
        startup_probe: own.startup_probe,
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        termination_message_path: own.termination_message_path,
        termination_message_policy: own.termination_message_policy,
        tty: own.tty,
        volume_devices: own.volume_devices,
        volume_mounts: own.volume_mounts,
        working_dir: own.working_dir,
    }
}
