use std::io::Write as _;

use runtime::simulated::SimulatedRuntime;
use runtime::{ContainerId, SandboxId, Stop};
use task::{SystemClock, Tasks};

use super::*;

const ONCE: Stdio = Stdio { stdin: true, stdin_once: true, tty: false };
const OPEN: Stdio = Stdio { stdin: true, stdin_once: false, tty: false };
const ALL: Heard = Heard { stdin: true, stdout: true, stderr: true };

/// A container that runs, and the file of its log.
struct Pod {
    runtime: SimulatedRuntime,
    to: Running,
    folder: tempfile::TempDir,
}

async fn pod(tasks: &Tasks) -> Pod {
    let folder = tempfile::tempdir().unwrap();
    let runtime = SimulatedRuntime::new(Arc::new(SystemClock), tasks);
    let pod = serde_json::json!({"metadata": {"uid": "u1", "name": "web"}, "spec": {"containers": [{"name": "web", "command": ["/x"]}]}});
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
    let spec = crate::container::sandbox_spec(&pod, 0, std::path::Path::new("kubepods"), folder.path().to_owned());
    let (sandbox, id) = (SandboxId::new("u1", 0), ContainerId("c0".to_owned()));
    runtime.create_sandbox(spec).await.unwrap();
    let request = crate::container::Request {
        pod: &pod,
        container: &pod.spec.as_ref().unwrap().containers[0],
        id: id.clone(),
        attempt: 0,
        image: runtime::ImageId("sha256:1".to_owned()),
        defaults: &runtime::ImageDefaults::default(),
        mounts: Vec::new(),
        processes_of: None,
        labels: Default::default(),
    };
    let container = crate::container::compile(request, &crate::container::Context::default()).unwrap();
    runtime.start_container(&sandbox, container).await.unwrap();
    let log = folder.path().join("0.log");
    std::fs::write(&log, "t stdout F before\n").unwrap();
    Pod { runtime, to: Running { sandbox, id, log }, folder }
}

impl Pod {
    fn says(&self, records: &str) {
        let mut log = std::fs::OpenOptions::new().append(true).open(self.folder.path().join("0.log")).unwrap();
        log.write_all(records.as_bytes()).unwrap();
    }

    async fn ends(&self) {
        let stop = Stop { signal: 15, grace: std::time::Duration::ZERO };
        self.runtime.stop_container(&self.to.sandbox, &self.to.id, stop).await.unwrap();
    }
}

struct Client {
    input: mpsc::Sender<Input>,
    told: mpsc::Receiver<Output>,
    end: tokio::task::JoinHandle<Option<Option<bool>>>,
}

/// A client that is attached; its end is whether that was a success, or none.
async fn client(tasks: &Tasks, pod: &Pod, stdio: Stdio) -> Client {
    let begun = begin((&pod.runtime, &Directories::new(tasks)), &pod.to, stdio.typing(true)).await.unwrap();
    let (input, from_client) = mpsc::channel(4);
    let (to_client, told) = mpsc::channel(4);
    let end = tasks.spawn("attach", async move {
        take_part(begun, (stdio, ALL), from_client, &to_client).await.map(|end| end.is_ok())
    });
    Client { input, told, end }
}

fn out(text: &'static str) -> Option<Output> {
    Some(Output::Stdout(Bytes::from_static(text.as_bytes())))
}

#[tokio::test]
async fn a_client_hears_what_is_said_from_now_on_to_the_last_word() {
    let tasks = Tasks::new();
    let pod = pod(&tasks).await;
    let mut clients = [client(&tasks, &pod, OPEN).await, client(&tasks, &pod, OPEN).await];
    pod.says("t stdout P $ \n");
    for client in &mut clients {
        assert_eq!(client.told.recv().await, out("$ "));
    }
    pod.says("t stderr F err\n");
    pod.ends().await;
    for mut client in clients {
        assert_eq!(client.told.recv().await, Some(Output::Stderr(Bytes::from_static(b"err\n"))));
        assert_eq!(client.told.recv().await, None);
        assert_eq!(client.end.await.unwrap(), Some(Some(true)));
    }
}

#[tokio::test]
async fn the_first_at_a_single_conversation_hears_it_from_the_beginning() {
    let tasks = Tasks::new();
    let pod = pod(&tasks).await;
    let mut first = client(&tasks, &pod, ONCE).await;
    assert_eq!(first.told.recv().await, out("before\n"));
    let mut second = client(&tasks, &pod, ONCE).await;
    pod.says("t stdout F new\n");
    assert_eq!(first.told.recv().await, out("new\n"));
    assert_eq!(second.told.recv().await, out("new\n"));
}

#[tokio::test]
async fn the_end_of_input_ends_a_conversation_s_input_and_the_attachment_to_anything_else() {
    let tasks = Tasks::new();
    let pod = pod(&tasks).await;
    let mut once = client(&tasks, &pod, ONCE).await;
    assert_eq!(once.told.recv().await, out("before\n"));
    let open = client(&tasks, &pod, OPEN).await;
    for client in [&once, &open] {
        client.input.send(Input::EndOfStdin).await.unwrap();
    }
    assert_eq!(open.end.await.unwrap(), Some(Some(true)));
    pod.says("t stdout F answer\n");
    assert_eq!(once.told.recv().await, out("answer\n"));
}

#[tokio::test]
async fn a_client_that_goes_or_does_not_read_changes_nothing_for_others() {
    let tasks = Tasks::new();
    let pod = pod(&tasks).await;
    let slow = client(&tasks, &pod, OPEN).await;
    let gone = client(&tasks, &pod, OPEN).await;
    drop(gone.input);
    assert_eq!(gone.end.await.unwrap(), Some(None));
    let mut quick = client(&tasks, &pod, OPEN).await;
    for _ in 0..20 {
        pod.says("t stdout F line\n");
        assert_eq!(quick.told.recv().await, out("line\n"));
    }
    drop(slow.told);
    assert_eq!(slow.end.await.unwrap(), Some(None));
}
