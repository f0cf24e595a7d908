use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use task::{SimulatedClock, Tasks};

use super::*;
use crate::*;

fn runtime() -> SimulatedRuntime {
    let clock = Arc::new(SimulatedClock::starting_at(Timestamp::UNIX_EPOCH));
    SimulatedRuntime::new(clock, &Tasks::new())
}

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new("uid", 0),
        pod_uid: "uid".to_owned(),
        attempt: 0,
        namespace: "default".to_owned(),
        name: "pod".to_owned(),
        hostname: "pod".to_owned(),
        network: Sharing::Sandbox,
        ipc: Sharing::Sandbox,
        pid: PidSharing::Container,
        cgroup: "kubepods/poduid".into(),
        resources: Resources::default(),
        log_directory: "logs".into(),
        sysctls: Default::default(),
        user_namespace: None,
        handler: None,
    }
}

fn container(name: &str, attempt: u32) -> ContainerSpec {
    ContainerSpec {
        id: ContainerId(format!("{name}-{attempt}")),
        name: name.to_owned(),
        attempt,
        image: ImageId("sha256:0".to_owned()),
        image_reference: "image".to_owned(),
        args: vec!["/serve".to_owned()],
        env: Vec::new(),
        cwd: "/".into(),
        user: User::default(),
        privileges: Privileges::default(),
        mounts: Vec::new(),
        resources: Resources::default(),
        tty: false,
        stdin: false,
        processes_of: None,
        labels: Default::default(),
    }
}

async fn exit_of(runtime: &SimulatedRuntime, container: &ContainerId) -> Exit {
    let mut changes = runtime.changes();
    loop {
        let status = runtime.status(&SandboxId::new("uid", 0)).await.unwrap().unwrap();
        if let Some(ContainerState::Exited(exit)) =
            status.containers.iter().find(|found| found.id == *container).map(|found| found.state)
        {
            return exit;
        }
        changes.recv().await.unwrap();
    }
}

async fn started(program: Program) -> (SimulatedRuntime, SandboxId, ContainerId) {
    let runtime = runtime();
    runtime.program("main", vec![program]);
    runtime.create_sandbox(sandbox()).await.unwrap();
    let spec = container("main", 0);
    let (sandbox, id) = (SandboxId::new("uid", 0), spec.id.clone());
    runtime.start_container(&sandbox, spec).await.unwrap();
    (runtime, sandbox, id)
}

