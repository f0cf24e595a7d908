//! Somebody at the streams of commands and of containers themselves.

use std::fs;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::host::{Host, host, shell};
use super::{lines, stop};
use crate::*;

async fn start(host: &Host, uid: &str, container: ContainerSpec) -> (SandboxId, ContainerId) {
    let spec = host.sandbox(uid);
    let (sandbox, id) = (spec.id.clone(), container.id.clone());
    host.runtime.create_sandbox(spec).await.unwrap();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    (sandbox, id)
}

/// Descriptors of a process, most of whose links change with time.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The shim of a container, which is its parent.
async fn shim(host: &Host, sandbox: &SandboxId, container: &ContainerId) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", host.pid(sandbox, container).await)).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn settles(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.unwrap();
}

#[tokio::test]
async fn a_command_hears_and_answers_and_a_dropped_session_ends_it() {
    let Some(host) = host("a_command_hears_and_answers_and_a_dropped_session_ends_it").await else { return };
    let (sandbox, container) = host.run("session", "echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let open = |script: &str, streams| {
        let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        host.runtime.open_session(&sandbox, &container, SessionSpec { args, streams })
    };
    let pipes = Wanted::Pipes { stdin: true, stdout: true, stderr: true };
    let mut session = open("cat; echo err >&2; exit 3", pipes).await.unwrap();
    let talk = async {
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"to the end").await.unwrap();
        drop(stdin);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        session.stdout.take().unwrap().read_to_end(&mut out).await.unwrap();
        session.stderr.take().unwrap().read_to_end(&mut err).await.unwrap();
        (out, err)
    };
    let (said, code) = tokio::join!(talk, session.end);
    assert_eq!((said, code.unwrap()), ((b"to the end".to_vec(), b"err\n".to_vec()), 3));

    let mut session = open("tty; sleep 1000", Wanted::Terminal { stdin: true }).await.unwrap();
    session.window.as_ref().unwrap().resize(Size { columns: 111, rows: 33 });
    let mut shown = [0; 9];
    tokio::select! {
        read = session.stdout.as_mut().unwrap().read_exact(&mut shown) => drop(read.unwrap()),
        ended = &mut session.end => panic!("{ended:?}"),
    }
    assert_eq!(&shown, b"/dev/pts/");
    drop(session);
    let args =
        ["/bin/sh", "-c", "while ps | grep -q '[s]leep 1000$' && [ $(ps | grep -c '[s]leep 1000$') != 1 ]; do :; done"];
    let args = args.map(str::to_owned).to_vec();
    let timeout = Some(std::time::Duration::from_secs(20));
    let only_its_own = ExecSpec { args, timeout, output_limit: 0, again: false };
    assert_eq!(host.runtime.exec(&sandbox, &container, only_its_own).await.unwrap().code, Some(0));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn the_beginning_of_a_line_is_in_the_log_as_soon_as_somebody_is_attached() {
    let test = "the_beginning_of_a_line_is_in_the_log_as_soon_as_somebody_is_attached";
    let Some(host) = host(test).await else { return };
    let script = "echo ready; printf 'name? '; read name; printf \"hello $name\"; read rest; echo; echo done";
    let container = ContainerSpec { stdin: true, ..shell("main", script) };
    let (sandbox, container) = start(&host, "prompt", container).await;
    host.logged(&sandbox, &container, "ready").await;
    let mut attached = host.runtime.attach(&sandbox, &container, Typing::Shared).await.unwrap();
    assert!(attached.is_first && attached.window.is_none());
    host.logged(&sandbox, &container, "stdout P name? ").await;
    let stdin = attached.stdin.as_mut().unwrap();
    stdin.write_all(b"you\n").await.unwrap();
    host.logged(&sandbox, &container, "stdout P hello you").await;
    // Another one may write as well, and nobody's going ends the input.
    let second = host.runtime.attach(&sandbox, &container, Typing::Shared).await.unwrap();
    assert!(!second.is_first);
    drop(attached);
    let Attachment { stdin, end, .. } = second;
    stdin.unwrap().write_all(b"x\n").await.unwrap();
    end.await;
    let log = host.log(&sandbox, &container).await;
    assert_eq!(lines(&log), ["stdout F ready", "stdout P name? ", "stdout P hello you", "stdout F ", "stdout F done"]);
    assert_eq!(host.exit(&sandbox, &container).await.code, 0);
    let late = host.runtime.attach(&sandbox, &container, Typing::Not).await.unwrap_err();
    assert!(matches!(late, RuntimeError::NoContainer { .. }), "{late:?}");
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn input_that_one_has_alone_ends_with_it_also_when_the_agent_dies() {
    let Some(mut host) = host("input_that_one_has_alone_ends_with_it_also_when_the_agent_dies").await else { return };
    for dies in [false, true] {
        let container = ContainerSpec { stdin: true, ..shell("main", "cat; echo over") };
        let (sandbox, container) = start(&host, if dies { "dies" } else { "goes" }, container).await;
        let mut first = host.runtime.attach(&sandbox, &container, Typing::Whole).await.unwrap();
        let second = host.runtime.attach(&sandbox, &container, Typing::Whole).await.unwrap();
        assert!(second.stdin.is_none());
        first.stdin.as_mut().unwrap().write_all(b"heard\n").await.unwrap();
        host.logged(&sandbox, &container, "stdout F heard").await;
        if dies {
            drop((first, second));
            host.restart().await;
        } else {
            drop(first);
        }
        assert_eq!(host.exit(&sandbox, &container).await.code, 0);
        assert_eq!(lines(&host.log(&sandbox, &container).await), ["stdout F heard", "stdout F over"]);
        host.runtime.remove_sandbox(&sandbox).await.unwrap();
    }
}

#[tokio::test]
async fn a_terminal_is_shared_and_has_a_size() {
    let Some(host) = host("a_terminal_is_shared_and_has_a_size").await else { return };
    let script = "echo ready; read line; echo got $line; busybox stty size";
    let container = ContainerSpec { stdin: true, tty: true, ..shell("main", script) };
    let (sandbox, container) = start(&host, "terminal", container).await;
    host.logged(&sandbox, &container, "ready").await;
    let watcher = host.runtime.attach(&sandbox, &container, Typing::Not).await.unwrap();
    assert!(watcher.stdin.is_none() && watcher.window.is_some() && !watcher.is_first);
    let mut typist = host.runtime.attach(&sandbox, &container, Typing::Whole).await.unwrap();
    assert!(typist.is_first);
    typist.window.as_ref().unwrap().resize(Size { columns: 80, rows: 24 });
    let stdin = typist.stdin.as_mut().unwrap();
    stdin.write_all(b"a").await.unwrap();
    // The echo of a key, which is no line.
    host.logged(&sandbox, &container, "stdout P a").await;
    stdin.write_all(b"b\n").await.unwrap();
    tokio::join!(typist.end, watcher.end);
    let log = host.log(&sandbox, &container).await;
    assert!(log.contains("got ab") && log.contains("24 80"), "{log}");
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn who_has_gone_leaves_no_descriptor_and_too_many_are_refused() {
    let Some(host) = host("who_has_gone_leaves_no_descriptor_and_too_many_are_refused").await else { return };
    let container = ContainerSpec { stdin: true, ..shell("main", "echo ready; cat") };
    let (sandbox, container) = start(&host, "many", container).await;
    host.logged(&sandbox, &container, "ready").await;
    let shim = shim(&host, &sandbox, &container).await;
    let before = descriptors(shim);
    let mut all = Vec::new();
    let refused = loop {
        match host.runtime.attach(&sandbox, &container, Typing::Shared).await {
            Ok(attached) => all.push(attached),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, RuntimeError::Step { step, .. } if step == "attach"), "{refused:?}");
    assert_eq!(all.len(), 64);
    all.clear();
    settles(|| descriptors(shim) == before).await;
    host.runtime.attach(&sandbox, &container, Typing::Shared).await.unwrap();
    host.runtime.stop_container(&sandbox, &container, stop(0)).await.unwrap();
    host.exit(&sandbox, &container).await;
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}
