//! Why a container cannot be translated.

/// What a container asks for does not exist or makes no sense; users see it as `CreateContainerConfigError`. Wording
/// follows upstream's kubelet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A ConfigMap or Secret is absent; `kind` in lower case.
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    /// A ConfigMap or Secret lacks a key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    /// A volume shows a key that its ConfigMap or Secret lacks; `what` is `config` or `secret`.
    #[error("references non-existent {what} key: {key}")]
    NoItem { what: &'static str, key: String },
    /// A `fieldRef` names a field that cannot be referred to.
    #[error("unsupported fieldPath: {path}")]
    FieldPath { path: String },
    /// A `resourceFieldRef` names something else than a resource of a container.
    #[error("unsupported container resource: {resource}")]
    Resource { resource: String },
    /// A `resourceFieldRef` names a container that is not in the pod.
    #[error("container {name} not found")]
    NoContainer { name: String },
    /// The container that an ephemeral one is to look into was never started.
    #[error("unable to find target container {name}")]
    NoTarget { name: String },
    /// Root, though `runAsNonRoot` forbids it.
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    /// Root by `runAsUser`, though `runAsNonRoot` forbids it.
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    UserIsRoot { pod: String, container: String },
    /// The image's user is a name, so that nobody can tell.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    UserIsName { user: String, pod: String, container: String },
    /// The whole host name does not fit into the kernel.
    #[error(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({limit} characters is the max, {length} characters requested)"
    )]
    NameTooLong { name: String, limit: usize, length: usize },
    /// A profile on the node is asked for without its name.
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    NoProfile,
    /// Neither the pod nor the image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// A value is out of range, or a word is unknown.
    #[error("{field} has the unsupported value {value:?}")]
    Value { field: &'static str, value: String },
    /// A mount refers to a volume that the pod does not have.
    #[error("volume {name:?} of a mount does not exist")]
    NoVolume { name: String },
    /// A sub-path begins at the root.
    #[error("error SubPath `{path}` must not be an absolute path")]
    SubPathAbsolute { path: String },
    /// A sub-path is made of something that is not known (`ExpandContainerVolumeMounts` upstream).
    #[error("missing value for {name:?}")]
    NoValue { name: String },
    /// A sub-path leads upwards.
    #[error("unable to provision SubPath `{path}`: must not contain '..'")]
    SubPathBacksteps { path: String },
    /// Only who may do anything may mount for the host.
    #[error("volume {name:?}: Bidirectional mount propagation is available only to privileged containers")]
    NotPrivileged { name: String },
}
