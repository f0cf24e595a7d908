//! Fields that this kubelet does not act on: they are named in a Warning, never passed over in silence.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// The paths of fields that are set and have no effect here.
pub fn unsupported_fields(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let mut fields = of_pod(spec);
    let limited = spec
        .volumes
        .iter()
        .flatten()
        .filter(|volume| volume.empty_dir.as_ref().is_some_and(|own| own.size_limit.is_some()));
    fields.extend(limited.map(|volume| format!("spec.volumes{{{}}}.emptyDir.sizeLimit", volume.name)));
    let containers = spec.containers.iter().map(|one| ("containers", one));
    let init = spec.init_containers.iter().flatten().map(|one| ("initContainers", one));
    for (list, container) in containers.chain(init) {
        let set = of_container(container, spec.host_network == Some(true));
        fields.extend(set.map(|field| format!("spec.{list}{{{}}}.{field}", container.name)));
    }
    fields
}

fn of_pod(spec: &PodSpec) -> Vec<String> {
    let context = spec.security_context.as_ref();
    let set = [
        ("ephemeralContainers", spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty())),
        ("resources", spec.resources.is_some()),
        ("resourceClaims", spec.resource_claims.as_ref().is_some_and(|list| !list.is_empty())),
        ("runtimeClassName", spec.runtime_class_name.is_some()),
        ("setHostnameAsFQDN", spec.set_hostname_as_fqdn == Some(true)),
        ("hostnameOverride", spec.hostname_override.is_some()),
        ("securityContext.fsGroup", context.is_some_and(|own| own.fs_group.is_some())),
        ("securityContext.seLinuxOptions", context.is_some_and(|own| own.se_linux_options.is_some())),
        ("securityContext.appArmorProfile", context.is_some_and(|own| own.app_armor_profile.is_some())),
        (
            "securityContext.supplementalGroupsPolicy",
            context.is_some_and(|own| own.supplemental_groups_policy.as_deref() == Some("Strict")),
        ),
    ];
    set.into_iter().filter(|(_, set)| *set).map(|(field, _)| format!("spec.{field}")).collect()
}

fn of_container(container: &Container, host_network: bool) -> impl Iterator<Item = &'static str> {
    let context = container.security_context.as_ref();
    let lifecycle = container.lifecycle.as_ref();
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let set = [
        ("lifecycle.postStart", lifecycle.is_some_and(|own| own.post_start.is_some())),
        ("lifecycle.preStop", lifecycle.is_some_and(|own| own.pre_stop.is_some())),
        ("probe.grpc", probes.into_iter().flatten().any(|probe| probe.grpc.is_some())),
        (
            "probe.httpGet.scheme",
            probes
                .into_iter()
                .flatten()
                .any(|probe| probe.http_get.as_ref().is_some_and(|get| get.scheme.as_deref() == Some("HTTPS"))),
        ),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("volumeDevices", container.volume_devices.as_ref().is_some_and(|list| !list.is_empty())),
        ("ports.hostPort", !host_network && container.ports.iter().flatten().any(|port| port.host_port.is_some())),
        ("securityContext.seLinuxOptions", context.is_some_and(|own| own.se_linux_options.is_some())),
        ("securityContext.appArmorProfile", context.is_some_and(|own| own.app_armor_profile.is_some())),
        (
            "securityContext.procMount",
            context.is_some_and(|own| own.proc_mount.as_deref().is_some_and(|kind| kind != "Default")),
        ),
        ("stdinOnce", container.stdin_once == Some(true)),
    ];
    set.into_iter().filter(|(_, set)| *set).map(|(field, _)| field)
}
