//! The bytes of the shim protocol: what this release writes is in `testdata/fuzz/shim_protocol`.
//!
//! Seeds of that target, and a record of the wire: an agent speaks to shims of earlier releases, so these files may be
//! added to and not changed. Those of the set-up may be, because an agent sets up shims of its own release only.
//! `UPDATE_EXPECT=1` writes new ones.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use oci::container::users::{IdMaps, IdRange};
use oci::container::{Fd, Instruction, Namespaces as Kinds, Program, Script, Step};
use oci::protocol::{
    ContainerRecord, Exec, Failure, FromShim, Input, Limits, LogOptions, Namespaces, Outcome, Reply, Request, Role,
    RunState, SetUp, Start, ToShim, VERSION, Warning, encode,
};
use serde::Serialize;

fn check(name: &str, bytes: &[u8]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/fuzz/shim_protocol").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
    }
    let written = fs::read(&file).unwrap_or_default();
    assert_eq!(bytes, written, "{} (UPDATE_EXPECT=1 rewrites)", file.display());
}

fn stream<T: Serialize>(messages: &[(T, usize)]) -> Vec<u8> {
    messages.iter().flat_map(|(message, descriptors)| encode(message, *descriptors).unwrap()).collect()
}

fn script() -> Script {
    Script {
        version: Script::VERSION,
        new: Kinds::MOUNT.with(Kinds::PID),
        pid_namespace: None,
        born_in: Some(Fd(1)),
        joins: vec![Fd(2), Fd(300)],
        steps: vec![
            Step::NewSession,
            Step::Root { mount: Fd(0) },
            Step::Directory { path: c"/srv".to_owned(), mode: 0o755 },
            Step::OomScore { value: -999 },
            Step::Limit { resource: 7, soft: 1024, hard: u64::MAX },
            Step::Pivot,
            Step::User { uid: 1000, gid: 1000, groups: vec![1, 2] },
            Step::Seccomp { program: vec![Instruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }], flags: 0 },
        ],
        program: Program { args: vec![c"sh".to_owned()], env: vec![c"PATH=/bin".to_owned()] },
    }
}

fn start(script: Vec<u8>) -> ToShim {
    let log = LogOptions { name: "0.log".to_owned(), limits: Limits { max_size: 10 << 20, max_files: 5 } };
    let roles = vec![Role::Script, Role::LogDirectory, Role::Processes, Role::Kill, Role::MemoryEvents];
    let container = "c0".to_owned();
    let start = Start { container, script, roles, shared_memory: Some(1), log, stdin: false, processes: Some(2) };
    ToShim::Request { id: 1, request: Request::Start(Box::new(start)) }
}

#[test]
fn requests_are_written_as_ever() {
    let namespaces = Namespaces { network: true, ipc: true, uts: false };
    let sysctls = vec![("net/ipv4/ip_forward".to_owned(), "1".to_owned())];
    let range = IdRange { inside: 0, outside: 1 << 16, count: 1 << 16 };
    let user_namespace = Some(IdMaps { uids: vec![range], gids: vec![range] });
    let hostname = "pod".to_owned();
    let (shm_size, joins, born_in, processes) = (64 << 20, 2, true, true);
    let set_up = SetUp { namespaces, hostname, sysctls, shm_size, user_namespace, joins, born_in, processes };
    check("set_up", &stream(&[(ToShim::SetUp(set_up), 1)]));
    check("hello", &stream(&[(ToShim::Hello { version: VERSION }, 0)]));
    let script = script().to_bytes().unwrap();
    check("script", &script);
    check("start", &stream(&[(start(script.clone()), 5)]));
    let exec = Exec { container: "c0".to_owned(), script, timeout_ms: Some(1000) };
    let container = "c0".to_owned();
    let rest = [
        (ToShim::Request { id: 2, request: Request::Exec(Box::new(exec)) }, 3),
        (ToShim::Request { id: 3, request: Request::Stop { container, signal: 15, grace_ms: 30_000 } }, 0),
        (ToShim::Request { id: 4, request: Request::Remove { container: "c0".to_owned() } }, 0),
        (ToShim::Request { id: u64::MAX, request: Request::KillExec { request: 2 } }, 0),
        (ToShim::Request { id: 6, request: Request::List }, 0),
        (ToShim::Request { id: 7, request: Request::Shutdown }, 0),
    ];
    check("requests", &stream(&rest));
    let container = "c0".to_owned();
    let keep = Request::Keep { container: container.clone(), number: 7, script: vec![1] };
    let later = [
        (ToShim::Request { id: 8, request: keep }, 1),
        (
            ToShim::Request {
                id: 9,
                request: Request::ExecKept { container: container.clone(), number: 7, timeout_ms: None },
            },
            2,
        ),
        (ToShim::Request { id: 10, request: Request::Attach { container, input: Input::Whole } }, 1),
    ];
    check("requests_of_version_3", &stream(&later));
}

#[test]
fn replies_are_written_as_ever() {
    let running = ContainerRecord {
        container: "c0".to_owned(),
        sequence: 1,
        started_at: 1_700_000_000_000_000_000,
        state: RunState::Running { pid: 4242 },
        log_errno: Some(28),
    };
    let outcome = Outcome::Signal(9);
    let state = RunState::Exited { outcome, oom_killed: true, finished_at: -1 };
    let exited = ContainerRecord { state, log_errno: None, ..running.clone() };
    check("record", &encode(&exited, 0).unwrap()[oci::protocol::HEADER..]);
    check("is_set_up", &stream(&[(FromShim::IsSetUp { version: VERSION, pid: 7, warnings: Vec::new() }, 0)]));
    let failure = Failure::Step { step: "mount".to_owned(), errno: 13 };
    check("set_up_failed", &stream(&[(FromShim::SetUpFailed(failure.clone()), 0)]));
    let warnings = vec![Warning { step: "set oom_score_adj".to_owned(), errno: 1 }];
    let replies = [
        Reply::Done,
        Reply::Failed(failure),
        Reply::Failed(Failure::Execute { errno: 2 }),
        Reply::Started { container: running.clone(), warnings },
        Reply::Exited { outcome: Outcome::Code(137), timed_out: true },
        Reply::Containers { sequence: 9, containers: vec![running, exited] },
    ];
    let messages = (1..).zip(replies).map(|(id, reply)| (FromShim::Reply { id, reply }, 0));
    let first = [(FromShim::Hello { version: VERSION, pid: 7 }, 0)];
    let last = [(FromShim::Changed { sequence: 10 }, 0)];
    check("replies", &stream(&first.into_iter().chain(messages).chain(last).collect::<Vec<_>>()));
}

#[test]
fn damaged_lengths_are_seeds_as_well() {
    check("too_long", &[1, 0, 0x40, 0, 0]);
    check("longest_and_truncated", &[0, 0, 0x40, 0, 0, 2]);
    check("empty_frame", &[0, 0, 0, 0, 0]);
    check("descriptors_missing", &[2, 0, 0, 0, 251, 1, 1]);
    check("trailing_byte", &[3, 0, 0, 0, 0, 1, 1, 0]);
    // A text of 2^32 bytes, a list of 2^63 elements: lengths that nothing follows.
    check("length_of_text", &[9, 0, 0, 0, 0, 2, 1, 3, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x61]);
    let list = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    check("length_of_script", &[&[1, 0, 0, 0][..], &list].concat());
    let start = stream(&[(start([&[1, 0, 0, 0][..], &list].concat()), 5)]);
    check("length_within_start", &start);
}
