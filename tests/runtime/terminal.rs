//! `process.terminal`, `consoleSize` and the console socket, over which the runtime hands its caller the terminal's
//! master (runc, docs/terminals.md).

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Pid;
use serde_json::json;

use crate::invoke::{self, collect};
use crate::stage::Stage;

/// Where the terminal's master arrives.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn new(stage: &Stage) -> Self {
        let path = stage.path("console");
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    fn flag(&self) -> String {
        self.path.display().to_string()
    }

    /// The master that the runtime sends.
    #[track_caller]
    fn receive(&self) -> File {
        assert!(invoke::readable(&self.listener), "the runtime does not connect");
        let (stream, _) = self.listener.accept().unwrap();
        assert!(invoke::readable(&stream), "the runtime sends nothing");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 4096];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut received: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                received.extend(rights);
            }
        }
        assert_eq!(received.len(), 1, "one descriptor is sent");
        File::from(received.remove(0))
    }
}

/// Everything that comes out of a terminal until its other side is closed, which reads as EIO.
fn drain(master: &mut File) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        assert!(invoke::readable(master), "the terminal stays open after {:?}", String::from_utf8_lossy(&all));
        match master.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => all.extend(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8_lossy(&all).replace("\r\n", "\n").trim_end().to_owned()
}

fn on_terminal() -> Option<(Stage, Console)> {
    let mut stage = Stage::new()?;
    stage.patch(&json!({"process": {"terminal": true}}));
    let console = Console::new(&stage);
    Some((stage, console))
}

/// Runs a script on a terminal; what comes out.
fn output(stage: &mut Stage, console: &Console, script: &str) -> String {
    stage.script(script);
    stage.write_config();
    stage.call(&["create", "--bundle", ".", "--console-socket", &console.flag(), &stage.id]).ok();
    let mut master = console.receive();
    stage.call(&["start", &stage.id]).ok();
    drain(&mut master)
}

#[test]
fn standard_descriptors_are_a_terminal_of_the_container() {
    let Some((mut stage, console)) = on_terminal() else { return };
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && tty; stat -L -c '%t' /dev/stdin";
    assert_eq!(output(&mut stage, &console, script), "/dev/pts/0\n88");
}

#[test]
fn the_terminal_controls_the_session() {
    let Some((mut stage, console)) = on_terminal() else { return };
    assert_eq!(output(&mut stage, &console, "echo through >/dev/tty"), "through");
}

#[test]
fn dev_console_is_the_terminal() {
    let Some((mut stage, console)) = on_terminal() else { return };
    let script = "stat -L -c %t:%T /dev/console /dev/stdin; echo through >/dev/console";
    let seen = output(&mut stage, &console, script);
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[2]), (lines[1], "through"), "{seen}");
}

#[test]
fn what_is_typed_arrives() {
    let Some((mut stage, console)) = on_terminal() else { return };
    stage.script("stty -echo; echo ready; read word; echo got $word");
    stage.write_config();
    stage.call(&["create", "--bundle", ".", "--console-socket", &console.flag(), &stage.id]).ok();
    let mut master = console.receive();
    stage.call(&["start", &stage.id]).ok();
    let mut seen = String::new();
    while !seen.contains("ready") {
        assert!(invoke::readable(&master));
        let mut piece = [0; 64];
        let count = master.read(&mut piece).unwrap();
        seen.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    master.write_all(b"typed\n").unwrap();
    assert!(drain(&mut master).ends_with("got typed"));
}

#[test]
fn the_size_of_the_terminal_is_as_configured() {
    let Some((mut stage, console)) = on_terminal() else { return };
    stage.patch(&json!({"process": {"consoleSize": {"height": 33, "width": 111}}}));
    assert_eq!(output(&mut stage, &console, "stty size"), "33 111");
}

#[test]
fn the_size_is_passed_over_without_a_terminal() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"consoleSize": {"height": 33, "width": 111}}}));
    assert_eq!(stage.output("[ -t 1 ] || echo none; ls /dev/console 2>/dev/null; true"), "none");
}

#[test]
fn a_user_other_than_root_owns_the_terminal() {
    let Some((mut stage, console)) = on_terminal() else { return };
    stage.patch(&json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
    assert_eq!(output(&mut stage, &console, "stat -L -c %u /dev/stdin; echo through >/dev/stderr"), "1000\nthrough");
}

#[test]
fn create_on_a_terminal_without_a_console_socket_is_refused() {
    let Some((stage, _console)) = on_terminal() else { return };
    stage.try_create().fails();
    stage.call(&["state", &stage.id]).fails();
}

#[test]
fn a_further_process_has_a_terminal_of_its_own() {
    let Some(mut stage) = Stage::new() else { return };
    let console = Console::new(&stage);
    let _container = stage.start_waiting();
    let script = "[ -t 0 ] && [ -t 1 ] && tty; echo through >/dev/tty";
    let (socket, file) = (console.flag(), stage.path("pid").display().to_string());
    let flags = ["exec", "--tty", "--detach", "--pid-file", &file, "--console-socket", &socket];
    stage.call(&[&flags[..], &[&stage.id, "/bin/sh", "-c", script]].concat()).ok();
    collect(Pid::from_raw(std::fs::read_to_string(&file).unwrap().trim().parse().unwrap()).unwrap());
    assert_eq!(drain(&mut console.receive()), "/dev/pts/0\nthrough");
}
