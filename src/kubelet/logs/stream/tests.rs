use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::simulated::SimulatedRuntime;
use runtime::{ContainerId, Runtime, SandboxId};
use task::{SystemClock, Tasks};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

fn query(text: &str) -> Query {
    Query::parse(text, "2026-11-20T15:00:00Z".parse().expect("a time")).expect("a valid query")
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("2026-11-20T14:00:{number:02}.000000000Z stdout F line {number}\n")).collect()
}

/// Two rotated files and a present one: lines 0 to 5.
fn log() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("0.log");
    fs::write(directory.path().join("0.log.20261120-140000"), lines(0..2)).expect("a file");
    fs::write(directory.path().join("0.log.20261120-140002"), lines(2..4)).expect("a file");
    fs::write(&log, lines(4..6)).expect("a file");
    (directory, log)
}

async fn read(log: PathBuf, text: &str) -> String {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(64);
    let streaming = stream(log, query(text), None, sender);
    let collecting = async {
        let mut all = Vec::new();
        while let Some(piece) = receiver.recv().await {
            all.extend_from_slice(&piece.expect("no error"));
        }
        String::from_utf8(all).expect("text")
    };
    futures_util::join!(streaming, collecting).1
}

#[tokio::test]
async fn a_log_is_read_through_its_rotated_files() {
    let (_directory, log) = log();
    assert_eq!(read(log.clone(), "").await, "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\n");
    assert_eq!(read(log.clone(), "tailLines=3").await, "line 3\nline 4\nline 5\n");
    assert_eq!(read(log.clone(), "tailLines=0").await, "");
    assert_eq!(read(log.clone(), "sinceTime=2026-11-20T14:00:04Z").await, "line 4\nline 5\n");
    assert_eq!(read(log.clone(), "limitBytes=9").await, "line 0\nli");
    assert_eq!(read(log, "tailLines=1&timestamps=true").await, "2026-11-20T14:00:05.000000000Z line 5\n");
}

#[tokio::test]
async fn a_log_that_does_not_exist_yet_is_empty() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(read(directory.path().join("0.log"), "").await, "");
}

#[tokio::test]
async fn following_goes_on_across_a_rotation_and_loses_no_line() {
    let (directory, log) = log();
    let tasks = Tasks::new();
    let runtime = SimulatedRuntime::new(Arc::new(SystemClock), &tasks);
    let pod = serde_json::from_value(serde_json::json!({"metadata": {"uid": "u1", "name": "web"}})).expect("a pod");
    let spec = crate::container::sandbox_spec(&pod, 0, std::path::Path::new("kubepods"), directory.path().to_owned());
    let sandbox = SandboxId::new("u1", 0);
    runtime.create_sandbox(spec).await.expect("a sandbox");
    let container = container_spec();
    let id = container.id.clone();
    runtime.start_container(&sandbox, container).await.expect("a container");
    let shared: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let directories = crate::directory::Directories::new(&tasks);
    let ending = Ending { runtime: shared, sandbox: sandbox.clone(), container: id.clone(), directories };
    let (sender, mut receiver) = mpsc::channel(64);
    tasks.spawn("stream", stream(log.clone(), query("follow=true&tailLines=1"), Some(ending), sender));
    let mut next =
        async || receiver.recv().await.map(|piece| String::from_utf8_lossy(&piece.expect("no error")).into_owned());
    assert_eq!(next().await.as_deref(), Some("line 5\n"));
    let mut file = fs::OpenOptions::new().append(true).open(&log).expect("the log");
    file.write_all(lines(6..7).as_bytes()).expect("written");
    assert_eq!(next().await.as_deref(), Some("line 6\n"));
    fs::rename(&log, directory.path().join("0.log.20261120-140006")).expect("renamed");
    fs::write(&log, lines(7..8)).expect("a file");
    assert_eq!(next().await.as_deref(), Some("line 7\n"));
    let stop = runtime::Stop { signal: 15, grace: Duration::ZERO };
    runtime.stop_container(&sandbox, &id, stop).await.expect("stopped");
    assert_eq!(next().await, None);
}

fn container_spec() -> runtime::ContainerSpec {
    let pod = serde_json::json!({"spec": {"containers": [{"name": "web", "command": ["/x"]}]}});
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).expect("a pod");
    let request = crate::container::Request {
        pod: &pod,
        container: &pod.spec.as_ref().expect("a spec").containers[0],
        id: ContainerId("c0".to_owned()),
        attempt: 0,
        image: runtime::ImageId("sha256:1".to_owned()),
        defaults: &runtime::ImageDefaults::default(),
        mounts: Vec::new(),
        processes_of: None,
        labels: Default::default(),
    };
    crate::container::compile(request, &crate::container::Context::default()).expect("a container")
}
