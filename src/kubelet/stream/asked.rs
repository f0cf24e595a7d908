//! What a request asks for: parameters, and whom they mean.
//!
//! After `remotecommand.NewOptions` and `getExecRequestParams` of upstream's kubelet.

use http::StatusCode;
use k8s_openapi::api::core::v1::ContainerStatus;
use runtime::{ContainerId, SandboxId, Sharing, Wanted};
use task::chain;

use super::bad_request;
use crate::logs::pairs;
use crate::serve::Refusal;
use crate::shared::{Entry, Shared};

/// A container as paths name it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    /// The pod's, if the client means no other one of that name.
    pub(crate) uid: Option<&'a str>,
    /// Empty where a whole pod is meant.
    pub(crate) container: &'a str,
}

/// Which streams somebody wants to be at.
pub(super) fn streams(query: &str) -> Result<Wanted, Refusal> {
    let pairs = pairs(query);
    let flag = |name: &str| pairs.iter().any(|(key, value)| key == name && value == "1");
    let (stdin, stdout, stderr, tty) = (flag("input"), flag("output"), flag("error"), flag("tty"));
    if !stdin && !stdout && (!stderr || tty) {
        return Err(bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(if tty { Wanted::Terminal { stdin } } else { Wanted::Pipes { stdin, stdout, stderr } })
}

/// The command to be run.
pub(super) fn command(query: &str) -> Result<Vec<String>, Refusal> {
    let args = pairs(query).into_iter().filter(|(key, _)| key == "command").map(|(_, value)| value);
    let args: Vec<String> = args.collect();
    if args.is_empty() { Err(bad_request("you must specify at least 1 command")) } else { Ok(args) }
}

/// The pod of that name.
pub(super) fn pod(shared: &Shared, named: Named<'_>) -> Result<Entry, Refusal> {
    let entry = shared.pod(named.namespace, named.pod);
    let is_meant = |entry: &Entry| named.uid.is_none_or(|uid| entry.pod.metadata.uid.as_deref() == Some(uid));
    let missing = || Refusal(StatusCode::NOT_FOUND, "pod does not exist\n".to_owned());
    entry.filter(is_meant).ok_or_else(missing)
}

/// A container that runs.
pub(super) struct Running {
    pub(super) sandbox: SandboxId,
    pub(super) id: ContainerId,
    pub(super) log: std::path::PathBuf,
}

/// The running container of that name.
pub(super) async fn running(shared: &Shared, entry: &Entry, container: &str) -> Result<Running, Refusal> {
    let lists = [
        &entry.status.container_statuses,
        &entry.status.init_container_statuses,
        &entry.status.ephemeral_container_statuses,
    ];
    let mut statuses = lists.into_iter().flatten().flatten();
    let status: Option<&ContainerStatus> = statuses.find(|status| status.name == container);
    let id = status.and_then(|status| status.container_id.as_deref()).and_then(|id| id.rsplit_once("://"));
    let missing = || {
        let message = format!("container not found ({container:?})\n");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
    };
    let id = ContainerId(id.ok_or_else(missing)?.1.to_owned());
    for sandbox in sandboxes(shared, entry).await? {
        let runs = |one: &runtime::ContainerStatus| {
            one.id == id && matches!(one.state, runtime::ContainerState::Running { .. })
        };
        if let Some(found) = sandbox.containers.into_iter().find(runs) {
            return Ok(Running { sandbox: sandbox.spec.id, id, log: found.log_path });
        }
    }
    Err(missing())
}

/// The sandbox of a pod that runs, and what errors call its network.
pub(super) async fn sandbox(shared: &Shared, entry: &Entry) -> Result<(SandboxId, String), Refusal> {
    let ready = sandboxes(shared, entry).await?.into_iter();
    let ready = ready.filter(|sandbox| sandbox.state == runtime::SandboxState::Ready);
    let metadata = &entry.pod.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (name, namespace, uid) = (text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
    let missing = || {
        let message = format!("failed to find sandboxID for pod {name}_{namespace}({uid})\n");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
    };
    let newest = ready.max_by_key(|sandbox| sandbox.spec.attempt).ok_or_else(missing)?;
    let is_host = newest.spec.network == Sharing::Host;
    let network = if is_host { "host".to_owned() } else { newest.spec.id.0.clone() };
    Ok((newest.spec.id, network))
}

async fn sandboxes(shared: &Shared, entry: &Entry) -> Result<Vec<runtime::SandboxStatus>, Refusal> {
    let all = shared.seams.runtime.list().await;
    let all = all.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", chain(&error))))?;
    let uid = entry.pod.metadata.uid.as_deref().unwrap_or_default();
    Ok(all.into_iter().filter(|sandbox| sandbox.spec.pod_uid == uid).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_from_the_parameters() {
        let query = "command=sh&command=-c&command=a+%26%20b&input=1&output=1&tty=1";
        let args = command(query).unwrap();
        assert_eq!(
            (args.join("|").as_str(), streams(query).unwrap()),
            ("sh|-c|a & b", Wanted::Terminal { stdin: true })
        );
        let wanted = streams("command=true&output=1&error=1").unwrap();
        assert_eq!(wanted, Wanted::Pipes { stdin: false, stdout: true, stderr: true });
    }

    #[test]
    fn nothing_to_run_or_nobody_to_talk_with_is_refused() {
        assert_eq!(command("output=1").unwrap_err().0, StatusCode::BAD_REQUEST);
        for query in ["command=true", "command=true&tty=1&error=1"] {
            assert_eq!(streams(query).unwrap_err().0, StatusCode::BAD_REQUEST, "{query}");
        }
    }
}