#[tokio::test(start_paused = true)]
async fn a_program_that_exits_by_itself_is_seen_with_code_and_times() {
    let (runtime, _, id) = started(Program::exits(Duration::from_secs(7), 3)).await;
    let exit = exit_of(&runtime, &id).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, None, false));
    assert_eq!(exit.finished_at.duration_since(exit.started_at).as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ignores_sigterm_is_killed_at_the_earliest_deadline() {
    let (runtime, sandbox, id) = started(Program::ignores_stop()).await;
    let stop = |seconds| Stop { signal: 15, grace: Duration::from_secs(seconds) };
    runtime.stop_container(&sandbox, &id, stop(30)).await.unwrap();
    runtime.stop_container(&sandbox, &id, stop(5)).await.unwrap();
    runtime.stop_container(&sandbox, &id, stop(60)).await.unwrap();
    let exit = exit_of(&runtime, &id).await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert_eq!(exit.finished_at.duration_since(exit.started_at).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_serves_ends_with_zero_at_the_stop_signal() {
    let (runtime, sandbox, id) = started(Program::serves()).await;
    runtime.stop_container(&sandbox, &id, Stop { signal: 15, grace: Duration::from_secs(30) }).await.unwrap();
    assert_eq!(exit_of(&runtime, &id).await.code, 0);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_own_program_and_the_last_one_repeats() {
    let runtime = runtime();
    runtime.program("main", vec![Program::exits(Duration::ZERO, 1), Program::exits(Duration::ZERO, 2)]);
    runtime.create_sandbox(sandbox()).await.unwrap();
    let id = SandboxId::new("uid", 0);
    for (attempt, code) in [(0, 1), (1, 2), (2, 2)] {
        let spec = container("main", attempt);
        let container = spec.id.clone();
        runtime.start_container(&id, spec).await.unwrap();
        assert_eq!(exit_of(&runtime, &container).await.code, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_shim_takes_its_containers_along_and_accepts_no_others() {
    let (runtime, sandbox, id) = started(Program::serves()).await;
    runtime.kill_shim(&sandbox);
    assert_eq!(exit_of(&runtime, &id).await.code, 137);
    assert_eq!(runtime.list().await.unwrap()[0].state, SandboxState::Dead);
    let refused = runtime.start_container(&sandbox, container("other", 0)).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::NoSandbox { .. }));
    runtime.remove_sandbox(&sandbox).await.unwrap();
    assert!(runtime.list().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_fails_to_start_does_not_exist() {
    let runtime = runtime();
    runtime.program("main", vec![Program::fails_to_start(StartFailure::NotFound)]);
    runtime.create_sandbox(sandbox()).await.unwrap();
    let error = runtime.start_container(&SandboxId::new("uid", 0), container("main", 0)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Execute { .. }));
    assert!(runtime.list().await.unwrap()[0].containers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_running_container_cannot_be_removed() {
    let (runtime, sandbox, id) = started(Program::serves()).await;
    assert!(runtime.remove_container(&sandbox, &id).await.is_err());
    runtime.end_container(&sandbox, &id, Ending { code: 4, ..Ending::default() });
    assert_eq!(exit_of(&runtime, &id).await.code, 4);
    runtime.remove_container(&sandbox, &id).await.unwrap();
    assert!(runtime.list().await.unwrap()[0].containers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_longer_than_its_timeout_has_no_code() {
    let exec = ExecOutcome { latency: Duration::from_secs(3), stdout: b"abcdef".to_vec(), ..ExecOutcome::default() };
    let (runtime, sandbox, id) = started(Program { exec, ..Program::default() }).await;
    let command = |timeout| ExecSpec {
        args: vec!["/probe".to_owned()],
        timeout: Some(Duration::from_secs(timeout)),
        output_limit: 4,
        again: false,
    };
    let timed_out = runtime.exec(&sandbox, &id, command(1)).await.unwrap();
    assert_eq!(timed_out.code, None);
    let finished = runtime.exec(&sandbox, &id, command(5)).await.unwrap();
    assert_eq!((finished.code, finished.stdout.as_slice()), (Some(0), b"abcd".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn a_pull_does_what_it_was_told_and_what_arrived_is_found() {
    let images = SimulatedImages::new();
    images
        .on_pull("r/refused:1", PullOutcome::Refused { latency: Duration::from_secs(1), message: "denied".to_owned() });
    images.on_pull("r/unreachable:1", PullOutcome::Unreachable { latency: Duration::ZERO });
    assert!(matches!(images.pull("r/refused:1", &[], &PullProgress::default()).await, Err(ImageError::Pull { .. })));
    assert!(matches!(
        images.pull("r/unreachable:1", &[], &PullProgress::default()).await,
        Err(ImageError::RegistryUnavailable { .. })
    ));
    assert!(matches!(
        images.pull("not a name", &[], &PullProgress::default()).await,
        Err(ImageError::InvalidName { .. })
    ));
    let image = images.pull("r/plain:1", &[], &PullProgress::default()).await.unwrap();
    assert_eq!(images.find("r/plain:1").await.unwrap().as_ref(), Some(&image));
    assert_eq!(images.find(&image.id.0).await.unwrap().as_ref(), Some(&image));
    images.remove(&image.id).await.unwrap();
    assert_eq!(images.find("r/plain:1").await.unwrap(), None);
}
